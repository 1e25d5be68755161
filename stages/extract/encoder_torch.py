"""ResNet-18 encoder on torch, for CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cache.errors import CeflError
from ..device import resolve_device, resolve_precision, uses_tf32
from ..encoder.resnet18 import FusedConv, fused_resnet18
from ..encoder.weights import read_encoder
from .encoder_base import BATCH_SIZE, Encoder, pad_batch


class TorchEncoder(Encoder):
    """ResNet-18 without its classifier, on one device, in one precision.

    ``precision``: fp32, bf16, fp16, or ``auto``, the fastest that the device computes natively (see resolve_precision).
    """

    def __init__(
        self, weights: Path, device: str = "cpu", precision: str = "auto", batch_size: int = BATCH_SIZE
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.batch_size = batch_size
        self._weights = weights
        self._fp32: TorchEncoder | None = None
        file, arrays = read_encoder(weights)
        self.sha256, self.width, self.device_type = file.sha256, file.width, self.device.type
        self._mean = torch.tensor(file.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(file.std, device=self.device).view(1, 3, 1, 1) * 255
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)
        self._network = fused_resnet18(arrays).map(self._to_device)

    def arithmetic(self) -> str:
        """See Encoder; tf32 if somebody has turned it on since."""
        return "tf32" if self.precision == "fp32" and uses_tf32(self.device) else self.precision

    def in_fp32(self) -> TorchEncoder | None:
        """See Encoder; built once. Raises CeflError if the file has other content by now."""
        if self.precision == "fp16" and self._fp32 is None:
            self._fp32 = TorchEncoder(self._weights, str(self.device), "fp32", self.batch_size)
            if self._fp32.sha256 != self.sha256:
                raise CeflError(f"{self._weights}: was replaced while it was used; run the same command again")
        return self._fp32

    def _to_device(self, conv: FusedConv) -> Callable[[Tensor], Tensor]:
        """Return a convolution on this device, in this precision."""
        weight = torch.from_numpy(conv.weight).to(self.device, self._dtype, memory_format=torch.channels_last)
        bias = torch.from_numpy(conv.bias).to(self.device, self._dtype)
        return lambda x: F.conv2d(x, weight, bias, conv.stride, conv.padding)

    def _forward(self, x: Tensor) -> Tensor:
        """Return the features (N, 512) of normalized images (N, 3, S, S)."""
        x = F.max_pool2d(F.relu_(self._network.stem(x)), 3, 2, 1)
        for block in self._network.blocks:
            y = block.conv2(F.relu_(block.conv1(x)))
            x = F.relu_(y.add_(x if block.downsample is None else block.downsample(x)))
        return x.mean(dim=(2, 3))

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder. On a GPU the copies and the network run while the caller decodes."""
        count = len(crops)
        pixels = torch.from_numpy(pad_batch(crops, self.batch_size))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            pixels = pixels.pin_memory()  # a copy that is transferred in the background
        # a permuted (N, S, S, 3) array is already channels_last in memory
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            images = ((images - self._mean) / self._std).to(self._dtype)
            features = self._forward(images)[:count].to(torch.float16)
        if not on_gpu:
            return features.numpy
        on_host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        on_host.copy_(features, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.device))

        def fetch() -> np.ndarray:
            copied.synchronize()
            return on_host.numpy()

        return fetch
