"""ResNet-18 encoder on torch, for processors and GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import resolve_device, resolve_precision
from ..encoder.resnet18 import FusedConv, resnet18
from ..encoder.weights import NORMALIZATIONS, load_numpy, read_encoder_metadata
from .encoder_base import BATCH_SIZE, Encoder, pad_batch


class TorchEncoder(Encoder):
    """ResNet-18 without its classifier, on one device, in one precision.

    ``precision``: fp32, bf16 or fp16; ``auto`` takes the fastest that the device has natively (see resolve_precision).
    """

    def __init__(
        self, weights: Path, device: str = "cpu", precision: str = "auto", batch_size: int = BATCH_SIZE
    ) -> None:
        file = read_encoder_metadata(weights)
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.batch_size = batch_size
        mean, std = NORMALIZATIONS[file.normalization]
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1) * 255
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)
        stem, blocks = resnet18(load_numpy(weights))
        self._stem = self._to_device(stem)
        self._blocks = [
            (self._to_device(b.conv1), self._to_device(b.conv2), b.downsample and self._to_device(b.downsample))
            for b in blocks
        ]

    def _to_device(self, part: FusedConv) -> Callable[[Tensor], Tensor]:
        """Return a convolution on this device, in this precision."""
        weight = torch.from_numpy(part.weight).to(self.device, self._dtype, memory_format=torch.channels_last)
        bias = torch.from_numpy(part.bias).to(self.device, self._dtype)
        return lambda x: F.conv2d(x, weight, bias, part.stride, part.padding)

    def _forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu_(self._stem(x)), 3, 2, 1)
        for first, second, beside in self._blocks:
            y = second(F.relu_(first(x)))
            x = F.relu_(y.add_(x if beside is None else beside(x)))
        return x.mean(dim=(2, 3))

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder. On a GPU the copies and the network run on while the caller decodes."""
        count = len(crops)
        pixels = torch.from_numpy(pad_batch(crops, self.batch_size))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            pixels = pixels.pin_memory()  # a copy, from which the transfer runs in the background
        # a permuted (N, S, S, 3) array is already channels_last in memory
        picture = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            picture = ((picture - self._mean) / self._std).to(self._dtype)
            features = self._forward(picture)[:count].to(torch.float16)
        if not on_gpu:
            return features.numpy
        waiting = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        waiting.copy_(features, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))

        def fetch() -> np.ndarray:
            arrived.synchronize()
            return waiting.numpy()

        return fetch
