"""State dicts in checkpoints of training scripts: torch and safetensors files, of which only tensors are read."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..cache.errors import CeflError, first_line

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts save the state dict, in order of priority."""


def read_state_dict(path: Path, source: str) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint; raises CeflError, which names ``source``, if it cannot be read or has none."""
    return find_state_dict(read_checkpoint(path, source), source)[0]


def read_checkpoint(path: Path, source: str) -> Any:
    """Read what a torch or safetensors file holds; code in the file is never run.

    Raises CeflError, which names ``source``, if it cannot be read.
    """
    if not path.is_file():
        raise CeflError(f"{source}: no such file; pass the path of a checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CeflError(
            f"{source}: contains more than tensors, and code in a file is never run ({first_line(error)}); if you trust it, "
            "save its state_dict alone with torch.save(model.state_dict(), ...) and pass that file"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile, SafetensorError) as error:
        raise CeflError(
            f"{source}: not a readable checkpoint ({first_line(error)}); download or copy it again"
        ) from None


def find_state_dict(loaded: Any, source: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a checkpoint by name, and the key of STATE_DICT_KEYS under which they are ('' if under none).

    Raises CeflError, which names ``source``, if there are none.
    """
    nesting = ""
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded, nesting = loaded[key], key
            break
    if not isinstance(loaded, dict):
        raise CeflError(f"{source}: expected a state dict, found {type(loaded).__name__}; save one with torch.save")
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(loaded)[:8])) or "none"
        raise CeflError(f"{source}: no tensors in it, its keys are {keys}; save a state dict with torch.save")
    return tensors, nesting
