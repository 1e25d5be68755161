"""Head at rest: outline, relief, skin, brows, ears and hair of an actor, and how light falls on them."""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from .action_units import FIELD_RESOLUTION, SkinMotion, build_skin_motion
from .actor import Actor
from .canvas import Array, Canvas, blend, noise, smoothstep, spline, vector

OUTLINE_CENTER_Y = 0.1  # the height of the point about which the head's outline is given, in units
ABSORPTION, GLOW = (0.0, 0.045, 0.063), (26.0, 6.5, 2.6)  # red light travels through skin: its shadows are warm
WRINKLE_ABSORPTION = (0.34, 0.46, 0.5)  # wrinkles also darken the skin; all three are per channel


@dataclass(frozen=True)
class Head:
    """Everything about an actor's head that can be drawn once, on ``canvas``.

    ``color`` uint8 (h, w, 4): RGB without light, and opacity. ``relief`` float32 (h, w): height towards the camera in
    units. ``depth`` float32 (h', w'): a smooth relief about which the head turns, on the canvas of ``motion``.
    """

    actor: Actor
    canvas: Canvas
    color: Array
    relief: Array
    depth: Array
    motion: SkinMotion


@lru_cache(maxsize=4)
def build_head(actor: Actor, resolution: int) -> Head:
    """Draw an actor's head with ``resolution`` pixels per unit."""
    canvas = Canvas(-1.75, -2.15, 3.5, 4.65, resolution)
    rng = np.random.default_rng([51, actor.number])
    radius = _radius(actor, canvas)
    opacity = 1 - smoothstep(radius, 1 - 1.6 / resolution, 1 + 0.4 / resolution)
    color = _skin(actor, canvas, rng)
    relief = _relief(actor, canvas, radius)
    _add_ears(actor, canvas, color, relief, opacity)
    _add_hair(actor, canvas, color, relief, opacity, rng)
    return Head(
        actor,
        canvas,
        np.dstack([np.clip(color, 0, 255), 255 * opacity]).astype(np.uint8),
        cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 0.014 * resolution),
        _depth(actor, replace(canvas, resolution=FIELD_RESOLUTION)),
        build_skin_motion(actor, canvas),
    )


def shade(color: Array, relief: Array, scale: float, angle: float, gloss: float, wrinkle: Array | float = 0.0) -> Array:
    """Return a color (h, w, 3) on a relief (h, w; units) with wrinkles (h, w; depth 0..1) lit by a lamp, float32 RGB.

    ``scale`` is pixels per unit; ``angle`` the lamp's in degrees, 0 in front, positive from the right of the image;
    ``gloss`` the brightness of the highlight in gray levels.
    """
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=scale / 8)
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3, scale=scale / 8)
    side, rise = np.deg2rad([angle, 32])
    lamp = vector([np.sin(side) * np.cos(rise), -np.sin(rise), np.cos(side) * np.cos(rise)])
    normal = 1 / cv2.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    key = np.clip((lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) * normal * (1 / 1.3) + 0.3 / 1.3, 0, 1)
    fill = np.clip((lamp[2] + slope_x * lamp[0]) * normal, 0, 1)
    bounce = np.clip(-slope_y * normal, 0, 1)
    # what lies lower than its surroundings gets less light from the sky
    window = int(scale) // 6 | 1
    hollow = relief - cv2.blur(relief, (window, window))
    tone = (0.3 + 0.62 * key + 0.16 * fill + 0.16 * bounce) * np.clip(1 + 2.6 * hollow, 0.72, 1.08)
    half = lamp + vector([0, 0, 1])
    half /= np.linalg.norm(half)
    shine = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) * normal, 0, 1) ** 2
    shine = (shine * shine) ** 2
    shine = gloss * shine * shine * shine
    dark = np.clip(1 - tone, 0, 1)
    glow = dark * key
    channels = zip(cv2.split(color), ABSORPTION, GLOW, WRINKLE_ABSORPTION, strict=True)
    lit = [plain * (tone * (1 - a * dark) * (1 - f * wrinkle)) + (g * glow + shine) for plain, a, g, f in channels]
    return cv2.merge(lit)


