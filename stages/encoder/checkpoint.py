"""A checkpoint of the user's own becomes an encoder file: strictly, and reported key by key.

A layer left random because a key did not match is the field's best known way to results that cannot be reproduced.
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
from ...cache.errors import CeflError
from .weights import NORMALIZATIONS, resnet18_backbone, state_dict_mismatch, write_encoder

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the state dict, in the order they are looked for."""
PREFIXES_TO_STRIP = ("module.", "backbone.", "encoder.", "resnet.", "model.", "cnn.", "base.", "features.")
HEAD_PREFIXES = ("fc.", "feature.", "classifier.", "head.", "attn.", "norm1.", "beta.", "temp_attn.")
"""What stands on top of ResNet-18 in known checkpoints: dropped, and said. Emotion-FAN has fc and feature; the rest is
the head of a released CEFLNet, which `ceflpipe train-heads --head released --init` takes."""


def from_checkpoint(path: Path, out: Path, name: str, normalization: str | None) -> dict[str, str]:
    """Write the encoder file of a checkpoint; raises CeflError unless it fits ResNet-18 key by key.

    ``normalisation`` None takes what the file itself says (one of our own), else 'imagenet', which most have.
    """
    if not path.is_file():
        raise CeflError(f"file:{path}: no such file")
    loaded, own = _load(path)
    state, report = to_resnet18_state(loaded, str(path))
    chosen = normalization or own or "imagenet"
    about = {"source": path.name, "source_sha256": sha256_of(path)}
    write_encoder(out, state, name, chosen, about)
    if not normalization and not own:
        report["normalisation"] = (
            "imagenet (assumed; say --normalisation unit for weights trained on plain [0, 1] pixels)"
        )
    return {**about, **report}


def to_resnet18_state(loaded: Any, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state dict of a bare ResNet-18 and a report of what was stripped and dropped.

    Raises CeflError that lists every missing, unexpected or misshapen key.
    """
    nest, tensors = _tensors(loaded, where)
    prefix, tensors = _strip(tensors)
    dropped = sorted(key for key in tensors if key.startswith(HEAD_PREFIXES))
    state = {key: value for key, value in tensors.items() if key not in dropped}
    wanted = resnet18_backbone().state_dict()
    complaint = state_dict_mismatch(state, wanted)
    if complaint:
        raise CeflError(f"{where}: not a ResNet-18: {complaint}")
    untracked = {key: wanted[key] for key in wanted if key not in state}
    report = {"tensors": f"{len(state)} taken, none missing, none unexpected"}
    if nest:
        report["found under"] = nest
    if prefix:
        report["prefix stripped"] = prefix
    if dropped:
        report["heads dropped"] = ", ".join(dropped)
    return {**untracked, **{key: value.detach().clone() for key, value in state.items()}}, report


def _load(path: Path) -> tuple[Any, str | None]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                own = (file.metadata() or {}).get("normalisation")
            return load_file(path), own if own in NORMALIZATIONS else None
        except (SafetensorError, OSError) as error:
            raise CeflError(f"{path}: not a safetensors file that can be read ({error})") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True), None
    except pickle.UnpicklingError as error:
        raise CeflError(
            f"{path}: holds more than tensors, and code from a file is never run ({_first_line(error)}); save its "
            "state_dict alone with torch.save(model.state_dict(), ...) where you trust it, and give that file"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CeflError(f"{path}: not a torch checkpoint that can be read ({_first_line(error)})") from None


def _tensors(loaded: Any, where: str) -> tuple[str, dict[str, Tensor]]:
    nest = ""
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded, nest = loaded[key], key
            break
    if not isinstance(loaded, dict):
        raise CeflError(f"{where}: expected a state dict, found {type(loaded).__name__}")
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CeflError(f"{where}: holds no tensors; its keys are {', '.join(map(str, list(loaded)[:8])) or 'none'}")
    return nest, tensors


def _strip(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Remove the wrappers' prefixes in front of conv1.weight, e.g. module. of DataParallel; they may be nested."""
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


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
