"""Encoder interface: face crops (N, S, S, 3) to features (N, 512)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from ...cache.features import FEATURE_DIM

BATCH_SIZE = 32
"""Crops that go through the network at once. Always this many (the last batch is filled up with zeros), so that what
comes out for a crop does not depend on how many others there were."""
BACKENDS = ("torch", "openvino")
"""torch: on any device, the default. openvino: processors only, an extra of the package."""


class Encoder(ABC):
    """ResNet-18 without its classifier. ``precision``: the arithmetic really used, fp32, bf16 or fp16."""

    batch_size: int
    precision: str

    @abstractmethod
    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """Start on at most ``batch`` uint8 (N, S, S, 3) RGB crops and return a function that waits for their features,
        float16 (N, 512). ``crops`` may be overwritten at once."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Return float16 (N, 512) features of any number of uint8 (N, S, S, 3) RGB crops."""
        if not len(crops):
            return np.zeros((0, FEATURE_DIM), np.float16)
        return np.concatenate(
            [self.encode_async(crops[i : i + self.batch_size])() for i in range(0, len(crops), self.batch_size)]
        )


def pad_batch(crops: np.ndarray, batch: int) -> np.ndarray:
    """Return exactly ``batch`` crops, black ones after those given."""
    if len(crops) == batch:
        return crops
    return np.concatenate([crops, np.zeros((batch - len(crops), *crops.shape[1:]), np.uint8)])