def dome(mask: Array, resolution: int, edge: float) -> Array:
    """Return a relief (h, w) over a mask, 0..1, that is round within ``edge`` units of the mask's border."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / resolution
    return np.sqrt(np.clip(1 - np.clip(1 - inside / edge, 0, 1) ** 2, 0, 1))


def _radius(actor: Actor, canvas: Canvas, grow: float = 0.0, max_y: float = 9.0) -> Array:
    """Return how far out every pixel lies: 0 at the center of the head, 1 on its outline ``grow`` units larger.

    Below ``max_y`` it is that of the pixel at ``max_y``.
    """
    wide, jaw, chin = actor.face_width, actor.jaw_width * actor.face_width, actor.chin_y
    top = [(0.0, -1.66), (0.55, -1.54), (0.93 * wide, -1.2), (1.13 * wide, -0.65), (1.16 * wide, -0.1)]
    cheek = [(1.1 * wide, 0.4), (0.495 * (wide + jaw), 0.85), (0.86 * jaw, 1.2), (0.62 * jaw, chin - 0.26)]
    x, y = np.transpose([*top, *cheek, (0.31 * wide, chin - 0.04), (0.0, chin)])
    y = y - OUTLINE_CENTER_Y
    angles = np.linspace(0, np.pi, 360)  # from the top of the head down to the chin
    radii = np.interp(angles, np.arctan2(x, -y), np.hypot(x, y))
    kernel = np.exp(-0.5 * (np.arange(-48, 49) / 16) ** 2)
    smooth = np.convolve(np.pad(radii, 48, "symmetric"), kernel / kernel.sum(), "valid") + grow
    down = np.minimum(canvas.y, max_y) - OUTLINE_CENTER_Y
    return np.hypot(canvas.x, down) / np.interp(np.arctan2(np.abs(canvas.x), -down), angles, smooth).astype(np.float32)


def _relief(actor: Actor, canvas: Canvas, radius: Array) -> Array:
    """Return the height of the skin towards the camera at rest, in units, float32 (h, w)."""
    blob, mouth, eye = canvas.blob, actor.mouth_y, actor.eye_distance / 2
    z = _ball(radius)
    z += 0.04 * blob(0.45, actor.brow_y + 0.04, 0.34, 0.09)
    z -= 0.12 * blob(eye - 0.03, -0.02, 0.24, 0.17) + 0.1 * blob(0.25, -0.02, 0.1, 0.13)
    z += 0.075 * blob(eye, 0.0, 0.19, 0.12) - 0.022 * blob(0.42, 0.2, 0.2, 0.05)
    z += 0.07 * blob(0.7, 0.46, 0.26, 0.2) + 0.05 * blob(0.45, 0.62, 0.22, 0.2)
    z -= 0.04 * blob(0.78, 0.98, 0.2, 0.22)
    z += 0.05 * blob(0, -0.8, 0.5, 0.3) - 0.05 * blob(1.0, -0.45, 0.15, 0.3)
    z += 0.09 * blob(0, mouth - 0.02, 0.36, 0.24) - 0.055 * blob(0, mouth + 0.29, 0.24, 0.055)
    z -= 0.022 * blob(0, mouth - 0.19, 0.035, 0.06) - 0.012 * blob(0.075, mouth - 0.19, 0.03, 0.06)
    z += 0.11 * blob(0, actor.chin_y - 0.22, 0.24, 0.14)
    tip, wide = actor.nose_length, actor.nose_width
    steps = [-0.35, -0.1, 0.1, tip - 0.2, tip - 0.03, tip + 0.05, tip + 0.12, tip + 0.2]
    rise = np.interp(canvas.y, steps, [0.0, 0.055, 0.11, 0.24, 0.37, 0.35, 0.2, 0.0]).astype(np.float32)
    rise = cv2.GaussianBlur(rise, (1, 0), sigmaX=0.1, sigmaY=0.03 * canvas.resolution)
    spread = np.interp(canvas.y, [-0.3, 0.05, tip - 0.15, tip + 0.02], [0.13, 0.1, 0.115 * wide, 0.14 * wide])
    bridge = rise * np.exp(-0.5 * (canvas.x / spread.astype(np.float32)) ** 2)
    return z + bridge + 0.15 * blob(0.185 * wide, tip + 0.055, 0.062 * wide, 0.068)


def _ball(radius: Array) -> Array:
    return 1.12 * np.sqrt(np.maximum(1 - np.minimum(radius, 1) ** 2.9, 0))


def _depth(actor: Actor, canvas: Canvas) -> Array:
    """Return a smooth depth for turning the head, whose slope stays gentle at the outline, float32 (h', w')."""
    z = np.maximum(1 - _radius(actor, canvas, grow=0.12) ** 2, 0)
    z += 0.28 * canvas.blob(0, actor.nose_length, 0.2, 0.22)
    return cv2.GaussianBlur(z.astype(np.float32), (0, 0), 0.06 * canvas.resolution)


def _skin(actor: Actor, canvas: Canvas, rng: np.random.Generator) -> Array:
    """Return the color of skin and brows without light, float32 RGB (h, w, 3)."""
    skin, tip, wide, blob = actor.skin_color, actor.nose_length, actor.nose_width, canvas.blob
    color = (1 + 0.012 * noise(rng, canvas.shape, 0.2 * canvas.resolution))[..., None] * skin
    rosy = 0.4 * blob(0.68, 0.55, 0.26, 0.2) + 0.45 * blob(0, tip, 0.2, 0.12)
    blend(color, skin * vector([0.97, 0.76, 0.74]), rosy)
    blend(color, skin * vector([0.78, 0.68, 0.68]), 0.4 * blob(actor.eye_distance / 2 - 0.04, 0.0, 0.27, 0.16))
    across = np.abs(canvas.x) - 0.092 * wide
    nostril = np.hypot(across / (0.058 * wide), (canvas.y - tip - 0.135 + 0.22 * across) / 0.03)
    blend(color, skin * vector([0.42, 0.28, 0.26]), 0.8 * (1 - smoothstep(nostril, 0.55, 1.25)))
    under = np.minimum(blob(0, tip + 0.17, 0.2, 0.05) + 0.6 * blob(0.29 * wide, tip + 0.07, 0.03, 0.08), 1)
    blend(color, skin * vector([0.7, 0.55, 0.52]), 0.35 * under)
    cheek = spline([(0.27, tip + 0.02), (0.42, tip + 0.18), (0.52, actor.mouth_y - 0.1)])
    blend(color, skin * vector([0.62, 0.47, 0.44]), 0.22 * canvas.lines([cheek], 0.012, 0.02))
    blend(color, actor.brow_color, 0.9 * _brows(actor, canvas, rng))
    return color


def _brows(actor: Actor, canvas: Canvas, rng: np.random.Generator) -> Array:
    """Return the opacity of both brows, float32 (h, w)."""
    inner, outer = actor.eye_distance / 2 - 0.31, actor.eye_distance / 2 + 0.38
    rise, slant = vector([0.012, -0.025, -0.03, 0.005, 0.08]), vector([-1, -0.5, 0, 1, 1])
    middle = actor.brow_y + rise - actor.brow_arch * vector([0, 0.45, 1, 0.4, 0]) + actor.brow_slant * slant
    line = spline(np.stack([inner + (outer - inner) * vector([0, 0.28, 0.6, 0.83, 1]), middle], -1), 24)
    x = np.abs(canvas.x[0])
    position = (x - inner) / (outer - inner)
    half = actor.brow_thickness * np.interp(position, [-0.03, 0.12, 0.55, 1.0], [0.5, 1.1, 0.95, 0.25])
    outside = np.abs(canvas.y - np.interp(x, line[:, 0], line[:, 1])) - half
    soft = np.maximum(0.012 + 0.006 * noise(rng, canvas.shape, 0.03 * canvas.resolution), 0.004)
    ends = smoothstep(position, -0.06, 0.03) * (1 - smoothstep(position, 0.98, 1.04))
    return ((1 - smoothstep(outside / soft, -1.0, 1.0)) * ends).astype(np.float32)


def _add_ears(actor: Actor, canvas: Canvas, color: Array, relief: Array, opacity: Array) -> None:
    """Draw both ears behind the head's outline, in place."""
    scale, mirror = vector([actor.face_width, 1]), vector([-1, 1])
    rim = spline([(1.0, -0.16), (1.15, -0.24), (1.27, -0.14), (1.28, 0.1), (1.2, 0.36), (1.12, 0.52), (1.0, 0.5)], 40)
    inner = spline([(1.1, -0.08), (1.18, -0.14), (1.23, -0.02), (1.2, 0.16), (1.13, 0.26)])
    ear = np.maximum(canvas.fill(rim * scale), canvas.fill(rim * scale * mirror))
    line, behind = canvas.lines([inner * scale], 0.03, 0.02), ear * (1 - opacity)
    blend(color, actor.skin_color * vector([0.9, 0.76, 0.73]), behind)
    color *= 1 - (0.3 * behind * line)[..., None]
    relief += (0.25 + 0.1 * dome(ear, canvas.resolution, 0.12) - 0.03 * line - relief) * behind
    np.maximum(opacity, ear, out=opacity)


