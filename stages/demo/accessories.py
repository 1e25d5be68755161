"""What an actor wears on the head: ears, glasses, earrings and a headscarf."""

import cv2
import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, blend, noise, ramp, through, vector
from .hair import scarf_outline
from .light import lit


def ears(actor: Actor, canvas: Canvas, picture: Array, opacity: Array) -> None:
    """Draw both ears over what is behind the head, in place."""
    wide = actor.head_width
    skin = vector(actor.skin)
    right = through(
        [(1.02, -0.16), (1.15, -0.24), (1.27, -0.14), (1.28, 0.1), (1.2, 0.36), (1.12, 0.52), (1.02, 0.5)], 40
    )
    inner = through([(1.1, -0.08), (1.18, -0.14), (1.23, -0.02), (1.2, 0.16), (1.13, 0.26)], 24)
    for side in (-1, 1):
        scale = vector([side * wide, 1])
        shape = canvas.filled(right * scale)
        blend(picture, skin * vector([0.86, 0.74, 0.71]), shape)
        line = canvas.lines([inner * scale], 0.03, 0.02) * shape
        blend(picture, skin * vector([0.6, 0.44, 0.42]), 0.7 * line)
        rim = canvas.lines([(right[4:26] - vector([0.015, 0])) * scale], 0.02, 0.014) * shape
        blend(picture, np.minimum(skin * 1.05, 255), 0.45 * rim)
        np.maximum(opacity, shape, out=opacity)
        if actor.earrings:
            drop = canvas.fixed((side * 1.13 * wide, 0.58))
            radius = int(0.045 * canvas.detail * 16)
            for target, value in ((picture, (214.0, 176.0, 96.0)), (opacity, 1.0)):
                cv2.circle(target, tuple(drop.tolist()), radius, value, -1, cv2.LINE_AA, 4)


def glasses(actor: Actor, canvas: Canvas, hair: Array, cover: Array) -> tuple[Array, Array]:
    """Glasses below the hair in front of the face: the colour and the opacity of both together."""
    around = np.linspace(0, 2 * np.pi, 49)
    power = {"round": 1.0, "square": 0.55, "thin": 0.7}[actor.glasses]
    wide, high = {"round": (0.35, 0.32), "square": (0.38, 0.27), "thin": (0.37, 0.25)}[actor.glasses]
    cos, sin = np.cos(around), np.sin(around)
    rim = np.stack([wide * np.sign(cos) * np.abs(cos) ** power, high * np.sign(sin) * np.abs(sin) ** power], -1)
    thick = max(1, round((0.028 if actor.glasses == "thin" else 0.045) * canvas.detail))
    paths = [through([(-0.52 + wide, -0.02), (0, -0.07), (0.52 - wide, -0.02)], 10)]
    for side in (-1, 1):
        paths.append(rim + vector([side * 0.51, 0.05]))
        paths.append(through([(side * (0.5 + wide), -0.04), (side * 1.1 * actor.head_width, -0.09)], 4))
    frame = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(frame, [canvas.fixed(path).reshape(-1, 1, 2) for path in paths], False, 255, thick, cv2.LINE_AA, 4)
    share = frame.astype(np.float32) / 255
    lens = sum(canvas.filled(rim + vector([side * 0.51, 0.05])) for side in (-1, 1))
    glare = 0.14 * lens * ramp(np.sin(4.5 * (canvas.x + 0.55 * canvas.y) + 1.0), 0.82, 1.0)
    own = np.maximum(share, glare)
    light = 1 + 0.35 * ramp(-canvas.y, -0.3, 0.3)
    colour = np.full((*canvas.shape, 3), 255, np.float32)
    colour += (vector(actor.glasses_colour) * light[..., None] - colour) * (share / np.maximum(own, 1e-3))[..., None]
    total = cover + own * (1 - cover)
    weight = (cover / np.maximum(total, 1e-3))[..., None]
    return hair * weight + colour * (1 - weight), total


def lining(actor: Actor, canvas: Canvas, picture: Array) -> Array:
    """The inside of the headscarf behind the head, painted into the picture; returns where it is."""
    whole = canvas.filled(scarf_outline(actor)[1])
    blend(picture, vector(actor.fabric_second) * 0.45, whole)
    return whole


def scarf(actor: Actor, canvas: Canvas, rng: np.random.Generator) -> tuple[Array, Array]:
    """A headscarf: float32 colour (h, w, 3) and opacity (h, w)."""
    opening, edge = scarf_outline(actor)
    hole, whole = canvas.filled(opening), canvas.filled(edge)
    opacity = whole * (1 - hole)
    inside = cv2.distanceTransform((opacity > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / canvas.detail
    relief = 0.5 * np.sqrt(np.clip(1 - np.clip(1 - inside / 0.4, 0, 1) ** 2, 0, 1))
    paths = []
    for side in (-1, 1):
        for step in np.linspace(0, 1, 4):
            start, end = (side * (0.5 + 0.3 * step), -1.6 + 0.3 * step), (-side * 0.1 * step, 2.05 + 0.2 * step)
            paths.append(through([start, (side * 1.2, -0.3), (side * 1.1, 1.0), end]))
    folds = canvas.lines(paths, 0.05, 0.05)
    relief = cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 0.05 * canvas.detail) - 0.06 * folds
    colour = vector(actor.fabric_second) * (1 + 0.02 * noise(rng, canvas.shape, 2.0))[..., None]
    return lit(colour.astype(np.float32), relief, canvas.detail, -15.0, 10.0), opacity
