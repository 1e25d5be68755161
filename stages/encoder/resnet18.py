"""ResNet-18 (He et al., CVPR 2016) as a list of convolutions with their batch norms folded in.

In evaluation a batch norm is a factor and a shift per channel, which the convolution before it can apply: a fifth of the
time goes, the numbers stay (to rounding). Both encoders are written out from this list, so neither needs torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-5
"""Of torchvision's batch norms."""


@dataclass(frozen=True)
class FusedConv:
    """weight (O, I, h, w) and bias (O,) float32; the same stride and padding in both directions."""

    weight: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int


@dataclass(frozen=True)
class BasicBlock:
    """relu(second(relu(first(x))) + beside(x)); ``beside`` None is x itself."""

    conv1: FusedConv
    conv2: FusedConv
    downsample: FusedConv | None


def resnet18(arrays: Mapping[str, np.ndarray]) -> tuple[FusedConv, list[BasicBlock]]:
    """Return the first convolution (relu and a 3 x 3 maximum of stride 2 follow it) and the eight blocks, after which the
    mean over the picture gives the 512 numbers. ``arrays``: see encoder.weights.read_arrays."""
    blocks = []
    for layer in (1, 2, 3, 4):
        for number in (0, 1):
            name, stride = f"layer{layer}.{number}", 2 if layer > 1 and number == 0 else 1
            first = _fuse(arrays, f"{name}.conv1", f"{name}.bn1", stride, 1)
            second = _fuse(arrays, f"{name}.conv2", f"{name}.bn2", 1, 1)
            shrinks = f"{name}.downsample.0.weight" in arrays
            beside = _fuse(arrays, f"{name}.downsample.0", f"{name}.downsample.1", stride, 0) if shrinks else None
            blocks.append(BasicBlock(first, second, beside))
    return _fuse(arrays, "conv1", "bn1", 2, 3), blocks


def _fuse(arrays: Mapping[str, np.ndarray], name: str, norm: str, stride: int, padding: int) -> FusedConv:
    scale, shift, mean, variance = (
        arrays[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + EPSILON)
    weight = arrays[f"{name}.weight"].astype(np.float64) * factor[:, None, None, None]
    return FusedConv(weight.astype(np.float32), (shift - mean * factor).astype(np.float32), stride, padding)
