"""A data set of rendered actors: drawn faces that play six expressions on video."""
