"""What one frame looks like: an actor with given units in a given view."""

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np

from . import wardrobe
from .actors import Actor
from .backdrop import SIDE, backdrop
from .canvas import Array, sample, vector
from .mouth import Lips
from .portrait import Portrait, portrait
from .pose import View, bent, flat, project

FINE = 320  # pictures up to this side are drawn with NORMAL_DETAIL pixels per unit, larger ones with twice as many
NORMAL_DETAIL = 64


def render(actor: Actor, units: Mapping[int, float], view: View, size: int = 256) -> tuple[Array, Array]:
    """Draw one frame.

    `units` maps action units to intensities (0..1, a little more is allowed). Returns the picture, uint8 RGB
    (size, size, 3), and the true landmarks, float32 (5, 2) in pixels: the eye centres (left one in the picture first),
    the tip of the nose, the corners of the mouth (left one first).
    """
    if size < 160:
        image, points = render(actor, units, view, 2 * size)
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), (points - 0.5) / 2
    drawn = portrait(actor, NORMAL_DETAIL if size <= FINE else 2 * NORMAL_DETAIL)
    behind, body, front = drawn.layers(view.light)
    face, lips = drawn.face.at(units, view.blink, view.gaze, view.light - view.yaw)
    picture = _background(view, size)
    _over(picture, cv2.warpAffine(behind, flat(view, drawn.canvas, size, 1.0, -0.1), (size, size)))
    torso = wardrobe.paper(drawn.detail)
    _over(picture, cv2.warpAffine(body, flat(view, torso, size, 0.12, -0.35), (size, size)))
    seen = bent(view, drawn.canvas, drawn.depth, size)
    inner = drawn.face.canvas
    offset = drawn.canvas.pixels((inner.left, inner.top)) - inner.pixels((inner.left, inner.top))
    _over(picture, sample(face, seen - np.round(offset)))
    _over(picture, sample(front, seen))
    return _film(picture, view), landmarks(drawn, lips, view, size)


def landmarks(drawn: Portrait, lips: Lips, view: View, size: int) -> Array:
    """The five landmarks in pixels, float32 (5, 2)."""
    # RetinaFace sets the nose's point a little above the tip and the mouth's just inside the corners.
    wide, corner = 0.95 * lips.wide, lips.corner - 0.035
    flat_points = vector(
        [(-0.5, -0.02), (0.5, -0.02), (0.0, drawn.actor.nose_y - 0.06), (-wide, corner), (wide, corner)]
    )
    places = (flat_points - vector([drawn.canvas.left, drawn.canvas.top])) * (
        drawn.depth.shape[1] / drawn.canvas.width
    ) - 0.5
    heights = sample(drawn.depth, places[None].astype(np.float32))[0]
    return project(np.column_stack([flat_points, heights]), view, size)


def _over(picture: Array, layer: Array) -> None:
    """Lay a premultiplied RGBA layer over an RGB picture in place, both uint8."""
    colour, rest = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), 255 - layer[..., 3]
    cv2.multiply(picture, cv2.merge([rest, rest, rest]), picture, 1 / 255)
    cv2.add(picture, colour, picture)


def _background(view: View, size: int) -> Array:
    scale = size / SIDE * 1.15
    move = 0.3 * vector(view.shift) * size - 0.075 * size
    matrix = vector([[scale, 0, move[0]], [0, scale, move[1]]])
    return cv2.warpAffine(backdrop(view.place), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def _film(picture: Array, view: View) -> Array:
    """Exposure, colour of the light and the camera's noise."""
    gain = view.brightness * view.contrast
    offset = 118 * (1 - view.contrast)
    warm = vector([1 + 0.06 * view.warmth, 1.0, 1 - 0.08 * view.warmth])
    table = np.clip(np.arange(256, dtype=np.float32)[:, None] * gain * warm + offset, 0, 255)
    picture = cv2.LUT(picture, np.ascontiguousarray(table.astype(np.uint8).reshape(256, 1, 3)))
    if view.noise <= 0:
        return picture
    size = picture.shape[0]
    down, right = (view.grain * 37) % 61, (view.grain * 53) % 67
    return cv2.addWeighted(
        picture, 1.0, _noise(size)[down : down + size, right : right + size], view.noise / 16, -8 * view.noise
    )


@lru_cache(maxsize=2)
def _noise(size: int) -> Array:
    """A film of noise around 128 with a deviation of 16, uint8 (size + 80, size + 80, 3)."""
    rng = np.random.default_rng(55)
    fine = rng.normal(0, 13, (size + 80, size + 80, 3)) + rng.normal(0, 13, (size + 80, size + 80, 1))
    return np.clip(fine * 0.87 + 128, 0, 255).astype(np.uint8)
