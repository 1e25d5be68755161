"""A synthetic data set: rendered actors who play six expressions on video."""
