"""One loader per data set: a folder on disk to manifest entries."""
