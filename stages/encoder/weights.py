"""Encoder files: ResNet-18 as safetensors, or any network as ONNX, with its normalization, source and score."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ...cache.atomic import atomic_write, remove_stale_tmp, sha256_of
from ...cache.errors import CeflError
from .onnx_card import OnnxCard, read_card
from .resnet18 import RESNET18_WIDTH, resnet18_shapes

if TYPE_CHECKING:  # importing torch takes a second
    import torch
    from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNIT_MEAN, UNIT_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NORMALIZATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "unit": (UNIT_MEAN, UNIT_STD)}
"""Mean and standard deviation of pixels in 0..1. imagenet: those of torchvision's weights; unit: none, as in the released
CEFLNet code."""
DEFAULT_CROP_SIZE = 224
"""Side of the crops in pixels for an encoder file that does not state it: that of ImageNet."""
STORAGES = ("fp32", "fp16", "int8")
"""How the weights of convolutions lie in the file; int8 has a scale for each output channel. All are loaded as float32."""
_SCALE, _CLASSIFIER, _RANGES = ".scale", "classifier.", "activation_ranges"


ONNX_SUFFIX = ".onnx"
SUFFIXES = (".safetensors", ONNX_SUFFIX)
"""Of encoder files."""
BUILDABLE = ("actors", "imagenet")
"""Encoders that ``ceflpipe encoder`` builds by name; all others are made of a checkpoint."""


@dataclass(frozen=True)
class EncoderFile:
    """Metadata of an encoder file: ``normalization`` is a key of NORMALIZATIONS, or the ``mean`` and ``std`` as text;
    ``sha256`` is the hash of the file.

    ``crop_size``: side in pixels of the crops it was trained on, None if the file does not state it. ``template``: to which
    their landmarks are aligned. ``storage``: of the weights, of an ONNX network also its arithmetic. ``labels``: of its own
    classifier, empty if it has none. ``width``: numbers per frame. ``mean`` and ``std``: of pixels in 0..1.
    ``activation_ranges``: lowest and highest input of each convolution, which int8 needs, empty if they were not measured.
    ``metadata`` records the source of the weights, its hash, the held-out score and what else is known.
    """

    path: Path
    name: str
    normalization: str
    sha256: str
    metadata: dict[str, str]
    crop_size: int | None = None
    template: str = "arcface"
    storage: str = "fp32"
    labels: tuple[str, ...] = ()
    width: int = RESNET18_WIDTH
    mean: tuple[float, ...] = UNIT_MEAN
    std: tuple[float, ...] = UNIT_STD
    activation_ranges: tuple[tuple[float, float], ...] = ()


def resnet18_backbone() -> nn.Module:
    """Return torchvision's ResNet-18 with random weights, without its classifier: its output is (N, 512)."""
    from torch import nn
    from torchvision.models import resnet18

    network = resnet18()
    network.register_module("fc", nn.Identity())
    return network


def build_command(path: Path) -> str:
    """Return the command that builds an encoder file."""
    source = "onnx:FILE" if is_onnx(path) else path.stem if path.stem in BUILDABLE else "file:CHECKPOINT"
    named = path.parent.name == "weights" and path.suffix in SUFFIXES
    option = (
        "" if named and path.stem == source else f" --name {path.stem}" if named else f" --out {shlex.quote(str(path))}"
    )
    return f"ceflpipe encoder {source}{option}"


def write_encoder(
    path: Path,
    state: dict[str, torch.Tensor],
    name: str,
    normalization: str,
    metadata: dict[str, str],
    *,
    crop_size: int | None = None,
    storage: str = "fp32",
    classifier: tuple[torch.Tensor, torch.Tensor] | None = None,
    labels: tuple[str, ...] = (),
) -> None:
    """Write a state dict of ``resnet18_backbone`` as an encoder file.

    ``classifier``: weight (C, 512) and bias (C,) of a linear layer over the features, for the C ``labels``.
    """
    from safetensors.torch import save

    header = {"name": name, "normalization": normalization, "metadata": json.dumps(metadata, sort_keys=True)}
    if crop_size:
        header |= {"crop_size": str(crop_size), "template": "arcface"}
    if storage != "fp32":
        header["storage"] = storage
    tensors = compress(state, storage)
    if classifier:
        header["labels"] = json.dumps(labels)
        tensors |= {f"{_CLASSIFIER}weight": classifier[0], f"{_CLASSIFIER}bias": classifier[1]}
    remove_stale_tmp(path)
    with atomic_write(path) as temporary:
        temporary.write_bytes(_with_header(save({k: v.contiguous() for k, v in tensors.items()}, header)))


