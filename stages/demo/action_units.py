"""FACS action units: the six expressions as combinations of them, and how each unit moves, bulges and wrinkles the skin."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .actor import Actor
from .canvas import Array, Canvas, sample, smoothstep, spline

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
NEUTRAL = "neutral"
LABELS = (*EXPRESSIONS, NEUTRAL)
"""Of the videos; new ones go to the end, since the number of a label seeds its performances."""

# fmt: off
ACTION_UNITS: dict[int, str] = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 12: "lip corner puller", 15: "lip corner depressor",
    17: "chin raiser", 20: "lip stretcher", 23: "lip tightener", 25: "lips part", 26: "jaw drop",
}
# fmt: on
"""Units of expressions; the intensity of a unit is 0 (at rest) to 1 (strong), at most MAX_INTENSITY."""
EYE_UNITS: dict[int, str] = {45: "blink", 61: "eyes left", 62: "eyes right", 63: "eyes up", 64: "eyes down"}
"""Units that belong to no expression; left and right are those of the image."""
MAX_INTENSITY = 1.15

PROTOTYPES: dict[str, dict[int, float]] = {
    "anger": {4: 1.0, 5: 1.0, 7: 0.8, 23: 1.0},
    "disgust": {9: 1.0, 10: 1.0, 15: 0.55, 17: 0.5},
    "fear": {1: 0.95, 2: 0.6, 4: 0.75, 5: 1.0, 20: 1.0, 26: 0.45},
    "happiness": {6: 1.0, 12: 1.0, 25: 0.8},
    "sadness": {1: 1.0, 4: 0.75, 15: 1.0, 17: 0.5},
    "surprise": {1: 1.0, 2: 1.0, 5: 1.0, 26: 1.0},
    NEUTRAL: {},
}
"""Intensity of each unit at full expression; a neutral face has none."""

JAW_DROP = 0.37  # how far the chin falls at unit 26, in units of length
FIELD_RESOLUTION = 12  # of the smooth fields, pixels per unit


def expression_units(label: str, intensity: float, gains: Mapping[int, float] | None = None) -> dict[int, float]:
    """Return the units of an expression at ``intensity`` (0..1), each multiplied by its gain (1 where none is given)."""
    return {unit: intensity * full * (gains or {}).get(unit, 1.0) for unit, full in PROTOTYPES[label].items()}


def non_prototype_units(label: str) -> tuple[int, ...]:
    """Return the units that belong to other expressions but not to this one, in ascending order."""
    return tuple(sorted({unit for units in PROTOTYPES.values() for unit in units} - set(PROTOTYPES[label])))


def combine_units(*parts: Mapping[int, float]) -> dict[int, float]:
    """Return units that act together: intensities add up, to MAX_INTENSITY at most."""
    total: dict[int, float] = {}
    for part in parts:
        for unit, intensity in part.items():
            total[unit] = min(MAX_INTENSITY, total.get(unit, 0.0) + intensity)
    return total


def gaze_units(right: float, down: float) -> dict[int, float]:
    """Return the eye units of a gaze, -1..1 to the right and down."""
    return {61: max(0.0, -right), 62: max(0.0, right), 63: max(0.0, -down), 64: max(0.0, down)}


@dataclass(frozen=True)
class SkinMotion:
    """Deformation of one actor's skin by each action unit; the first axis of the arrays runs over ``units``.

    ``shifts`` float32 (n, h, w, 3) on the coarse ``canvas``: to the right, down, and towards the camera, in units of
    length; ``wrinkles`` (n, H, W): their depth, 0..1, on the same rectangle with the resolution of the skin.
    """

    actor: Actor
    canvas: Canvas
    units: tuple[int, ...]
    shifts: Array
    wrinkles: Array

    def weights(self, units: Mapping[int, float]) -> list[float]:
        """Return the intensities of ``self.units``. AU 1 (inner brow raiser) reduces the effect of AU 4 (brow lowerer)."""
        given = {unit: max(0.0, float(units.get(unit, 0.0))) for unit in self.units}
        given[4] *= 1 - 0.55 * min(1.0, given[1])
        return [given[unit] for unit in self.units]

    def inverse_warp(self, weights: list[float], jaw: float, x: Array, y: Array) -> tuple[Array, Array]:
        """Return where the skin at (x, y) rests, (h, w, 2), and how far it bulges, (h, w), all in units of length."""
        shift = weighted_sum(weights, self.shifts)
        bulge = sample(shift, self.canvas.to_pixels(x, y), cv2.BORDER_REPLICATE)[..., 2]
        if jaw > 0.003:
            # the drop grows downwards, so its inverse is found by halving the interval it must lie in
            drop, mouth = jaw * (1 - smoothstep(np.abs(x), 0.55, 1.2)), self.actor.mouth_y
            step, target, y = jaw / 2, y, y - jaw / 2
            for _ in range(6):
                step /= 2
                y = y - np.copysign(np.float32(step), y + drop * smoothstep(y, mouth - 0.08, mouth + 0.3) - target)
        at_x, at_y = x, y
        # the pull is known where the skin was, not where it went: two steps of a fixed-point iteration
        for _ in range(2):
            moved = sample(shift, self.canvas.to_pixels(at_x, at_y), cv2.BORDER_REPLICATE)
            at_x, at_y = x - moved[..., 0], y - moved[..., 1]
        return np.stack([at_x, at_y], -1), bulge


def build_skin_motion(actor: Actor, canvas: Canvas) -> SkinMotion:
    """Compute the deformation of an actor's skin on ``canvas``."""
    coarse = replace(canvas, resolution=FIELD_RESOLUTION)
    displacements, lines = _displacements(actor), _wrinkle_lines(actor)
    units = tuple(sorted({unit for unit, *_ in (*displacements, *lines)}))
    shifts = np.zeros((len(units), *coarse.shape, 3), np.float32)
    wrinkles = np.zeros((len(units), *canvas.shape), np.float32)
    for unit, x, y, outwards, down, bulge, wide, high in displacements:
        weight = coarse.blob(x, y, wide, high)
        shifts[units.index(unit)] += np.stack(
            [outwards * weight * np.sign(coarse.x), down * weight, bulge * weight], -1
        )
    for unit, depth, blur, paths in lines:
        wrinkles[units.index(unit)] = depth * canvas.lines([spline(path) for path in paths], 0.02, blur)
    return SkinMotion(actor, coarse, units, shifts, wrinkles)


