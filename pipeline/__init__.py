"""Command line, Python interface, configuration, and orchestration of the stages."""
