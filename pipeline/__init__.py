"""The way in: command line, configuration, and what runs stages."""
