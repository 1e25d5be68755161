"""Conversion of HDR colors (PQ and HLG, ITU-R BT.2100) to those of ordinary video, by tables and one matrix."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Transfer characteristics in the numbers of ITU-T H.273."""
HDR_NAMES = {PQ: "PQ", HLG: "HLG"}
REFERENCE_WHITE = 203.0
"""Luminance in cd/m2 of white paper in HDR video (ITU-R BT.2408), which becomes white."""
HLG_PEAK = 1000.0
"""Luminance in cd/m2 of the brightest HLG value on the display for which it is graded."""
KNEE = 0.8
"""Linear value (0..1) above which brighter ones are compressed, so that lights are not cut off."""
_DISPLAY_GAMMA = 2.4
_LEVELS = 1 << 16
_BT2020_LUMINANCE = np.array([0.2627, 0.678, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def to_sdr(image: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """Return a PQ or HLG image, uint16 (H, W, 3) RGB with BT.2020 primaries, as 8-bit RGB with BT.709 primaries."""
    linear = _linear_table(transfer)[image]
    if transfer == HLG:  # the display's gamma depends on the luminance of the pixel
        luminance = linear @ _BT2020_LUMINANCE
        linear *= (HLG_PEAK / REFERENCE_WHITE * luminance**0.2)[..., None]
    linear = np.clip(cv2.transform(linear, _BT2020_TO_BT709), 0, None)
    bright = linear > KNEE
    linear[bright] = KNEE + (1 - KNEE) * (1 - np.exp((KNEE - linear[bright]) / (1 - KNEE)))
    return _display_table()[(linear * (_LEVELS - 1)).astype(np.uint16)]


@cache
def _linear_table(transfer: int) -> NDArray[np.float32]:
    """Return linear light by 16-bit value: of PQ in units of REFERENCE_WHITE, of HLG in 0..1 of the scene."""
    value = np.linspace(0, 1, _LEVELS)
    if transfer == PQ:
        power = value ** (32 / 2523)
        linear = 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)
        return (linear / REFERENCE_WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12).astype(np.float32)


@cache
def _display_table() -> NDArray[np.uint8]:
    return np.rint(255 * np.linspace(0, 1, _LEVELS) ** (1 / _DISPLAY_GAMMA)).astype(np.uint8)
