"""Eyes and mouth: eyelids, eyeballs, lips, teeth and tongue at given action units, as functions of head coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .action_units import JAW_DROP
from .actor import Actor
from .canvas import Array, blend, smoothstep, vector

IRIS_RADIUS = 0.104


def paint_eyes(
    actor: Actor, image: Array, x: Array, y: Array, pixel: float, units: Mapping[int, float], light_angle: float
) -> None:
    """Paint both eyes over lit skin, in place.

    ``image`` float32 (2, h, w, 3) holds a patch of each eye, the left one in the image first; ``x`` and ``y`` (2, h, w)
    are the coordinates of its pixels and ``pixel`` the size of one, in units. The glint is on the side of the lamp.
    """
    side = vector([-1, 1])[:, None, None]
    x = x * side - actor.eye_distance / 2  # outwards from the center of each eye
    y = y + actor.eye_tilt * x / actor.eye_width - 0.004
    half = actor.eye_width
    t = np.clip(x / half, -1, 1)
    brow, wide, cheek, tight, nose, smile = (units.get(unit, 0.0) for unit in (4, 5, 6, 7, 9, 12))
    opening = 0.98 + 0.52 * wide * (1 - 0.45 * tight) - 0.2 * tight - 0.12 * cheek - 0.22 * nose
    high = 0.102 * actor.eye_opening * opening
    low = 0.078 * actor.eye_opening * (1 - 0.72 * tight - 0.5 * cheek - 0.35 * nose - 0.12 * smile + 0.12 * wide)
    shut, low = min(1.0, max(0.0, units.get(45, 0.0))), max(low, -0.02)
    high = high * (1 - shut) - (low - 0.008) * shut
    # the upper lid is highest a little towards the nose, the lower one lowest a little towards the temple
    upper = -high * _arch(t + 0.08, 0.92, 1.08)
    lower = np.maximum(low * _arch(t - 0.12, 1.12, 0.88), upper)
    gap = _soft(y - upper, 1.2 * pixel) * _soft(lower - y, 1.2 * pixel)
    gap *= np.clip((half - np.abs(x)) / (1.5 * pixel), 0, 1) * np.clip((lower - upper) / (2 * pixel), 0, 1)
    brightness = float(np.clip(image.mean() / max(float(actor.skin_color.mean()), 1.0), 0.5, 1.15))
    # the crease above the upper lid opens with raised brows and sinks with lowered ones
    raised = 0.02 * (units.get(1, 0.0) + units.get(2, 0.0)) - 0.03 * brow - 0.02 * nose - 0.035 * wide
    crease = np.minimum(upper, -0.09 * actor.eye_opening * (1 - (t + 0.05) ** 2))
    crease -= max(0.018, 0.055 + raised) * (1 - 0.35 * t * t)
    reach = np.clip((half * 1.12 - np.abs(x)) / 0.06, 0, 1) * np.clip((x + half) / 0.12, 0, 1)
    image *= 1 - (0.28 * reach * np.exp(-0.5 * ((y - crease) / 0.013) ** 2))[..., None]
    image *= 1 + (0.05 * reach * smoothstep(y - crease, 0.0, 0.02) * smoothstep(upper - y, 0.0, 0.02))[..., None]
    # eyeball, iris, pupil, glint
    right, down = (units.get(a, 0.0) - units.get(b, 0.0) for a, b in ((62, 61), (64, 63)))
    ball = (1 - 0.32 * t * t)[..., None] * vector([240, 235, 230])
    blend(ball, (206, 140, 130), 0.9 * np.exp(-0.5 * (((x + half * 0.93) / 0.035) ** 2 + (y / 0.03) ** 2)))
    dx, dy = x - right * side * 0.07, y - 0.004 - down * 0.035
    r = np.hypot(dx, dy) / IRIS_RADIUS
    rays = 1 + 0.12 * np.sin(np.arctan2(dy, dx) * 17)
    tone = (0.72 + 0.5 * smoothstep(dy / IRIS_RADIUS, -0.6, 0.9)) * rays * (1 - 0.6 * smoothstep(r, 0.72, 1.02))
    blend(ball, tone[..., None] * actor.eye_color, _soft((1 - r) * IRIS_RADIUS, 1.6 * pixel))
    blend(ball, (12, 10, 12), _soft((0.4 - r) * IRIS_RADIUS, 1.5 * pixel))
    ball *= ((1 - 0.5 * np.exp(-np.maximum(y - upper, 0) / 0.035)) * (0.55 + 0.45 * brightness))[..., None]
    blend(image, ball, gap)
    glint = np.hypot(x * side - (0.034 if light_angle >= 0 else -0.034) - 0.07 * right, y + 0.036)
    blend(image, (252, 252, 250), 0.95 * gap * _soft(0.021 - glint, pixel))
    # lashes and the rim of the lower lid
    lash, thick = np.minimum(actor.hair_color * 0.35, 60) + vector([8, 4, 4]), 0.017 * (0.65 + 0.35 * t)
    reach = np.clip((half + 0.02 - np.abs(x)) / 0.03, 0, 1)
    blend(image, lash, 0.92 * reach * _soft(thick - np.abs(y - upper + 0.35 * thick), 1.3 * pixel))
    rim = 0.42 * np.exp(-0.5 * ((y - lower - 0.012) / 0.009) ** 2) * reach * (0.4 + 0.6 * np.clip(t + 0.6, 0, 1))
    blend(image, lash * 0.5 + actor.skin_color * vector([0.35, 0.27, 0.26]), rim)


def _arch(t: Array, left: float, right: float) -> Array:
    """Return an arch of height 1 at 0 that meets 0 at -left and right, a little fuller than a parabola."""
    u = np.maximum(t / right, t / -left)
    u *= u
    return 1 - u * (0.75 + 0.25 * u)


def _soft(distance: Array, width: float) -> Array:
    """Return 0 outside an edge, 1 inside, and a linear step of ``width`` at it."""
    return np.clip(distance / width + 0.5, 0, 1)


@dataclass(frozen=True)
class Lips:
    """The lines of a mouth in units: corners at (+-half_width, corner_y); heights at the middle, y down."""

    half_width: float
    corner_y: float
    upper_y: float  # lower edge of the upper lip
    lower_y: float  # upper edge of the lower lip
    upper_thickness: float
    lower_thickness: float
    squareness: float  # 0 a soft arch, 1 a squared upper lip as in disgust
    jaw: float  # how far the chin has fallen
    lower_teeth: float  # how much of the lower teeth shows, 0..1


def lip_shape(actor: Actor, units: Mapping[int, float]) -> Lips:
    """Return where the lips are at the given action units."""
    nose, raised, pulled, down = (units.get(unit, 0.0) for unit in (9, 10, 12, 15))
    chin, stretched, tight, parted, dropped = (units.get(unit, 0.0) for unit in (17, 20, 23, 25, 26))
    middle, jaw, push = actor.mouth_y, JAW_DROP * dropped, 0.05 * chin + 0.02 * tight
    upper = middle - 0.075 * raised - 0.025 * nose - 0.03 * pulled - 0.045 * parted - 0.6 * push
    lower = middle + jaw + 0.07 * parted + 0.025 * pulled * parted + 0.05 * stretched - push + 0.01 * raised
    thin = 1 - 0.22 * pulled - 0.52 * tight - 0.22 * stretched - 0.1 * dropped
    wide = actor.mouth_width + 0.115 * pulled + 0.12 * stretched - 0.055 * tight - 0.07 * dropped + 0.015 * down
    corner = middle + actor.mouth_curve - 0.15 * pulled + 0.105 * down + 0.03 * stretched + 0.3 * jaw
    above = 0.085 * actor.lip_fullness * max(0.3, thin - 0.2 * raised)
    below = 0.114 * actor.lip_fullness * max(0.3, thin + 0.25 * chin * (1 - tight))
    square = min(1.0, 0.9 * raised + 0.5 * stretched)
    return Lips(wide, corner, upper, max(lower, upper), above, below, square, jaw, min(1.0, stretched))


def paint_lips(
    actor: Actor, lips: Lips, color: Array, relief: Array, x: Array, y: Array, pixel: float
) -> tuple[Array, Array]:
    """Paint lips into unlit skin (h, w, 3) and its relief (h, w), in place; ``x``, ``y`` (h, w) and ``pixel`` are units.

    Returns what to blend over the lit skin: the colors in the open mouth (h, w, 3), and their opacity (h, w).
    """
    away = np.abs(x)
    t = np.minimum(away / lips.half_width, 1)
    # an open mouth is round at its corners
    gape = min(1.0, (lips.lower_y - lips.upper_y) / 0.3)
    arch, round_ = 1 - t ** (2 + 1.6 * lips.squareness), (1 - t * t) ** (1 - 0.4 * gape)
    upper = arch * (1 - gape) + np.maximum(arch, round_) * gape
    upper = lips.corner_y + (lips.upper_y - lips.corner_y) * upper
    lower = np.maximum(lips.corner_y + (lips.lower_y - lips.corner_y) * round_, upper)
    oval = 1 - t * t * (0.7 + 0.3 * t * t)
    bow = 1 - 0.3 * np.exp(-0.5 * (x / 0.05) ** 2) + 0.12 * np.exp(-0.5 * ((away - 0.12) / 0.06) ** 2)
    top, bottom = upper - lips.upper_thickness * bow * oval, lower + lips.lower_thickness * oval
    across = np.clip((lips.half_width + 0.01 - away) / (1.5 * pixel), 0, 1)
    above, below, gap = _soft(upper - y, 1.3 * pixel), _soft(y - lower, 1.3 * pixel), lower - upper
    opening = (1 - above) * (1 - below) * across * np.clip(gap / (2 * pixel), 0, 1)
    upper_lip = _soft(y - top, 2.9 * pixel) * above * across
    lower_lip = _soft(bottom - y, 3.4 * pixel) * below * across
    seam = np.exp(-0.5 * ((y - 0.5 * (upper + lower)) / (0.013 + 0.5 * gap)) ** 2)
    seam *= np.clip((lips.half_width + 0.035 - away) / 0.05, 0, 1) * np.clip(1.4 - gap / 0.06, 0, 1)
    corner = np.exp(-0.5 * (((away - lips.half_width) / 0.035) ** 2 + ((y - lips.corner_y) / 0.03) ** 2))
    under = np.exp(-0.5 * ((y - bottom - 0.035) / 0.03) ** 2) * oval
    shadow = np.clip(0.72 * seam + 0.5 * corner + 0.2 * under + 0.2 * upper_lip, 0, 0.92)
    blend(color, actor.lip_color, 0.88 * np.minimum(upper_lip + lower_lip, 1) * (1 - opening))
    color *= 1 - shadow[..., None] * vector([0.62, 0.8, 0.78])
    for thick, low, high in ((0.055, top, upper), (0.08, lower, bottom)):
        part = np.clip((y - low) / np.maximum(high - low, 1e-3), 0, 1)
        relief += 2 * thick * np.sqrt(part * (1 - part)) * np.minimum(1, (high - low) / 0.05)
    return _mouth_cavity(actor, lips, away, y, upper, lower, pixel), opening


def _mouth_cavity(actor: Actor, lips: Lips, away: Array, y: Array, upper: Array, lower: Array, pixel: float) -> Array:
    """Return the colors of throat, tongue and teeth, float32 (h, w, 3); ``away`` is the distance from the midline."""
    colors = np.full((*y.shape, 3), (58, 16, 18), np.float32)
    middle, tooth = actor.mouth_y, vector([240, 234, 222])
    tongue = np.clip((1.1 - np.hypot(away / 0.3, (y - middle - 0.34 - 0.72 * lips.jaw) / 0.19)) * 6, 0, 1)
    blend(colors, (178, 82, 82), 0.85 * tongue * (1 - 0.25 * np.exp(-0.5 * (away / 0.02) ** 2)))
    floor, edge = 0.075 + 0.93 * lips.jaw + 0.1 * away * away, 0.05 - 0.12 * away * away
    rows = ((y - middle - floor, 0.0875, 0.35 + 0.55 * lips.lower_teeth), (edge - y + middle, 0.11, 1.0))
    for inside, width, brightness in rows:
        gap = np.abs((away * (1 / width) + 0.5) % 1 - 0.5) * (width / (0.7 * pixel))
        teeth = np.clip((4 * width - away) / 0.03, 0, 1) * (1 - 0.24 * np.exp(-0.5 * gap * gap))
        blend(colors, (0.76 + 0.24 * brightness) * tooth, teeth * brightness * _soft(inside, 1.3 * pixel))
    # the lips throw a shadow, and the corners lie deep
    light = (0.62 + 0.38 * smoothstep(y - upper, 0.0, 0.07)) * (0.75 + 0.25 * smoothstep(lower - y, 0.0, 0.05))
    light = 0.92 * light * (1 - 0.55 * smoothstep(away, 0.5 * lips.half_width, 1.02 * lips.half_width))
    return colors * light[..., None]
