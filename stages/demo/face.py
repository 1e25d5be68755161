"""What a face looks like at given units: moved, folded, lit skin with mouth and eyes drawn in."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from . import eyes, mouth
from .actors import Actor
from .canvas import Array, Canvas, blend, ramp, sample, vector
from .light import lit
from .muscles import Muscles, muscles
from .skin import paint
from .skull import radius, relief

# Cheek, chin and forehead folds darken the skin as well as bend it, because the camera's light is never quite sideways.
CREASE = (0.34, 0.46, 0.5)


def paper(detail: int) -> Canvas:
    """The canvas of a face."""
    return Canvas(-1.5, -1.8, 3.0, 4.25, detail)


@dataclass(frozen=True)
class Face:
    """An actor's face at rest and all that is needed to move it."""

    actor: Actor
    canvas: Canvas
    rest: Array  # (h, w, 4) float32: red, green, blue, opacity
    relief: Array  # (h, w) float32
    muscles: Muscles

    def at(
        self, units: Mapping[int, float], blink: float, gaze: tuple[float, float], angle: float
    ) -> tuple[Array, mouth.Lips]:
        """The face with these units: uint8 (h, w, 4) with premultiplied opacity, and where its lips are."""
        lips = mouth.lips(self.actor, units)
        strengths = self.muscles.strengths(units)
        origin = self.muscles.source(strengths, lips.jaw)
        moved = sample(self.rest, origin)
        height = sample(self.relief, origin)
        colour, opacity = np.ascontiguousarray(moved[..., :3]), moved[..., 3]
        if strengths.any():
            folds = self.muscles.folded(strengths)
            height += self.muscles.bulging(strengths) - 0.022 * folds
            folds = np.minimum(folds, 1.3)
            colour = cv2.multiply(colour, cv2.merge([1 - folds * share for share in CREASE]))
        drawn = mouth.draw(self.actor, self.canvas, lips)
        here = drawn.where
        patch = np.ascontiguousarray(colour[here])
        blend(patch, self.actor.lip_colour, drawn.lip * 0.88)
        patch *= 1 - drawn.shade[..., None] * vector([0.62, 0.8, 0.78])
        colour[here] = patch
        height[here] += drawn.height
        gloss = 34 + 10 * (1 - self.actor.age)
        picture = lit(colour, height, self.canvas.detail, angle, gloss)
        inside = drawn.inside[..., None]
        picture[here] += (drawn.colour * 0.92 - picture[here]) * inside
        eyes.draw(self.actor, self.canvas, picture, units, blink, gaze, np.sin(np.deg2rad(angle)))
        picture = cv2.multiply(picture, cv2.merge([opacity, opacity, opacity]))
        return cv2.merge([cv2.convertScaleAbs(picture), cv2.convertScaleAbs(opacity, alpha=255)]), lips


def face(actor: Actor, detail: int) -> Face:
    """Draw an actor's face at rest."""
    canvas = paper(detail)
    rng = np.random.default_rng([51, actor.number])
    r = radius(actor, canvas)
    opacity = 1 - ramp(r, 1 - 1.6 / detail, 1 + 0.4 / detail)
    colour = paint(actor, canvas, rng)
    rest = np.dstack([colour, opacity]).astype(np.float32)
    return Face(actor, canvas, rest, relief(actor, canvas), muscles(actor, canvas))