def write_activation_ranges(
    path: Path, base: EncoderFile, name: str, ranges: Sequence[tuple[float, float]], metadata: dict[str, str]
) -> None:
    """Write an encoder file again under another name, with its ``activation_ranges`` and more ``metadata``.

    Raises CeflError if ``base`` has other content by now.
    """
    content = base.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != base.sha256:
        raise CeflError(f"{base.path}: was replaced while it was used; run the same command again")
    header = {
        "name": name,
        "metadata": json.dumps(base.metadata | metadata, sort_keys=True),
        _RANGES: json.dumps(ranges),
    }
    remove_stale_tmp(path)
    with atomic_write(path) as temporary:
        temporary.write_bytes(_with_header(content, header))


def _with_header(content: bytes, changes: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with changed metadata, in the order of their names: safetensors writes them in a random one."""
    size = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + size])
    table["__metadata__"] = dict(sorted({**table["__metadata__"], **(changes or {})}.items()))
    encoded = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + size :]


def compress(state: Mapping[str, torch.Tensor], storage: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of this storage (STORAGES); biases and batch norms stay float32."""
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if value.ndim < 4 or storage == "fp32":
            tensors[key] = value
        elif storage == "fp16":
            tensors[key] = value.half()
        else:
            scale = value.float().abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
            tensors[key] = (value.float() / scale.view(-1, 1, 1, 1)).round().char()
            tensors[key + _SCALE] = scale
    return tensors


def decompress(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a file of any storage with float32 convolutions, without the classifier."""
    restored = {}
    for key, value in arrays.items():
        if key.startswith(_CLASSIFIER) or key.endswith(_SCALE):
            continue
        scale = arrays.get(key + _SCALE)
        if scale is not None:
            value = value.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
        restored[key] = value.astype(np.float32) if value.dtype == np.float16 else value
    return restored


def is_onnx(path: Path) -> bool:
    """Return whether a path is that of an ONNX file, by its name."""
    return path.suffix == ONNX_SUFFIX


def read_encoder_metadata(path: Path) -> EncoderFile:
    """Read an encoder file's metadata and hash; raises CeflError if it is not an encoder file."""
    if is_onnx(path):
        return _onnx_encoder_file(path, read_card(path), sha256_of(path))
    header = _read_header(path)
    return _encoder_file(path, header, sha256_of(path))


def _encoder_file(path: Path, header: Mapping[str, str], sha256: str) -> EncoderFile:
    try:
        metadata = json.loads(header.get("metadata", "{}"))
    except json.JSONDecodeError:
        raise CeflError(f"{path}: corrupted: its metadata is not JSON; build it again with ceflpipe encoder") from None
    labels, (mean, std) = tuple(json.loads(header.get("labels", "[]"))), NORMALIZATIONS[header["normalization"]]
    return EncoderFile(
        path, header["name"], header["normalization"], sha256, metadata, _recorded_crop_size(header),
        header.get("template", "arcface"), header.get("storage", "fp32"), labels, RESNET18_WIDTH, mean, std,
        _parse_ranges(path, header.get(_RANGES, "[]")),
    )  # fmt: skip


def _parse_ranges(path: Path, text: str) -> tuple[tuple[float, float], ...]:
    """Return ``activation_ranges`` as a file has them; raises CeflError for anything but pairs of increasing finite numbers."""
    try:
        ranges = tuple((float(low), float(high)) for low, high in json.loads(text))
    except (ValueError, TypeError):
        ranges = ((0.0, 0.0),)
    if not all(-np.inf < low < high < np.inf for low, high in ranges):
        raise CeflError(f"{path}: corrupted: its ranges of activations are not pairs of numbers; make it again")
    return ranges


def _onnx_encoder_file(path: Path, card: OnnxCard, sha256: str) -> EncoderFile:
    return EncoderFile(
        path, card.name, describe_normalization(card.mean, card.std), sha256, card.metadata(), card.crop_size, card.template,
        card.precision, (), card.width, card.mean, card.std,
    )  # fmt: skip


def describe_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Return the name of a normalization, or its numbers.

    >>> describe_normalization(IMAGENET_MEAN, IMAGENET_STD), describe_normalization((0.5,) * 3, (0.5,) * 3)
    ('imagenet', 'mean 0.5 0.5 0.5 std 0.5 0.5 0.5')
    """
    for name, numbers in NORMALIZATIONS.items():
        if numbers == (tuple(mean), tuple(std)):
            return name
    return "mean {} {} {} std {} {} {}".format(*mean, *std)


def read_crop_size(path: Path) -> int:
    """Read the side in pixels of the crops that an encoder file was trained on, DEFAULT_CROP_SIZE if it does not state it."""
    if is_onnx(path):
        return read_card(path).crop_size
    return _recorded_crop_size(_read_header(path)) or DEFAULT_CROP_SIZE


def _recorded_crop_size(header: Mapping[str, str]) -> int | None:
    recorded = header.get("crop_size", "")
    return int(recorded) if recorded.isdecimal() and int(recorded) > 0 else None


def is_encoder_file(path: Path) -> bool:
    """Return whether a file is an encoder file, by its header."""
    try:
        if is_onnx(path):
            read_card(path)
        else:
            _read_header(path)
    except CeflError:
        return False
    return True


def _read_header(path: Path) -> dict[str, str]:
    if is_onnx(path):
        raise CeflError(f"{path}: an ONNX network; this needs the weights of a ResNet-18, so pass a .safetensors file")
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder file; build it with {build_command(path)}")
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CeflError(f"{path}: not a safetensors file ({error}); build it with ceflpipe encoder") from None
    if header.get("normalization") not in NORMALIZATIONS or "name" not in header:
        raise CeflError(
            f"{path}: does not state its normalization; build it again with ceflpipe encoder SOURCE --force, or convert it "
            f"with ceflpipe encoder file:{path} --normalization imagenet (or unit) --out NEW.safetensors"
        )
    return header


def load_encoder(path: Path) -> nn.Module:
    """Return the frozen network of an encoder file; raises CeflError if a key or shape is not that of ResNet-18."""
    import torch

    state = {key: torch.tensor(value) for key, value in load_numpy(path).items()}
    with torch.device("meta"):  # its random initial weights would all be replaced
        network = resnet18_backbone()
    network.load_state_dict(state, strict=False, assign=True)  # old files lack num_batches_tracked
    return network.eval().requires_grad_(False)


def load_numpy(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of an encoder file without torch; raises CeflError if a key or shape is not that of ResNet-18."""
    return read_encoder(path)[1]


def read_encoder(path: Path) -> tuple[EncoderFile, dict[str, np.ndarray]]:
    """Return metadata and weights of an encoder file, with the hash of the very bytes that the weights were read from.

    A file that replaces this one at the same time is never signed with the other's hash. Raises CeflError as ``load_numpy``.
    """
    from safetensors.numpy import load

    _read_header(path)  # raises what a person can act on
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    state = decompress(load(content))
    mismatch = state_dict_mismatch(state)
    if mismatch:
        raise CeflError(f"{path}: not the weights of a ResNet-18: {mismatch}; build it again with ceflpipe encoder")
    return _encoder_file(path, header, hashlib.sha256(content).hexdigest()), state


def load_classifier(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (C, 512) and bias (C,) of an encoder file's own classifier; raises CeflError if it has none."""
    _read_header(path)
    with safe_open(path, "np") as file:
        if f"{_CLASSIFIER}weight" not in file.keys():  # noqa: SIM118 - not a mapping
            raise CeflError(
                f"{path}: has no classifier; train one with ceflpipe encoder photographs:FOLDER --init {path}"
            )
        return file.get_tensor(f"{_CLASSIFIER}weight"), file.get_tensor(f"{_CLASSIFIER}bias")


def state_dict_mismatch(state: Mapping[str, Any]) -> str:
    """Return which keys of ResNet-18's state dict are missing, unexpected or of another shape; '' if all match.

    Batch norm's ``num_batches_tracked`` may be missing: old checkpoints lack it, and inference does not use it.
    """
    expected = resnet18_shapes()
    required = {key for key in expected if not key.endswith("num_batches_tracked")}
    missing, unexpected = sorted(required - set(state)), sorted(set(state) - set(expected))
    parts = [f"{word} {', '.join(keys)}" for word, keys in (("missing", missing), ("unexpected", unexpected)) if keys]
    parts += [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    return "; ".join(parts)
