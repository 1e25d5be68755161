"""No network: what is kept of a crop are its pixels, for crop caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...cache.fingerprint import PIXELS
from .encoder_base import BATCH_SIZE, Encoder


class PixelEncoder(Encoder):
    """The identity: the features of a crop are its pixels, uint8 (3 * crop_size^2,), rows of the image one after the other."""

    batch_size, precision, device_type, sha256 = BATCH_SIZE, PIXELS, "cpu", ""

    def __init__(self, crop_size: int) -> None:
        self.width = 3 * crop_size**2

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder, but uint8."""
        pixels = crops.reshape(len(crops), -1).copy()
        return lambda: pixels
