"""A data set on disk becomes a manifest: one CSV row per video."""
