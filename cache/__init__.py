"""The HDF5 feature cache, the interface between stage one and stage two."""
