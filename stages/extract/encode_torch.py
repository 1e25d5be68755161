"""How do crops become 512 numbers each with torch, on any device?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..device import checked_device, resolve_precision
from ..encoder.weights import NORMALISATIONS, describe_encoder, load_encoder
from .encode import BATCH, Encoder, filled_up


class TorchEncoder(Encoder):
    """ResNet-18 without its classifier, on one device, in one precision.

    ``precision``: fp32, bf16 or fp16; ``auto`` takes the fastest that the device has natively (see resolve_precision).
    """

    def __init__(self, weights: Path, device: str = "cpu", precision: str = "auto", batch: int = BATCH) -> None:
        file = describe_encoder(weights)
        self.device = checked_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.batch = batch
        mean, std = NORMALISATIONS[file.normalisation]
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1) * 255
        self._kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)
        network = fold_batch_norm(load_encoder(weights)).to(self.device, self._kind)
        self._network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def begin(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder. On a GPU the copies and the network run on while the caller decodes."""
        count = len(crops)
        pixels = torch.from_numpy(filled_up(crops, self.batch))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            pixels = pixels.pin_memory()  # a copy, from which the transfer runs in the background
        # a permuted (N, S, S, 3) array is already channels_last in memory
        picture = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            picture = ((picture - self._mean) / self._std).to(self._kind)
            features = self._network(picture)[:count].to(torch.float16)
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


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Put every batch norm into the convolution before it: a fifth of the time goes, the numbers stay (to rounding).

    Changes and returns ``network``, which must be in evaluation mode and register each norm right after its convolution,
    as torchvision's networks do.
    """
    before, place = None, ""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(network, place, fuse_conv_bn_eval(before, child))
            setattr(network, name, nn.Identity())
        else:
            fold_batch_norm(child)
        before, place = child, name
    return network
