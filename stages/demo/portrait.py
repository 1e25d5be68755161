"""What of an actor can be drawn once: the face at rest, hair behind and in front, the body, the depth of the head."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from . import accessories
from .actors import Actor
from .canvas import Array, Canvas, ramp, vector
from .face import Face, face
from .hair import style
from .light import direction
from .skull import depth
from .strands import lay
from .wardrobe import body

LIGHT_STEP = 6.0


def paper(detail: int) -> Canvas:
    """The canvas of a head with its hair."""
    return Canvas(-2.25, -2.75, 4.5, 6.0, detail)


@dataclass(frozen=True)
class Layer:
    """A part of the head that no expression moves, float32."""

    colour: Array
    opacity: Array

    def lit(self, canvas: Canvas, angle: float, shine: float) -> Array:
        """The layer in this light: uint8 RGBA (h, w, 4), opacity premultiplied."""
        lamp = direction(angle)
        x, y = canvas.x / 1.75, (canvas.y + 0.1) / 2.3
        z = np.sqrt(np.clip(1 - x * x - y * y, 0.02, 1))
        facing = x * lamp[0] + y * lamp[1] + z * lamp[2]
        tone = 0.62 + 0.58 * np.clip(facing, 0, 1)
        # Smooth hair on a round head gleams in a ring.
        ring = np.exp(-0.5 * (((np.hypot(canvas.x - 0.5 * lamp[0], canvas.y + 0.25) - 1.1) / 0.14) ** 2)) * ramp(
            -canvas.y, 0.3, 1.0
        )
        light = tone + shine * ring * np.clip(facing, 0, 1)
        picture = (self.colour * light[..., None] + (shine * 26 * ring)[..., None]) * self.opacity[..., None]
        return cv2.merge([cv2.convertScaleAbs(picture), cv2.convertScaleAbs(self.opacity, alpha=255)])


@dataclass(frozen=True)
class Portrait:
    """An actor ready to be filmed."""

    actor: Actor
    detail: int
    canvas: Canvas
    face: Face
    behind: Layer
    front: Layer
    depth: Array

    def layers(self, angle: float) -> tuple[Array, Array, Array]:
        """Hair behind, body, and hair in front, lit from about `angle`: uint8 RGBA, opacity premultiplied."""
        return _layers(self.actor, self.detail, round(angle / LIGHT_STEP))


@lru_cache(maxsize=4)
def portrait(actor: Actor, detail: int) -> Portrait:
    """Draw everything that can be drawn once."""
    canvas = paper(detail)
    rng = np.random.default_rng([54, actor.number])
    hair = vector(actor.hair_colour)
    behind, front = style(actor, rng)
    back_colour, back_opacity = lay(canvas, behind, hair, rng)
    accessories.ears(actor, canvas, back_colour, back_opacity)
    colour, opacity = lay(canvas, front, hair, rng)
    if actor.hair_style == "scarf":
        colour, opacity = accessories.scarf(actor, canvas, rng)
        np.maximum(back_opacity, accessories.lining(actor, canvas, back_colour), out=back_opacity)
    drawn = face(actor, detail)
    _shadow(drawn, canvas, opacity)
    if actor.glasses != "none":
        colour, opacity = accessories.glasses(actor, canvas, colour, opacity)
    coarse = Canvas(canvas.left, canvas.top, canvas.width, canvas.height, 16)
    return Portrait(
        actor, detail, canvas, drawn, Layer(back_colour, back_opacity), Layer(colour, opacity), depth(coarse, actor)
    )


def _shadow(drawn: Face, canvas: Canvas, opacity: Array) -> None:
    """Hair throws a soft shadow on the skin below it."""
    down = vector([[1, 0, 0], [0, 1, 0.07 * canvas.detail]])
    thrown = cv2.warpAffine(opacity, down, opacity.shape[::-1])
    thrown = cv2.GaussianBlur(thrown, (0, 0), 0.06 * canvas.detail)
    rows, columns = drawn.canvas.shape
    top, left = canvas.pixels((drawn.canvas.left, drawn.canvas.top))[::-1]
    patch = thrown[round(float(top) + 0.5) :, round(float(left) + 0.5) :][:rows, :columns]
    drawn.rest[..., :3] *= 1 - 0.5 * patch[..., None] * vector([0.8, 1.0, 1.0])


@lru_cache(maxsize=6)
def _layers(actor: Actor, detail: int, step: int) -> tuple[Array, Array, Array]:
    drawn = portrait(actor, detail)
    angle = step * LIGHT_STEP
    shine = 0.12 if actor.hair_style in ("afro", "curls", "crop", "scarf", "bald") else 0.75
    return (
        drawn.behind.lit(drawn.canvas, angle, 0.1),
        body(actor, detail, angle),
        drawn.front.lit(drawn.canvas, angle, shine),
    )
