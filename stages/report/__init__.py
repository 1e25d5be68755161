"""Report stage: runs to tables, figures and one HTML page."""