def weighted_sum(weights: list[float], fields: Array) -> Array:
    """Return sum_n weights[n] * fields[n]; one after the other, so that the result does not depend on threads."""
    total = np.zeros(fields.shape[1:], np.float32)
    for weight, part in zip(weights, fields, strict=True):
        if weight > 0:
            cv2.scaleAdd(part, weight, total, total)
    return total


# fmt: off
def _displacements(actor: Actor) -> list[tuple[int, float, float, float, float, float, float, float]]:
    """Return Gaussian displacements on the right side of the image; the left mirrors them.

    Each is unit, position (x, y), shift (outwards, down, towards the camera), standard deviation (x, y).
    """
    brow, nose, mouth, wide, chin = actor.brow_y, actor.nose_length, actor.mouth_y, actor.mouth_width, actor.chin_y
    return [
        (1, 0.22, brow, -0.015, -0.16, 0, 0.19, 0.24),
        (2, 0.68, brow, 0.01, -0.15, 0, 0.25, 0.25),
        (4, 0.22, brow + 0.02, -0.075, 0.12, 0, 0.2, 0.17), (4, 0.6, brow, -0.03, 0.075, 0, 0.22, 0.15),
        (4, 0.13, brow + 0.05, 0, 0, 0.05, 0.09, 0.09),
        (5, 0.5, -0.14, 0, -0.03, 0, 0.2, 0.06),
        (6, 0.59, 0.36, 0, -0.1, 0.075, 0.26, 0.15), (6, 0.85, brow + 0.05, -0.01, 0.04, 0, 0.15, 0.15),
        (9, 0.17, nose - 0.05, 0.015, -0.085, 0, 0.12, 0.17), (9, 0.14, brow + 0.05, -0.045, 0.085, 0, 0.2, 0.15),
        (9, 0.17, 0.36, 0, 0, 0.05, 0.07, 0.14), (9, 0.12, -0.12, 0, 0, 0.03, 0.1, 0.06),
        (10, 0.22, mouth - 0.26, 0.03, -0.1, 0.05, 0.2, 0.13), (10, 0.19, nose + 0.05, 0.035, -0.03, 0, 0.1, 0.1),
        (12, wide, mouth - 0.02, 0.1, -0.15, 0, 0.22, 0.2), (12, 0.61, 0.62, 0.04, -0.08, 0.095, 0.22, 0.19),
        (15, wide, mouth + 0.08, 0.02, 0.13, 0, 0.18, 0.2), (15, 0.3, mouth + 0.24, 0, 0, 0.035, 0.15, 0.1),
        (17, 0, chin - 0.27, 0, -0.1, 0.07, 0.26, 0.15),
        (20, wide, mouth + 0.06, 0.13, 0.03, 0, 0.26, 0.28),
        (23, wide, mouth, -0.05, 0, 0, 0.2, 0.2), (23, 0.2, mouth - 0.18, 0, 0, 0.03, 0.25, 0.06),
        (26, 0.75, 1.0, 0, 0, -0.06, 0.2, 0.25),
    ]


