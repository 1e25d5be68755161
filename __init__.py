"""ceflpipe: a two-stage offline feature pipeline around CEFLNet for video facial expression recognition.

In Python: ``ceflpipe.extract``, ``load_features``, ``CEFLNet``, ``cross_validate``, ``train_final`` and ``predict``; see
pipeline/api.py.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline.api import CEFLNet, cross_validate, extract, load_features, predict, train_final

__version__ = "0.1.0"
__all__ = ["CEFLNet", "cross_validate", "extract", "load_features", "predict", "train_final"]


def __getattr__(name: str) -> object:
    """Import the Python interface on first use: it brings torch, which ``ceflpipe --help`` does not need."""
    if name in __all__:
        from .pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module 'ceflpipe' has no attribute {name!r}")
