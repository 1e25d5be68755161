"""Encoder files: ResNet-18 weights as safetensors with their normalization, source and score."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ...cache.atomic import atomic_write, remove_stale_tmp, sha256_of
from ...cache.errors import CeflError

if TYPE_CHECKING:  # importing torch takes a second, which only those pay who build the network
    import torch
    from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNIT_MEAN, UNIT_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NORMALIZATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "unit": (UNIT_MEAN, UNIT_STD)}
"""How pixels in 0..1 are shifted and scaled: what torchvision's weights want, and [0, 1] as in the released code."""


@dataclass(frozen=True)
class EncoderFile:
    """An encoder on disk: ``sha256`` is of the file's bytes, ``normalisation`` a key of NORMALISATIONS.

    ``about`` says where the weights come from and what is known of them (source, source_sha256, score, …).
    """

    path: Path
    name: str
    normalization: str
    sha256: str
    metadata: dict[str, str]


def resnet18_backbone() -> nn.Module:
    """Return torchvision's ResNet-18 that ends in the 512 numbers after global average pooling."""
    from torch import nn
    from torchvision.models import resnet18

    network = resnet18()
    network.register_module("fc", nn.Identity())
    return network


def write_encoder(
    path: Path, state: dict[str, torch.Tensor], name: str, normalization: str, metadata: dict[str, str]
) -> None:
    """Write a state dict of ``bare_resnet18`` with what must be known to use it."""
    from safetensors.torch import save_file

    metadata = {"name": name, "normalisation": normalization, "about": json.dumps(metadata, sort_keys=True)}
    remove_stale_tmp(path)
    with atomic_write(path) as temporary:
        save_file({key: value.contiguous() for key, value in state.items()}, temporary, metadata)


def read_encoder_metadata(path: Path) -> EncoderFile:
    """Read an encoder file's metadata and hash; raises CeflError when it is none."""
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder weights; make them with ceflpipe encoder {path.stem}")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CeflError(f"{path}: not a safetensors file ({error}); make it with ceflpipe encoder") from None
    if metadata.get("normalisation") not in NORMALIZATIONS or "name" not in metadata:
        raise CeflError(f"{path}: does not say its normalisation; make it with ceflpipe encoder file:{path}")
    try:
        about = json.loads(metadata.get("about", "{}"))
    except json.JSONDecodeError:
        raise CeflError(f"{path}: damaged: what it says of itself cannot be read; make it again") from None
    return EncoderFile(path, metadata["name"], metadata["normalisation"], sha256_of(path), about)


def load_encoder(path: Path) -> nn.Module:
    """Return the frozen network of an encoder file; raises CeflError where a key or a shape is not ResNet-18's."""
    import torch
    from safetensors.torch import load_file

    state = _read(path, load_file)

    with torch.device("meta"):  # the random numbers that a network begins with would all be replaced
        network = resnet18_backbone()
    network.load_state_dict(state, strict=False, assign=True)  # all is there but, in old files, the counts of batches
    return network.eval().requires_grad_(False)


def load_numpy(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of an encoder file without torch; raises CeflError where a key or a shape is not ResNet-18's."""
    from safetensors.numpy import load_file

    return _read(path, load_file)


def _read(path: Path, load: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    read_encoder_metadata(path)
    state = load(path)
    complaint = state_dict_mismatch(state, resnet18_shapes())
    if complaint:
        raise CeflError(f"{path}: not the weights of a ResNet-18: {complaint}")
    return state


def resnet18_shapes() -> dict[str, np.ndarray]:
    """Return empty arrays with the names and shapes of ``bare_resnet18``'s state dict."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, norm: str, outputs: int, inputs: int, side: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, side, side)
        shapes.update({f"{norm}.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{norm}.num_batches_tracked"] = ()

    convolution("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in (f"layer{layer}.0", f"layer{layer}.1"):
            convolution(f"{block}.conv1", f"{block}.bn1", outputs, inputs, 3)
            convolution(f"{block}.conv2", f"{block}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                convolution(f"{block}.downsample.0", f"{block}.downsample.1", outputs, inputs, 1)
            inputs = outputs
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def state_dict_mismatch(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say which keys are missing, unexpected, or of another shape; an empty text when the state fits exactly.

    Batch norm's ``num_batches_tracked`` may be missing: old checkpoints lack it and inference does not use it.
    """
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    missing, unexpected = sorted(needed - set(state)), sorted(set(state) - set(wanted))
    shapes = [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    parts = []
    if missing:
        parts.append(f"missing {', '.join(missing)}")
    if unexpected:
        parts.append(f"unexpected {', '.join(unexpected)}")
    return "; ".join(parts + shapes)
