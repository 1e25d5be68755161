"""Convert a checkpoint to an encoder file. Every key must match.

A layer left random because its key did not match is a well-known cause of results that cannot be reproduced.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError, first_line
from .resnet18 import resnet18_shapes
from .weights import NORMALIZATIONS, state_dict_mismatch, write_encoder

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts save the state dict, in order of priority."""
PREFIXES_TO_STRIP = ("module.", "backbone.", "encoder.", "resnet.", "model.", "cnn.", "base.", "features.")
HEAD_PREFIXES = ("fc.", "feature.", "classifier.", "head.", "attn.", "norm1.", "beta.", "temp_attn.")
"""Heads on top of ResNet-18 in known checkpoints, which are dropped and reported. Emotion-FAN has fc and feature; the rest
is the head of a released CEFLNet, which `ceflpipe train-heads --head released --init` reads."""


def from_checkpoint(path: Path, out: Path, name: str, normalization: str | None) -> dict[str, str]:
    """Write the encoder file of a checkpoint and return its metadata; raises CeflError unless every key matches ResNet-18.

    ``normalization`` defaults to that of the file if it is an encoder file, else to 'imagenet', the most common.
    """
    if not path.is_file():
        raise CeflError(f"file:{path}: no such file; pass file: and the path of a checkpoint")
    loaded, recorded = _load(path)
    state, report = to_resnet18_state(loaded, str(path))
    metadata = {"source": path.name, "source_sha256": sha256_of(path)}
    write_encoder(out, state, name, normalization or recorded or "imagenet", metadata)
    if not normalization and not recorded:
        report["normalization"] = "imagenet (assumed; pass --normalization unit if the pixels were in [0, 1])"
    return {**metadata, **report}


def to_resnet18_state(loaded: Any, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state dict of ``resnet18_backbone`` and a report of what was stripped and dropped.

    Raises CeflError that lists every missing key, unexpected key and wrong shape. ``where`` is the file it names.
    """
    nesting, tensors = _tensors(loaded, where)
    prefix, tensors = _strip(tensors)
    dropped = sorted(key for key in tensors if key.startswith(HEAD_PREFIXES))
    state = {key: value for key, value in tensors.items() if key not in dropped}
    mismatch = state_dict_mismatch(state)
    if mismatch:
        raise CeflError(f"{where}: not a ResNet-18: {mismatch}; pass a checkpoint of a ResNet-18")
    untracked = {key: torch.tensor(0) for key in resnet18_shapes() if key not in state}  # num_batches_tracked
    report = {"tensors": f"{len(state)} loaded, none missing, none unexpected"}
    if nesting:
        report["state dict under"] = nesting
    if prefix:
        report["prefix stripped"] = prefix
    if dropped:
        report["heads dropped"] = ", ".join(dropped)
    return {**untracked, **{key: value.detach().clone() for key, value in state.items()}}, report


def _load(path: Path) -> tuple[Any, str | None]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                recorded = (file.metadata() or {}).get("normalization")
            return load_file(path), recorded if recorded in NORMALIZATIONS else None
        except (SafetensorError, OSError) as error:
            raise CeflError(f"{path}: not a readable safetensors file ({error}); download or copy it again") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True), None
    except pickle.UnpicklingError as error:
        raise CeflError(
            f"{path}: contains more than tensors, and code in a file is never run ({first_line(error)}); if you trust it, "
            "save its state_dict alone with torch.save(model.state_dict(), ...) and pass that file"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CeflError(
            f"{path}: not a readable torch checkpoint ({first_line(error)}); download or copy it again"
        ) from None


def _tensors(loaded: Any, where: str) -> tuple[str, dict[str, Tensor]]:
    nesting = ""
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded, nesting = loaded[key], key
            break
    if not isinstance(loaded, dict):
        raise CeflError(f"{where}: expected a state dict, found {type(loaded).__name__}; save one with torch.save")
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(loaded)[:8])) or "none"
        raise CeflError(f"{where}: no tensors in it, its keys are {keys}; save a state dict with torch.save")
    return nesting, tensors


def _strip(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return the prefixes of wrappers, which may be nested (module. of DataParallel …), and the tensors without them."""
    stripped = ""
    while "conv1.weight" not in tensors:
        prefix = next((p for p in PREFIXES_TO_STRIP if any(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)} | {
            key: value for key, value in tensors.items() if not key.startswith(prefix) and key.startswith(HEAD_PREFIXES)
        }
        stripped += prefix
    return stripped, tensors
