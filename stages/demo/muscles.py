"""How action units move the skin: the displacement, the folds and the bulges of every unit, for one actor."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, mirrored, ramp, sample, through

JAW_DROP = 0.37
COARSE = 4


def _pulls(actor: Actor) -> dict[int, list[tuple[float, float, float, float, float, float]]]:
    """Per unit: where it pulls (x, y), how far (outwards, down) and how widely (x, y); both sides alike."""
    brow, nose, mouth, wide = actor.brow_y, actor.nose_y, actor.mouth_y, actor.mouth_wide
    return {
        1: [(0.22, brow, -0.015, -0.16, 0.19, 0.24)],
        2: [(0.68, brow, 0.01, -0.15, 0.25, 0.25)],
        4: [(0.22, brow + 0.02, -0.075, 0.12, 0.2, 0.17), (0.6, brow, -0.03, 0.075, 0.22, 0.15)],
        5: [(0.5, -0.14, 0.0, -0.03, 0.2, 0.06)],
        6: [(0.6, 0.36, 0.0, -0.1, 0.28, 0.16), (0.85, brow + 0.05, -0.01, 0.04, 0.15, 0.15)],
        9: [(0.17, nose - 0.05, 0.015, -0.085, 0.12, 0.17), (0.14, brow + 0.05, -0.045, 0.085, 0.2, 0.15)],
        10: [(0.2, mouth - 0.24, 0.03, -0.1, 0.2, 0.13), (0.19, nose + 0.05, 0.035, -0.03, 0.1, 0.1)],
        12: [(wide, mouth - 0.02, 0.1, -0.15, 0.22, 0.2), (0.62, 0.68, 0.04, -0.08, 0.24, 0.2)],
        15: [(wide, mouth + 0.08, 0.02, 0.13, 0.18, 0.2)],
        17: [(0.0, actor.chin_y - 0.26, 0.0, -0.1, 0.28, 0.17)],
        20: [(wide, mouth + 0.06, 0.13, 0.03, 0.26, 0.28)],
        23: [(wide, mouth, -0.05, 0.0, 0.2, 0.2)],
    }


def _folds(actor: Actor) -> dict[int, list[list[tuple[float, float]]]]:
    """Per unit: the lines that appear in the skin, on the right side of the picture."""
    brow, nose, mouth, wide = actor.brow_y, actor.nose_y, actor.mouth_y, actor.mouth_wide
    rows = [brow - 0.24, brow - 0.36, brow - 0.48]
    return {
        1: [[(-0.42, y + 0.02), (-0.2, y), (0.0, y + 0.012), (0.2, y), (0.42, y + 0.02)] for y in rows],
        2: [[(0.36, y + 0.01), (0.6, y - 0.01), (0.82, y + 0.06)] for y in rows],
        4: [[(0.06, brow - 0.2), (0.085, brow - 0.02), (0.07, brow + 0.2)]],
        6: [
            [(0.83, -0.03), (0.92, -0.1), (1.0, -0.15)],
            [(0.84, 0.02), (0.94, 0.02), (1.02, 0.01)],
            [(0.82, 0.07), (0.91, 0.12), (0.98, 0.18)],
            [(0.3, 0.17), (0.5, 0.23), (0.74, 0.15)],
        ],
        7: [[(0.3, 0.13), (0.5, 0.17), (0.7, 0.12)]],
        9: [
            [(0.0, -0.02), (0.1, -0.05)],
            [(0.0, 0.1), (0.11, 0.07)],
            [(0.1, 0.02), (0.15, 0.14), (0.22, 0.22)],
            [(0.09, 0.16), (0.15, 0.26), (0.22, 0.32)],
            [(0.24, nose - 0.06), (0.33, nose + 0.04), (0.42, nose + 0.2)],
        ],
        10: [[(0.25, nose - 0.06), (0.37, nose + 0.06), (0.48, mouth - 0.2), (0.54, mouth - 0.02)]],
        12: [[(0.25, nose), (0.42, nose + 0.13), (wide + 0.15, mouth - 0.2), (wide + 0.2, mouth + 0.02)]],
        15: [[(wide + 0.05, mouth + 0.14), (wide + 0.09, mouth + 0.22), (wide + 0.08, mouth + 0.32)]],
        17: [[(0.0, mouth + 0.25), (0.15, mouth + 0.28), (0.27, mouth + 0.38)]],
        20: [[(wide + 0.22, mouth - 0.12), (wide + 0.27, mouth + 0.03), (wide + 0.24, mouth + 0.18)]],
    }


def _bulges(actor: Actor) -> dict[int, list[tuple[float, float, float, float, float]]]:
    """Per unit: where the skin bulges (x, y), how much, and how widely (x, y)."""
    mouth = actor.mouth_y
    return {
        4: [(0.13, actor.brow_y + 0.05, 0.05, 0.09, 0.09)],
        6: [(0.58, 0.36, 0.075, 0.24, 0.13)],
        9: [(0.17, 0.36, 0.05, 0.07, 0.14), (0.12, -0.12, 0.03, 0.1, 0.06)],
        10: [(0.3, mouth - 0.3, 0.05, 0.15, 0.1)],
        12: [(0.6, 0.56, 0.095, 0.2, 0.17)],
        15: [(0.3, mouth + 0.24, 0.035, 0.15, 0.1)],
        17: [(0.0, actor.chin_y - 0.3, 0.07, 0.2, 0.12)],
        23: [(0.2, mouth - 0.18, 0.03, 0.25, 0.06), (0.15, mouth + 0.22, 0.03, 0.22, 0.06)],
        26: [(0.75, 1.0, -0.06, 0.2, 0.25)],
    }


def jaw_share(actor: Actor, x: Array, y: Array) -> Array:
    """How much of the jaw's drop a point at rest takes part in, 0..1."""
    return (1 - ramp(np.abs(x), 0.55, 1.2)) * ramp(y, actor.mouth_y - 0.08, actor.mouth_y + 0.3)


