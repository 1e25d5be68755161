"""Encoder interface: face crops (N, S, S, 3) to features (N, D)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

BATCH_SIZE = 32
"""Crops per forward pass. Every batch is padded to this size, so that a crop's features do not depend on the others."""


class Encoder(ABC):
    """A frozen network without its classifier.

    ``width``: numbers D of a frame; ``precision``: fp32, bf16, fp16 or int8; ``device_type``: cpu or cuda; ``sha256``: of the
    bytes its weights were read from.
    """

    batch_size: int
    width: int
    precision: str
    device_type: str
    sha256: str

    def arithmetic(self) -> str:
        """Return the precision it computes in at this moment; it differs from ``precision`` if that was changed globally."""
        return self.precision

    def in_fp32(self) -> Encoder | None:
        """Return the same network in fp32, for videos that overflow in fp16; None if there is no such form."""
        return None

    @abstractmethod
    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """Start encoding at most ``batch_size`` uint8 RGB crops (N, S, S, 3); return a function that waits for their float16
        features (N, D). ``crops`` may be overwritten at once."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Return the float16 features (N, D) of any number of uint8 RGB crops (N, S, S, 3)."""
        batches = [crops[i : i + self.batch_size] for i in range(0, len(crops), self.batch_size)]
        return np.concatenate([np.zeros((0, self.width), np.float16), *(self.encode_async(b)() for b in batches)])


def pad_batch(crops: np.ndarray, batch_size: int) -> np.ndarray:
    """Return exactly ``batch_size`` crops, black ones after those given."""
    if len(crops) == batch_size:
        return crops
    return np.concatenate([crops, np.zeros((batch_size - len(crops), *crops.shape[1:]), np.uint8)])