def _wrinkle_lines(actor: Actor) -> list[tuple[int, float, float, list[list[tuple[float, float]]]]]:
    """Return unit, depth, blur and paths of wrinkles on the right side of the image; the left mirrors them."""
    brow, nose, mouth, wide = actor.brow_y, actor.nose_length, actor.mouth_y, actor.mouth_width
    rows = [brow - 0.24, brow - 0.36, brow - 0.48]
    crows_feet = [[(0.83, y), (0.92, 2 * y), (1.0, 3 * y - 0.02)] for y in (-0.03, 0.02, 0.07)]
    nose_bridge = [[(0.0, -0.02), (0.1, -0.05)], [(0.0, 0.1), (0.11, 0.07)]]
    nose_sides = [[(0.1, 0.02), (0.15, 0.14), (0.22, 0.22)], [(0.09, 0.16), (0.15, 0.26), (0.22, 0.32)]]
    return [
        (1, 0.55, 0.014, [[(0.0, y + 0.012), (0.2, y), (0.42, y + 0.02)] for y in rows]),
        (2, 0.55, 0.014, [[(0.36, y + 0.01), (0.6, y - 0.01), (0.82, y + 0.06)] for y in rows]),
        (4, 0.65, 0.022, [[(0.06, brow - 0.2), (0.085, brow - 0.02), (0.07, brow + 0.2)]]),
        (6, 0.5, 0.014, [*crows_feet, [(0.3, 0.17), (0.5, 0.23), (0.74, 0.15)]]),
        (7, 0.45, 0.014, [[(0.3, 0.13), (0.5, 0.17), (0.7, 0.12)]]),
        (9, 0.7, 0.014, [*nose_bridge, *nose_sides, [(0.24, nose - 0.06), (0.33, nose + 0.04), (0.42, nose + 0.2)]]),
        (10, 0.8, 0.022, [[(0.25, nose - 0.06), (0.37, nose + 0.06), (0.48, mouth - 0.2), (0.54, mouth - 0.02)]]),
        (12, 0.8, 0.022, [[(0.25, nose), (0.42, nose + 0.13), (wide + 0.15, mouth - 0.2), (wide + 0.2, mouth + 0.02)]]),
        (15, 0.5, 0.014, [[(wide + 0.05, mouth + 0.14), (wide + 0.09, mouth + 0.22), (wide + 0.08, mouth + 0.32)]]),
        (17, 0.8, 0.014, [[(0.0, mouth + 0.25), (0.15, mouth + 0.28), (0.27, mouth + 0.38)]]),
        (20, 0.8, 0.014, [[(wide + 0.22, mouth - 0.12), (wide + 0.27, mouth + 0.03), (wide + 0.24, mouth + 0.18)]]),
    ]
