"""Convert a checkpoint to an encoder file. Every key must match.

A layer left random because its key did not match is a well-known cause of results that cannot be reproduced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..state_dict import find_state_dict, read_checkpoint
from .resnet18 import resnet18_shapes
from .weights import NORMALIZATIONS, load_encoder, read_encoder_metadata, state_dict_mismatch, write_encoder

PREFIXES_TO_STRIP = ("module.", "backbone.", "encoder.", "resnet.", "model.", "cnn.", "base.", "features.")
HEAD_PREFIXES = ("fc.", "fc2.", "feature.", "classifier.", "head.", "attn.", "norm1.", "beta.", "temp_attn.")
"""Heads on top of ResNet-18 in known checkpoints, which are dropped and reported. Emotion-FAN has fc and feature; the rest
is the head of a released CEFLNet, which `ceflpipe train-heads --head released --init` reads."""


def from_checkpoint(
    path: Path, out: Path, name: str, normalization: str | None, crop_size: int | None = None
) -> dict[str, str]:
    """Write the encoder file of a checkpoint and return its metadata; raises CeflError unless every key matches ResNet-18.

    ``normalization`` defaults to that of the file if it is an encoder file, else to 'imagenet', the most common;
    ``crop_size`` to that of an encoder file.
    """
    source = f"file:{path}"
    recorded = _recorded_normalization(path)
    loaded = load_encoder(path).state_dict() if recorded else read_checkpoint(path, source)
    state, report = to_resnet18_state(loaded, source)
    metadata = {"source": path.name, "source_sha256": sha256_of(path)}
    size = crop_size or (read_encoder_metadata(path).crop_size if recorded else None)
    write_encoder(out, state, name, normalization or recorded or "imagenet", metadata, crop_size=size)
    if not normalization and not recorded:
        report["normalization"] = "imagenet (assumed; pass --normalization unit if the pixels were in [0, 1])"
    return {**metadata, **report}


def to_resnet18_state(loaded: Any, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state dict of ``resnet18_backbone`` and a report of what was stripped and dropped.

    Raises CeflError that lists every missing key, unexpected key and wrong shape. ``source`` is what it names.
    """
    tensors, nesting = find_state_dict(loaded, source)
    prefix, tensors = _strip(tensors)
    dropped = sorted(key for key in tensors if key.startswith(HEAD_PREFIXES))
    state = {key: value for key, value in tensors.items() if key not in dropped}
    mismatch = state_dict_mismatch(state)
    if mismatch:
        raise CeflError(f"{source}: not a ResNet-18: {mismatch}; pass a checkpoint of a ResNet-18")
    untracked = {key: torch.tensor(0) for key in resnet18_shapes() if key not in state}  # num_batches_tracked
    report = {"tensors": f"{len(state)} loaded, none missing, none unexpected"}
    if nesting:
        report["state_dict_key"] = nesting
    if prefix:
        report["stripped_prefix"] = prefix
    if dropped:
        report["dropped_heads"] = ", ".join(dropped)
    return {**untracked, **{key: value.detach().clone() for key, value in state.items()}}, report


def _recorded_normalization(path: Path) -> str | None:
    """Return the normalization that an encoder file records; None for other files."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        recorded = (file.metadata() or {}).get("normalization")
    return recorded if recorded in NORMALIZATIONS else None


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
