"""The HDF5 feature cache: all that stage one and stage two share."""