@dataclass(frozen=True)
class Muscles:
    """The fields of one actor; the first axis runs over `units`. Folds are drawn finely, what is smooth coarsely."""

    actor: Actor
    canvas: Canvas
    coarse: Canvas
    units: tuple[int, ...]
    shifts: Array
    folds: Array
    bulges: Array

    def source(self, strengths: Array, jaw: float) -> Array:
        """Where at rest every pixel of the moved skin comes from: a float32 map (h, w, 2) for cv2.remap."""
        x = np.broadcast_to(self.coarse.x, self.coarse.shape)
        y = at = np.broadcast_to(self.coarse.y, self.coarse.shape)
        if jaw > 0.003:
            # The drop grows downwards, so the way back is found by halving the interval it must lie in.
            step = jaw / 2
            at = y - step
            for _ in range(7):
                step /= 2
                at = at + np.where(at + jaw * jaw_share(self.actor, x, at) > y, -step, step)
        shift = _weighted(strengths, self.shifts)
        # The pull is known where the skin was, not where it went: two steps of the fixed point find the way back.
        first_x, first_y = x - shift[..., 0], at - shift[..., 1]
        pixels = self.coarse.pixels(np.stack([first_x, first_y], -1))
        moved = sample(shift, pixels, cv2.BORDER_REPLICATE)
        origin = self.canvas.pixels(np.stack([x - moved[..., 0], at - moved[..., 1]], -1))
        height, width = self.canvas.shape
        return cv2.resize(origin, (width, height), interpolation=cv2.INTER_LINEAR)

    def folded(self, strengths: Array) -> Array:
        """How deep the folds are, float32 (h, w)."""
        return _weighted(strengths, self.folds)

    def bulging(self, strengths: Array) -> Array:
        """How far the skin bulges, float32 (h, w) in units."""
        height, width = self.canvas.shape
        return cv2.resize(_weighted(strengths, self.bulges), (width, height), interpolation=cv2.INTER_LINEAR)

    def strengths(self, units: Mapping[int, float]) -> Array:
        """The strengths of `self.units`, float32; a raised inner brow takes the downward pull out of unit 4."""
        given = {unit: max(0.0, float(units.get(unit, 0.0))) for unit in self.units}
        given[4] *= 1 - 0.55 * min(1.0, given[1])
        return np.array([given[unit] for unit in self.units], np.float32)


def _weighted(strengths: Array, fields: Array) -> Array:
    """The sum of strengths (n,) times fields (n, h, w, ...); spread over cores, so small a product would be slower."""
    total = np.zeros(fields.shape[1:], np.float32)
    for strength, field in zip(strengths.tolist(), fields, strict=True):
        if strength > 0:
            cv2.scaleAdd(field, strength, total, total)
    return total


def muscles(actor: Actor, canvas: Canvas) -> Muscles:
    """Draw the fields of an actor on the canvas of the face."""
    coarse = Canvas(canvas.left, canvas.top, canvas.width, canvas.height, canvas.detail // COARSE)
    pulls, folds, bulges = _pulls(actor), _folds(actor), _bulges(actor)
    units = tuple(sorted(set(pulls) | set(folds) | set(bulges) | {5, 7}))
    side = np.sign(coarse.x)
    shifts = np.zeros((len(units), *coarse.shape, 2), np.float32)
    grooves = np.zeros((len(units), *canvas.shape), np.float32)
    raised = np.zeros((len(units), *coarse.shape), np.float32)
    depths = {1: 0.55, 2: 0.55, 4: 0.65, 6: 0.5, 7: 0.45, 9: 0.7, 10: 0.8, 12: 0.8, 15: 0.5}
    for row, unit in enumerate(units):
        for x, y, out, down, wide, high in pulls.get(unit, ()):
            hill = coarse.pair(x, y, wide, high) if x else coarse.bump(x, y, wide, high)
            shifts[row, ..., 0] += out * hill * side
            shifts[row, ..., 1] += down * hill
        paths = [through(path) for path in folds.get(unit, ())]
        if paths:
            wide = 0.022 if unit in (4, 10, 12) else 0.014
            lines = canvas.lines(paths + [mirrored(path) for path in paths], 0.02, wide)
            grooves[row] = lines * depths.get(unit, 0.8)
        for x, y, amount, wide, high in bulges.get(unit, ()):
            raised[row] += amount * (coarse.pair(x, y, wide, high) if x else coarse.bump(x, y, wide, high))
    return Muscles(actor, canvas, coarse, units, shifts, grooves, raised)
