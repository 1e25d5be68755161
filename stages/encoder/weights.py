"""What is an encoder file, and how is one written, read and told from a wrong one?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ...cache.errors import CeflError
from ...cache.files import replacing, sha256_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNIT_MEAN, UNIT_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NORMALISATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "unit": (UNIT_MEAN, UNIT_STD)}
"""How pixels in 0..1 are shifted and scaled: what torchvision's weights want, and [0, 1] as in the released code."""


@dataclass(frozen=True)
class EncoderFile:
    """An encoder on disk: ``sha256`` is of the file's bytes, ``normalisation`` a key of NORMALISATIONS.

    ``about`` says where the weights come from and what is known of them (source, source_sha256, score, …).
    """

    path: Path
    name: str
    normalisation: str
    sha256: str
    about: dict[str, str]


def bare_resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 that ends in the 512 numbers after global average pooling."""
    from torchvision.models import resnet18  # takes a second, which only those pay who build the network

    network = resnet18()
    setattr(network, "fc", nn.Identity())  # noqa: B010 - it is declared as a linear layer
    return network


def write_encoder(
    path: Path, state: dict[str, torch.Tensor], name: str, normalisation: str, about: dict[str, str]
) -> None:
    """Write a state dict of ``bare_resnet18`` with what must be known to use it."""
    metadata = {"name": name, "normalisation": normalisation, "about": json.dumps(about, sort_keys=True)}
    with replacing(path) as temporary:
        save_file({key: value.contiguous() for key, value in state.items()}, temporary, metadata)


def describe_encoder(path: Path) -> EncoderFile:
    """Read an encoder file's metadata and hash; raises CeflError when it is none."""
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder weights; make them with ceflpipe encoder {path.stem}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CeflError(f"{path}: not a safetensors file ({error}); make it with ceflpipe encoder") from None
    if metadata.get("normalisation") not in NORMALISATIONS or "name" not in metadata:
        raise CeflError(f"{path}: does not say its normalisation; make it with ceflpipe encoder file:{path}")
    try:
        about = json.loads(metadata.get("about", "{}"))
    except json.JSONDecodeError:
        raise CeflError(f"{path}: damaged: what it says of itself cannot be read; make it again") from None
    return EncoderFile(path, metadata["name"], metadata["normalisation"], sha256_of(path), about)


def load_encoder(path: Path) -> nn.Module:
    """Return the frozen network of an encoder file; raises CeflError where a key or a shape is not ResNet-18's."""
    describe_encoder(path)
    with safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict, it has no __iter__
    network = bare_resnet18()
    complaint = compare(state, network.state_dict())
    if complaint:
        raise CeflError(f"{path}: not the weights of a ResNet-18: {complaint}")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def compare(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
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
