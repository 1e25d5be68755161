"""Data set on disk to manifest: one CSV row per video."""
