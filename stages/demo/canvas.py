"""Head coordinates, and soft shapes on grids of them.

One unit is the mean distance between the two eye centers. The origin lies midway between the eyes; x points to the right
of the image, y down, z towards the camera.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

Array = np.ndarray


def vector(values: object) -> Array:
    """Return numbers as a float32 array."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Canvas:
    """A pixel grid over a rectangle of the head's plane: left, top, width and height in units, pixels per unit."""

    left: float
    top: float
    width: float
    height: float
    resolution: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return round(self.height * self.resolution), round(self.width * self.resolution)

    @cached_property
    def x(self) -> Array:
        """The x of every pixel center in units, float32 (1, columns)."""
        return ((np.arange(self.shape[1], dtype=np.float32) + 0.5) / self.resolution + self.left)[None]

    @cached_property
    def y(self) -> Array:
        """The y of every pixel center in units, float32 (rows, 1)."""
        return ((np.arange(self.shape[0], dtype=np.float32) + 0.5) / self.resolution + self.top)[:, None]

    def to_pixels(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert units to pixel positions (columns, rows); the center of a pixel is a whole number."""
        return (x - self.left) * self.resolution - 0.5, (y - self.top) * self.resolution - 0.5

    def fixed(self, points: Array) -> Array:
        """Return points (n, 2) as pixels in int32 with four fractional bits, as OpenCV draws them with shift=4."""
        return np.round(np.stack(self.to_pixels(points[:, 0], points[:, 1]), -1) * 16).astype(np.int32)

    def blob(self, x: float, y: float, wide: float, high: float) -> Array:
        """Return two Gaussians of height 1 at (x, y) and its mirror image, one where x is 0; (rows, columns)."""
        return np.exp(-0.5 * ((self.y - y) / high) ** 2) * np.exp(-0.5 * ((np.abs(self.x) - x) / wide) ** 2)

    def fill(self, outline: Array) -> Array:
        """Return the inside of a closed outline (n, 2), float32 0..1 (rows, columns) with a smooth edge."""
        mask = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(mask, [self.fixed(outline).reshape(-1, 1, 2)], 255, cv2.LINE_AA, 4)
        return mask.astype(np.float32) / 255

    def lines(self, paths: list[Array], thick: float, blur: float) -> Array:
        """Return soft lines along paths (each (n, 2)) and their mirror images, float32 0..1 (rows, columns).

        ``thick`` and ``blur`` are units. Lines fade in and out, as wrinkles of the skin do.
        """
        mask, pixels = np.zeros(self.shape, np.uint8), max(1, round(thick * self.resolution))
        sides = [self.fixed(path * vector([side, 1])) for path in paths for side in (-1, 1)]
        for cut, value in ((0, 90), (1, 170), (2, 255)):
            cv2.polylines(mask, [path[cut : len(path) - cut] for path in sides], False, value, pixels, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.5, blur * self.resolution))
        return np.minimum(soft * (1 + blur / max(thick, 1 / self.resolution)), 1)


def smoothstep(value: Array, low: float, high: float) -> Array:
    """Return 0 below ``low``, 1 above ``high``, and 3 t^2 - 2 t^3 between."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)


def spline(points: object, count: int = 12) -> Array:
    """Return ``count`` points of a smooth path through the given ones (Catmull-Rom), float32 (count, 2)."""
    knots = np.asarray(points, np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    position = np.linspace(0, len(knots) - 1, count)
    start = np.minimum(position.astype(int), len(knots) - 2)
    part = (position - start)[:, None]
    p0, p1, p2, p3 = (padded[start + step] for step in range(4))
    bend, turn = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
    cubic = 2 * p1 + (p2 - p0) * part + bend * part**2 + turn * part**3
    return (0.5 * cubic).astype(np.float32)


def sample(image: Array, pixels: tuple[Array, Array], border: int = cv2.BORDER_CONSTANT) -> Array:
    """Return the image at pixel columns and rows (h, w), linearly interpolated; outside it is 0 or as ``border`` says."""
    return cv2.remap(image, *pixels, cv2.INTER_LINEAR, borderMode=border)


def blend(image: Array, color: object, weight: Array) -> None:
    """Mix a color into an image (h, w, 3) in place, ``weight`` (h, w) of it."""
    image += (vector(color) - image) * weight[..., None]


def noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Array:
    """Return smooth noise of standard deviation 1 with spots about ``grain`` pixels wide, float32."""
    step = max(1.0, grain / 1.5)
    small = rng.standard_normal((max(4, round(shape[0] / step)), max(4, round(shape[1] / step)))).astype(np.float32)
    field = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field / max(float(field.std()), 1e-6)