def _add_hair(
    actor: Actor, canvas: Canvas, color: Array, relief: Array, opacity: Array, rng: np.random.Generator
) -> None:
    """Draw the hair and its shadow on the skin, in place; locks fan out from the parting."""
    x, y, resolution, part = canvas.x, canvas.y, canvas.resolution, actor.hair_parting_x
    away, end, thick = np.abs(x) / actor.face_width, actor.hair_end_y, actor.hair_thickness
    # within the head's outline, grown and prolonged downwards, but not in the opening for the face
    hairline = actor.hairline_y + 0.2 * part * x + 0.85 * np.maximum(away - 0.25, 0) ** 2
    hairline -= 0.12 * np.exp(-0.5 * ((x - part) / 0.15) ** 2)
    cheek = (
        1.05 + 0.1 * smoothstep(y, -0.6, 0.0) * (1 - smoothstep(vector(end), 0.2, 0.9)) - 0.07 * smoothstep(y, 0.3, 1.3)
    )
    opening = smoothstep(y - hairline, -0.08, 0.08) * smoothstep(cheek - away, -0.06, 0.06)
    end = end - 0.5 * np.maximum(away - 1.02, 0)
    radius = _radius(actor, canvas, 0.03 + thick, max_y=-0.1)
    soft = (1 - opening) * smoothstep(1 - radius, -0.05, 0.05) * smoothstep(end - y, -0.08, 0.08)
    # soft edges with noise, cut sharply again: rounded ends, and uneven ones where the hair is curly
    fuzz = (0.1 + 0.5 * actor.hair_curl) * noise(rng, canvas.shape, 0.16 * resolution)
    mask = smoothstep(soft + fuzz * soft * (1 - soft), 0.38, 0.62).astype(np.float32)
    bend = (0.02 + 0.08 * actor.hair_curl) * noise(rng, canvas.shape, 0.26 * resolution)
    angle = np.arctan2(x - part, y + 2.0) + bend
    table = 0.8 * noise(rng, (4, 320), 6.0)[0] + 0.5 * noise(rng, (4, 320), 2.0)[0]
    locks = np.interp(angle, np.linspace(-np.pi, np.pi, 320), table).astype(np.float32)
    gleam = np.exp(-0.5 * ((radius - 0.74) / 0.07) ** 2) * smoothstep(-y, 0.5, 1.3) * (1 - 0.6 * actor.hair_curl)
    shadow = cv2.GaussianBlur(np.roll(mask, round(0.07 * resolution), 0), (0, 0), 0.06 * resolution)
    color *= 1 - 0.45 * shadow[..., None] * vector([0.8, 1.0, 1.0])
    color += ((1 + 0.13 * locks + 0.3 * gleam)[..., None] * actor.hair_color - color) * mask[..., None]
    z = 0.9 * _ball(radius) + 0.24 * dome(mask, resolution, 0.3) + 0.009 * locks
    relief += (z - relief) * cv2.GaussianBlur(mask, (0, 0), 0.035 * resolution)
    np.maximum(opacity, mask, out=opacity)
