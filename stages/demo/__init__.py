"""A synthetic data set: rendered actors on video, who play six expressions and a neutral face."""
