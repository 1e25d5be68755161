"""ResNet-18 (He et al., CVPR 2016): its layers, from which the shapes of the weights and the fused network are derived.

At inference a batch norm is a factor and a shift per channel, which the convolution before it can apply. That saves a
fifth of the time, and the features agree to rounding. Both encoders run the fused network; neither needs torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
U = TypeVar("U")
EPSILON = 1e-5
"""Of torchvision's batch norms."""
RESNET18_WIDTH = 512
"""Features of an image."""


@dataclass(frozen=True)
class ConvSpec:
    """A convolution and the batch norm after it, by their names in torchvision's state dict."""

    name: str
    norm: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1

    @property
    def padding(self) -> int:
        return self.kernel_size // 2


@dataclass(frozen=True)
class FusedConv:
    """weight (O, I, h, w) and bias (O,) float32; the same stride and padding in both directions."""

    weight: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int


@dataclass(frozen=True)
class BasicBlock(Generic[T]):
    """relu(conv2(relu(conv1(x))) + downsample(x)), or + x without ``downsample``."""

    conv1: T
    conv2: T
    downsample: T | None

    def map(self, function: Callable[[T], U]) -> BasicBlock[U]:
        downsample = None if self.downsample is None else function(self.downsample)
        return BasicBlock(function(self.conv1), function(self.conv2), downsample)


@dataclass(frozen=True)
class ResNet18(Generic[T]):
    """The stem, relu, 3 x 3 max pooling of stride 2, eight blocks and the spatial mean: 512 features.

    T represents a convolution: its ConvSpec, its FusedConv, or a function of a library.
    """

    stem: T
    blocks: tuple[BasicBlock[T], ...]

    def map(self, function: Callable[[T], U]) -> ResNet18[U]:
        """Return the same network with every convolution replaced by ``function`` of it."""
        return ResNet18(function(self.stem), tuple(block.map(function) for block in self.blocks))

    def convs(self) -> list[T]:
        """Return all convolutions, in the order of torchvision's state dict."""
        blocks = (conv for block in self.blocks for conv in (block.conv1, block.conv2, block.downsample))
        return [self.stem, *(conv for conv in blocks if conv is not None)]


def _block(name: str, in_channels: int, out_channels: int) -> BasicBlock[ConvSpec]:
    conv2 = ConvSpec(f"{name}.conv2", f"{name}.bn2", out_channels, out_channels, 3)
    if in_channels == out_channels:
        return BasicBlock(ConvSpec(f"{name}.conv1", f"{name}.bn1", in_channels, out_channels, 3), conv2, None)
    conv1 = ConvSpec(f"{name}.conv1", f"{name}.bn1", in_channels, out_channels, 3, stride=2)
    return BasicBlock(
        conv1, conv2, ConvSpec(f"{name}.downsample.0", f"{name}.downsample.1", in_channels, out_channels, 1, stride=2)
    )


LAYERS = ResNet18(
    ConvSpec("conv1", "bn1", 3, 64, 7, stride=2),
    (
        _block("layer1.0", 64, 64),
        _block("layer1.1", 64, 64),
        _block("layer2.0", 64, 128),
        _block("layer2.1", 128, 128),
        _block("layer3.0", 128, 256),
        _block("layer3.1", 256, 256),
        _block("layer4.0", 256, 512),
        _block("layer4.1", 512, 512),
    ),
)


def resnet18_shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the state dict of torchvision's ResNet-18 without its classifier."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in LAYERS.convs():
        shapes[f"{conv.name}.weight"] = (conv.out_channels, conv.in_channels, conv.kernel_size, conv.kernel_size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{conv.norm}.{part}"] = (conv.out_channels,)
        shapes[f"{conv.norm}.num_batches_tracked"] = ()
    return shapes


def fused_resnet18(arrays: Mapping[str, np.ndarray]) -> ResNet18[FusedConv]:
    """Return the network with each batch norm folded into its convolution; ``arrays``: see weights.load_numpy."""
    return LAYERS.map(lambda conv: _fuse(conv, arrays))


def _fuse(conv: ConvSpec, arrays: Mapping[str, np.ndarray]) -> FusedConv:
    scale, shift, mean, variance = (
        arrays[f"{conv.norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + EPSILON)
    weight = arrays[f"{conv.name}.weight"].astype(np.float64) * factor[:, None, None, None]
    return FusedConv(weight.astype(np.float32), (shift - mean * factor).astype(np.float32), conv.stride, conv.padding)
