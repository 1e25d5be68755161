"""Actor identities: shape and color parameters of a face, independent of each other."""

import colorsys
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from .canvas import Array, vector

SKIN_COLORS = ((252, 220, 200), (238, 194, 164), (206, 154, 116), (154, 104, 72), (98, 65, 49))
HAIR_COLORS_COOL = ((30, 28, 34), (66, 58, 58), (118, 108, 102), (218, 212, 204))
HAIR_COLORS_WARM = ((44, 28, 24), (104, 54, 34), (166, 86, 44), (230, 186, 112))
EYE_COLORS = ((60, 38, 26), (108, 68, 36), (126, 104, 58), (92, 126, 86), (88, 132, 170), (122, 138, 152))
"""RGB 0..255, interpolated linearly."""


def _between(low: float, high: float) -> Any:
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Actor:
    """Shape and color parameters of a face at rest.

    Lengths are in head units (see canvas.py), factors are around 1, positions are 0..1. Colors are RGB 0..255, float32 (3,).
    """

    number: int
    face_width: float = _between(0.93, 1.08)  # factor
    jaw_width: float = _between(0.84, 1.08)  # factor
    chin_y: float = _between(1.76, 1.95)
    brow_y: float = _between(-0.41, -0.33)
    brow_thickness: float = _between(0.03, 0.056)
    brow_arch: float = _between(0.01, 0.085)
    brow_slant: float = _between(-0.03, 0.035)
    eye_distance: float = _between(0.96, 1.05)
    eye_width: float = _between(0.264, 0.304)  # half of it
    eye_opening: float = _between(0.85, 1.18)  # factor
    eye_tilt: float = _between(-0.02, 0.045)
    nose_length: float = _between(0.56, 0.66)
    nose_width: float = _between(0.84, 1.22)  # factor
    mouth_y: float = _between(1.06, 1.15)
    mouth_width: float = _between(0.36, 0.44)  # half of it
    mouth_curve: float = _between(-0.025, 0.02)  # height of the corners at rest
    lip_fullness: float = _between(0.75, 1.3)  # factor
    hairline_y: float = _between(-1.15, -0.81)
    hair_end_y: float = _between(-0.35, 2.2)  # at the sides
    hair_thickness: float = _between(0.04, 0.26)
    hair_parting_x: float = _between(-0.45, 0.45)
    hair_curl: float = _between(0, 1)
    hair_lightness: float = _between(0, 1)
    hair_warmth: float = _between(0, 1)
    skin_darkness: float = _between(0, 1)
    skin_warmth: float = _between(0, 1)
    eye_lightness: float = _between(0, 1)
    cloth_hue: float = _between(0, 1)

    @cached_property
    def skin_color(self) -> Array:
        return _mix(SKIN_COLORS, self.skin_darkness) * (1 + (self.skin_warmth - 0.5) * vector([0.04, 0, -0.12]))

    @cached_property
    def lip_color(self) -> Array:
        return self.skin_color * vector([0.87, 0.62, 0.64])

    @cached_property
    def hair_color(self) -> Array:
        cool, warm = (_mix(colors, self.hair_lightness) for colors in (HAIR_COLORS_COOL, HAIR_COLORS_WARM))
        return cool + (warm - cool) * self.hair_warmth

    @cached_property
    def brow_color(self) -> Array:
        return np.minimum(self.hair_color * 0.8 + 6, self.skin_color * 0.58)  # always darker than the skin

    @cached_property
    def eye_color(self) -> Array:
        return _mix(EYE_COLORS, self.eye_lightness)

    @cached_property
    def cloth_color(self) -> Array:
        return 255 * vector(colorsys.hsv_to_rgb(self.cloth_hue, 0.4, 0.55))


PARAMETER_RANGES = {parameter.name: parameter.metadata["range"] for parameter in fields(Actor) if parameter.metadata}


def make_actor(number: int) -> Actor:
    """Return the actor of a number, always the same: every parameter is uniform in its range, independent of the rest."""
    rng = np.random.default_rng([20_817, number])
    return Actor(number, **{name: float(rng.uniform(*limits)) for name, limits in PARAMETER_RANGES.items()})


def _mix(colors: tuple[tuple[int, int, int], ...], position: float) -> Array:
    """Return the color at ``position`` (0..1) along a row of colors."""
    return vector([np.interp(position, np.linspace(0, 1, len(colors)), channel) for channel in np.transpose(colors)])
