"""How hair is drawn: sheets of strands between guide curves, and heaps of curls."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from .canvas import Array, Canvas, through, vector

POINTS = 24  # along a strand


@dataclass(frozen=True)
class Sheet:
    """Hair that fills the space between neighbouring guide curves; each guide runs from root to tip, in units."""

    guides: Sequence[Sequence[tuple[float, float]]]
    strands: int = 260
    wave: float = 0.0  # sideways swing, units
    waves: float = 2.5  # swings along a strand
    frizz: float = 0.012  # how far strands stray, units
    ragged: float = 0.06  # how unevenly long the strands are, as a share of their length
    dark: float = 1.0  # brightness
    mirror: bool = False


@dataclass(frozen=True)
class Curls:
    """Curls in random places: where there is hair (x, y, radius of each), drawn from the first to the last."""

    places: Array = field(repr=False)
    ground: Array | None = field(default=None, repr=False)  # an outline to fill first
    size: float = 0.11
    dark: float = 1.0


def lay(canvas: Canvas, parts: Sequence[Sheet | Curls], colour: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw parts one over the other: the colour, float32 RGB (h, w, 3), and the opacity, float32 (h, w) 0..1."""
    picture = np.empty((*canvas.shape, 3), np.float32)
    picture[:] = colour * 0.5
    opacity = np.zeros(canvas.shape, np.uint8)
    for part in parts:
        if isinstance(part, Curls):
            _curls(canvas, part, colour, picture, opacity, rng)
            continue
        guides = [through(guide, POINTS) for guide in part.guides]
        _sheet(canvas, part, guides, colour, picture, opacity, rng)
        if part.mirror:
            other = [guide * vector([-1, 1]) for guide in guides]
            _sheet(canvas, part, other, colour, picture, opacity, rng)
    return picture, opacity.astype(np.float32) / 255


def _between(guides: list[Array], place: Array) -> Array:
    """Strands (n, points, 2) at places 0..1 across the sheet."""
    stack = np.stack(guides)
    at = place * (len(guides) - 1)
    low = np.minimum(at.astype(int), len(guides) - 2)
    part = (at - low)[:, None, None]
    return stack[low] * (1 - part) + stack[low + 1] * part


def _sheet(
    canvas: Canvas,
    sheet: Sheet,
    guides: list[Array],
    colour: Array,
    picture: Array,
    opacity: Array,
    rng: np.random.Generator,
) -> None:
    along = np.linspace(0, 1, POINTS, dtype=np.float32)
    count = sheet.strands

    def waved(strands: Array, place: Array) -> Array:
        if not sheet.wave:
            return strands
        # Neighbours swing together, in locks.
        phase = 2 * np.pi * (along[None] * sheet.waves + 0.9 * np.sin(place[:, None] * 9))
        swing = sheet.wave * np.sin(phase) * np.minimum(1, along * 2.5)
        way = np.gradient(strands, axis=1)
        way /= np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-6)
        return strands + swing[..., None] * np.stack([-way[..., 1], way[..., 0]], -1)

    base_place = np.linspace(0, 1, 110)
    base = canvas.fixed(
        waved(_between(guides, base_place), base_place)[:, : max(6, round(POINTS * (0.97 - sheet.ragged)))]
    )
    lines = [line.reshape(-1, 1, 2) for line in base]
    thick = max(2, round(0.085 * canvas.detail))
    tone = colour * 0.62 * sheet.dark
    cv2.polylines(picture, lines, False, tuple(float(v) for v in tone), thick, cv2.LINE_AA, 4)
    cv2.polylines(opacity, lines, False, 255, thick, cv2.LINE_AA, 4)

    place = rng.permutation(np.linspace(0, 1, count))
    strands = waved(_between(guides, place), place)
    strands = strands + rng.normal(0, sheet.frizz, (count, 1, 2)) + rng.normal(0, sheet.frizz * 0.3, strands.shape)
    lock = 0.5 + 0.5 * np.sin(place * 41 + 2 * np.sin(place * 17))
    bright = sheet.dark * (0.66 + 0.42 * lock + rng.normal(0, 0.13, count))
    short = sheet.ragged * POINTS * (np.abs(rng.normal(0, 0.8, count)) + 0.8 * (1 - lock))
    cut = np.clip(POINTS - short, 8, POINTS).astype(int)
    fixed = canvas.fixed(strands)
    width = max(1, round(canvas.detail / 64))
    for line, shine, end in zip(fixed, bright, cut, strict=True):
        path = [line[:end].reshape(-1, 1, 2)]
        cv2.polylines(picture, path, False, tuple(float(v) for v in colour * shine), width, cv2.LINE_AA, 4)
    cv2.polylines(
        opacity,
        [line[:end].reshape(-1, 1, 2) for line, end in zip(fixed, cut, strict=True)],
        False,
        255,
        width,
        cv2.LINE_AA,
        4,
    )


def _curls(
    canvas: Canvas, curls: Curls, colour: Array, picture: Array, opacity: Array, rng: np.random.Generator
) -> None:
    turn = np.linspace(0, 1, 12)
    thick = max(1, round(canvas.detail / 45))
    if curls.ground is not None:
        outline = [canvas.fixed(curls.ground).reshape(-1, 1, 2)]
        cv2.fillPoly(picture, outline, tuple(float(v) for v in colour * 0.55 * curls.dark), cv2.LINE_AA, 4)
        cv2.fillPoly(opacity, outline, 255, cv2.LINE_AA, 4)
    for x, y, size in curls.places:
        centre = tuple(canvas.fixed((x, y)).tolist())
        disc = int(size * 1.05 * canvas.detail * 16)
        cv2.circle(picture, centre, disc, tuple(float(v) for v in colour * 0.62 * curls.dark), -1, cv2.LINE_AA, 4)
        cv2.circle(opacity, centre, disc, 255, -1, cv2.LINE_AA, 4)
        for _ in range(5):
            start, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(2.5, 5.0)
            angle = start + sweep * turn
            reach = size * rng.uniform(0.45, 1.1) * (0.6 + 0.4 * turn)
            path = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], -1)
            tone = colour * curls.dark * rng.uniform(0.68, 1.12)
            line = [canvas.fixed(path).reshape(-1, 1, 2)]
            cv2.polylines(picture, line, False, tuple(float(v) for v in tone), thick, cv2.LINE_AA, 4)
            cv2.polylines(opacity, line, False, 255, thick, cv2.LINE_AA, 4)


def scatter(rng: np.random.Generator, inner: Array, outer: Array, count: int, size: float) -> Array:
    """Places for curls between two outlines (n, 2 each, the same n), from the outer to the inner: (count, 3)."""
    depth = np.sort(rng.uniform(0, 1, count) ** 0.8)[::-1]
    at = rng.uniform(0, len(inner) - 1.001, count)
    low, part = at.astype(int), (at % 1)[:, None]
    near = inner[low] * (1 - part) + inner[low + 1] * part
    far = outer[low] * (1 - part) + outer[low + 1] * part
    spot = near + (far - near) * depth[:, None]
    sizes = size * rng.uniform(0.65, 1.2, count)
    return np.column_stack([spot, sizes])
