"""What an actor's neck, shoulders and clothes look like."""

import cv2
import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, blend, mirrored, noise, ramp, through, vector
from .light import lit


def paper(detail: int) -> Canvas:
    """The canvas of a body; its shapes are soft, so that it needs less detail than a face."""
    return Canvas(-3.6, 0.7, 7.2, 4.2, detail * 3 // 4)


def _torso(actor: Actor) -> Array:
    """The outline of neck and shoulders, closed (n, 2)."""
    neck = actor.neck
    broad = 1.0 + 0.14 * (1 - actor.feminine) + 0.25 * (neck - 0.7)
    right = through(
        [
            (neck * 0.98, 0.7),
            (neck * 0.95, 1.5),
            (neck * 0.98, 1.95),
            (neck * 1.12, 2.2),
            (1.3 * broad, 2.46),
            (1.95 * broad, 2.68),
            (2.35 * broad, 3.0),
            (2.55 * broad, 3.6),
            (2.62 * broad, 5.0),
        ],
        60,
    )
    return np.concatenate([right, mirrored(right)[::-1]])


def body(actor: Actor, detail: int, angle: float) -> Array:
    """Neck, shoulders and clothes lit from `angle`: uint8 RGBA (h, w, 4), opacity premultiplied."""
    canvas = paper(detail)
    rng = np.random.default_rng([52, actor.number])
    opacity = canvas.filled(_torso(actor))
    relief = _relief(actor, canvas, opacity)
    colour = np.empty((*canvas.shape, 3), np.float32)
    colour[:] = actor.skin
    skin = vector(actor.skin)
    # The head's shadow on the neck.
    blend(colour, skin * vector([0.5, 0.4, 0.38]), 0.85 * canvas.bump(0, actor.chin_y - 0.25, 0.75, 0.36))
    cords = canvas.lines([through([(s * 0.55 * actor.neck, 1.9), (s * 0.24, 2.5)]) for s in (-1, 1)], 0.03, 0.05)
    blend(colour, skin * 0.72, 0.35 * cords)
    dress(actor, canvas, colour, relief, rng)
    picture = lit(colour, relief.astype(np.float32), canvas.detail, angle, 8.0) * opacity[..., None]
    return cv2.merge([cv2.convertScaleAbs(picture), cv2.convertScaleAbs(opacity, alpha=255)])


def _relief(actor: Actor, canvas: Canvas, opacity: Array) -> Array:
    inside = cv2.distanceTransform((opacity > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / canvas.detail
    round_ = np.sqrt(np.clip(1 - np.clip(1 - inside / 0.6, 0, 1) ** 2, 0, 1)) * 0.62
    relief = round_ + 0.12 * canvas.bump(0, 3.2, 1.4, 0.6)
    return cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 0.05 * canvas.detail)


def dress(actor: Actor, canvas: Canvas, colour: Array, relief: Array, rng: np.random.Generator) -> None:
    """Put the clothes on: colour and relief are changed in place."""
    x, y = np.abs(canvas.x), canvas.y
    neck = actor.neck
    fabric, second = vector(actor.fabric), vector(actor.fabric_second)
    if actor.clothes == "turtleneck":
        line = 1.92 + 0.02 * x
    elif actor.clothes == "vneck":
        line = 2.12 + 0.75 * np.clip(1 - x / (neck * 1.25), 0, 1)
    elif actor.clothes in ("shirt", "blazer"):
        line = 2.02 + 0.62 * np.clip(1 - x / (neck * 1.05), 0, 1)
    else:
        line = 2.1 + 0.32 * np.sqrt(np.clip(1 - (x / (neck * 1.3)) ** 2, 0, 1))
    cloth = ramp(y - line, 0.0, 0.03)
    cloth_colour = np.broadcast_to(fabric, colour.shape).copy()
    weave = (
        noise(rng, canvas.shape, 0.025 * canvas.detail) * 0.018 + noise(rng, canvas.shape, 0.3 * canvas.detail) * 0.03
    )
    if actor.clothes == "crew" and rng.random() < 0.5:
        stripes = ramp(np.sin(2 * np.pi * (y - 0.12 * x * x) / 0.32), 0.0, 0.3)
        blend(cloth_colour, second, np.broadcast_to(stripes, canvas.shape))
    if actor.clothes == "blazer":
        shirt = 1 - ramp(x - (0.05 + 0.3 * (3.6 - y)), 0.0, 0.03)
        blend(cloth_colour, vector([232, 230, 226]), shirt)
        lapel = canvas.lines([through([(s * 0.5, 2.05), (s * 0.36, 2.7), (s * 0.1, 3.5)]) for s in (-1, 1)], 0.05, 0.03)
        cloth_colour *= 1 - 0.3 * lapel[..., None]
        if actor.feminine < 0.5:
            tie = (1 - ramp(x - (0.1 + 0.05 * np.clip(y - 2.6, 0, 1)), 0.0, 0.03)) * ramp(y, 2.62, 2.66)
            blend(cloth_colour, second, np.broadcast_to(tie, canvas.shape))
    folds = noise(rng, (canvas.shape[0], canvas.shape[1]), 0.35 * canvas.detail)
    relief += cloth * (0.035 + 0.012 * folds)
    blend(colour, (0, 0, 0), cloth)
    colour += cloth_colour * (1 + weave)[..., None] * cloth[..., None]
    hem = np.exp(-0.5 * ((y - line - 0.045) / 0.035) ** 2) * (x < neck * 1.4)
    if actor.clothes in ("crew", "vneck", "turtleneck"):
        colour *= 1 - 0.12 * hem[..., None]
    throw = np.exp(-np.clip(line - y, 0, None) / 0.07) * (1 - cloth)
    colour *= 1 - 0.3 * throw[..., None] * vector([0.8, 1, 1])
    if actor.clothes in ("shirt", "blazer"):
        plain = fabric if actor.clothes == "shirt" else vector([236, 234, 230])
        _collar(actor, canvas, colour, relief, plain)
    if actor.clothes == "hoodie":
        _hood(canvas, colour, relief, fabric, second)


def _collar(actor: Actor, canvas: Canvas, colour: Array, relief: Array, fabric: Array) -> None:
    neck = actor.neck
    for side in (-1, 1):
        flap = [(neck * 1.02, 1.86), (neck * 1.2, 2.16), (0.62, 2.76), (0.06, 2.6), (neck * 0.5, 2.38)]
        outline = vector(flap) * vector([side, 1])
        shape = canvas.filled(outline)
        throw = cv2.GaussianBlur(canvas.filled(outline + vector([0, 0.06])), (0, 0), 0.05 * canvas.detail)
        colour *= 1 - 0.3 * throw[..., None]
        blend(colour, np.minimum(fabric * 1.06 + 6, 250), shape)
        relief += 0.06 * cv2.GaussianBlur(shape, (0, 0), 0.03 * canvas.detail)


def _hood(canvas: Canvas, colour: Array, relief: Array, fabric: Array, second: Array) -> None:
    for side in (-1, 1):
        roll = vector(
            [(0.78, 2.02), (1.0, 2.06), (1.22, 2.3), (0.85, 2.7), (0.2, 2.86), (0.0, 2.7), (0.42, 2.42), (0.66, 2.2)]
        )
        shape = canvas.filled(through(np.vstack([roll, roll[:1]]), 50) * vector([side, 1]))
        blend(colour, fabric * 0.93, shape)
        relief += 0.14 * cv2.GaussianBlur(shape, (0, 0), 0.08 * canvas.detail)
        cord = canvas.lines([through([(side * 0.22, 2.8), (side * 0.26, 3.1), (side * 0.23, 3.4)])], 0.05, 0.012)
        blend(colour, vector([236, 232, 224]), cord)
