"""File formats of predict, one module per family."""
