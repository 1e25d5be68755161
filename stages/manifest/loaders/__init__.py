"""Loaders, one per data set: a folder on disk to the entries of a manifest."""
