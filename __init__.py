"""ceflpipe: a two-stage offline feature pipeline around CEFLNet for video facial expression recognition.

In a notebook: ``ceflpipe.extract``, ``load_table``, ``CEFLNet``, ``fit_folds`` and ``predict``; see pipeline/api.py.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline.api import CEFLNet, extract, fit_folds, load_table, predict

__version__ = "0.1.0"
__all__ = ["CEFLNet", "extract", "fit_folds", "load_table", "predict"]


def __getattr__(name: str) -> object:
    """Import the five calls when they are asked for: they bring torch, which ``ceflpipe --help`` need not wait for."""
    if name in __all__:
        from .pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module 'ceflpipe' has no attribute {name!r}")
