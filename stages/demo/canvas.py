"""Where things are: the coordinates of a face and the soft shapes drawn in them.

One unit is the distance between the two eye centres; the origin lies midway between them, x points to the right of the
picture, y down. `detail` is pixels per unit.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

Array = np.ndarray


def vector(values: object) -> Array:
    """Numbers as a float32 array."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Canvas:
    """A rectangle of paper: its upper left corner and its extent in units, drawn with `detail` pixels per unit."""

    left: float
    top: float
    width: float
    height: float
    detail: int

    @property
    def shape(self) -> tuple[int, int]:
        return round(self.height * self.detail), round(self.width * self.detail)

    @cached_property
    def x(self) -> Array:
        """The x of every pixel's centre, float32 (1, width)."""
        return ((np.arange(self.shape[1], dtype=np.float32) + 0.5) / self.detail + self.left)[None]

    @cached_property
    def y(self) -> Array:
        """The y of every pixel's centre, float32 (height, 1)."""
        return ((np.arange(self.shape[0], dtype=np.float32) + 0.5) / self.detail + self.top)[:, None]

    def pixels(self, points: object) -> Array:
        """Points (..., 2) in units as pixel positions (..., 2), where a pixel's centre is a whole number."""
        return (np.asarray(points, np.float32) - vector([self.left, self.top])) * self.detail - vector(0.5)

    def fixed(self, points: object) -> Array:
        """The same as int32 with four fractional bits, as OpenCV's drawing functions take them (`shift=4`)."""
        return np.round(self.pixels(points) * 16).astype(np.int32)

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """The rows and columns of a rectangle, cut to the paper."""
        height, width = self.shape
        rows = slice(max(0, int((top - self.top) * self.detail)), min(height, int((bottom - self.top) * self.detail)))
        columns = slice(
            max(0, int((left - self.left) * self.detail)), min(width, int((right - self.left) * self.detail))
        )
        return rows, columns

    def bump(self, x: float, y: float, wide: float, high: float) -> Array:
        """A Gaussian hill of height 1, float32 (height, width)."""
        return np.exp(-0.5 * ((self.y - y) / high) ** 2) * np.exp(-0.5 * ((self.x - x) / wide) ** 2)

    def pair(self, x: float, y: float, wide: float, high: float) -> Array:
        """Two such hills, at x and at its mirror image."""
        return np.exp(-0.5 * ((self.y - y) / high) ** 2) * np.exp(-0.5 * ((np.abs(self.x) - x) / wide) ** 2)

    def lines(self, paths: list[Array], thick: float, blur: float, fade: bool = True) -> Array:
        """Soft lines along paths (each (n, 2) in units), float32 0..1: `thick` and `blur` in units."""
        image = np.zeros(self.shape, np.uint8)
        wide = max(1, round(thick * self.detail))
        for path in paths:
            fixed = self.fixed(path)
            # Lines fade in and out, as folds in the skin do.
            along = (np.arange(len(fixed) - 1) + 0.5) / (len(fixed) - 1)
            value = 255 * np.minimum(1, 1.6 * np.sin(np.pi * along)) if fade else np.full(len(along), 255)
            for start, end, grey in zip(fixed[:-1].tolist(), fixed[1:].tolist(), value.tolist(), strict=True):
                cv2.line(image, start, end, grey, wide, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), max(0.5, blur * self.detail))
        return np.minimum(soft * (1 + blur / max(thick, 1 / self.detail)), 1)

    def filled(self, outline: Array) -> Array:
        """The inside of a closed outline (n, 2), float32 0..1 with a smooth edge."""
        image = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(image, [self.fixed(outline).reshape(-1, 1, 2)], 255, cv2.LINE_AA, 4)
        return image.astype(np.float32) / 255


def ramp(value: Array, low: float, high: float) -> Array:
    """0 below low, 1 above high, smooth between."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)


def through(points: object, count: int = 24) -> Array:
    """A smooth path of `count` points through the given ones (Catmull-Rom), float32 (count, 2)."""
    given = np.asarray(points, np.float64)
    if len(given) == 2:
        return np.linspace(given[0], given[1], count).astype(np.float32)
    padded = np.vstack([2 * given[0] - given[1], given, 2 * given[-1] - given[-2]])
    place = np.linspace(0, len(given) - 1, count)
    start = np.minimum(place.astype(int), len(given) - 2)
    part = (place - start)[:, None]
    before, here, there, after = (padded[start + step] for step in range(4))
    path = 0.5 * (
        2 * here
        + (there - before) * part
        + (2 * before - 5 * here + 4 * there - after) * part**2
        + (3 * here - before - 3 * there + after) * part**3
    )
    return path.astype(np.float32)


def mirrored(path: Array) -> Array:
    """The path's mirror image about x = 0."""
    return np.asarray(path, np.float32) * vector([-1, 1])


def sample(image: Array, where: Array, border: int = cv2.BORDER_CONSTANT) -> Array:
    """The image at places `where` (h, w, 2; pixels x, y), between pixels by linear interpolation; outside it 0."""
    x, y = cv2.split(where)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border)


def blend(image: Array, colour: object, share: Array) -> None:
    """Lay a colour over an image (h, w, 3) in place, `share` (h, w) of it."""
    image += (np.asarray(colour, np.float32) - image) * share[..., None]


def noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Array:
    """Smooth noise with standard deviation 1 and spots about `grain` pixels wide, float32."""
    height, width = shape
    step = max(1.0, grain / 1.5)
    small = rng.standard_normal((max(4, round(height / step)), max(4, round(width / step)))).astype(np.float32)
    field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return field / max(float(field.std()), 1e-6)
