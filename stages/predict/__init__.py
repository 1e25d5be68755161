"""Trained heads on any video: expressions over time."""
