"""ceflpipe: a two-stage offline feature pipeline around CEFLNet for video facial expression recognition."""

__version__ = "0.1.0"
