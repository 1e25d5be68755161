"""How eyes look: lids, eyeball, lashes and the fold above, at given units."""

from collections.abc import Mapping

import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, ramp, vector

IRIS = 0.104


def draw(
    actor: Actor,
    canvas: Canvas,
    image: Array,
    units: Mapping[int, float],
    blink: float,
    gaze: tuple[float, float],
    light: float,
) -> None:
    """Draw both eyes into the lit face (h, w, 3) in place.

    `blink` is 0 (open) to 1 (closed), `gaze` how far the eyes look (right, down) as shares of what they can,
    `light` the sideways direction of the light, -1..1, where the glint sits.
    """
    for side in (-1, 1):
        _eye(actor, canvas, image, units, blink, gaze, light, side)


def _lids(actor: Actor, units: Mapping[int, float], blink: float) -> tuple[float, float]:
    """How high the upper lid stands above the eye's centre and how low the lower one below it, in units."""
    wide, cheek, tight = (units.get(unit, 0.0) for unit in (5, 6, 7))
    nose, smile = units.get(9, 0.0), units.get(12, 0.0)
    droop = 0.12 * actor.age
    upper = (
        0.102
        * actor.eye_open
        * (1 - droop + 0.52 * wide * (1 - 0.45 * tight) - 0.2 * tight - 0.12 * cheek - 0.22 * nose)
    )
    lower = 0.078 * actor.eye_open * (1 - 0.72 * tight - 0.5 * cheek - 0.35 * nose - 0.12 * smile + 0.12 * wide)
    shut = min(1.0, max(0.0, blink))
    lower = max(lower, -0.02)
    return upper * (1 - shut) - (lower - 0.008) * shut, lower


def _eye(
    actor: Actor,
    canvas: Canvas,
    image: Array,
    units: Mapping[int, float],
    blink: float,
    gaze: tuple[float, float],
    light: float,
    side: int,
) -> None:
    where = canvas.box(side * 0.5 - 0.42, -0.34, side * 0.5 + 0.42, 0.26)
    patch = image[where]
    x = (canvas.x[:, where[1]] - side * 0.5) * side  # outwards
    tilt = -actor.eye_tilt * x / actor.eye_wide
    y = canvas.y[where[0]] - tilt - 0.004
    pixel = 1.0 / canvas.detail
    half = actor.eye_wide
    t = np.clip(x / half, -1, 1)
    high, low = _lids(actor, units, blink)
    # The upper lid is highest a little towards the nose, the lower one lowest a little towards the temple.
    upper = -high * (1 - np.abs((t + 0.08) / (1 + 0.08 * np.sign(t + 0.08))) ** 2.3)
    lower = np.maximum(low * (1 - np.abs((t - 0.12) / (1 - 0.12 * np.sign(t - 0.12))) ** 2.2), upper)
    across = np.clip((half - np.abs(x)) / (1.5 * pixel), 0, 1)

    def soft(distance: Array, width: float = 1.2) -> Array:
        return np.clip(distance / (width * pixel) + 0.5, 0, 1)

    open_ = soft(y - upper) * soft(lower - y) * across * np.clip((lower - upper) / (2 * pixel), 0, 1)
    skin = vector(actor.skin)
    local = float(np.clip(patch.mean() / max(skin.mean(), 1), 0.5, 1.15))

    _fold(actor, patch, x, y, t, upper, units, half, pixel)
    # Both lids have a pale wet rim; the upper one throws a shadow on the eyeball.
    ball = np.empty_like(patch)
    ball[:] = vector([240, 236, 232])
    ball *= (1 - 0.32 * np.abs(t) ** 2.2)[..., None] * vector([1.0, 0.985, 0.975])
    pink = np.exp(-0.5 * (((x + half * 0.93) / 0.035) ** 2 + (y / 0.03) ** 2))
    ball += (vector([206, 140, 130]) - ball) * (pink * 0.9)[..., None]
    _iris(actor, ball, x, y, gaze, light, side, pixel)
    shadow = 1 - 0.5 * np.exp(-np.clip(y - upper, 0, None) / 0.035)
    ball *= (shadow * (0.55 + 0.45 * local))[..., None]
    patch += (ball - patch) * open_[..., None]
    glint = soft(0.021 - np.hypot(x * side - 0.034 * np.sign(light + 0.01) - gaze[0] * 0.07, y + 0.036), 1.4) * open_
    patch += (vector([252, 252, 250]) - patch) * (glint * 0.95)[..., None]
    _lashes(actor, patch, x, y, t, upper, lower, half, pixel, blink)


def _iris(
    actor: Actor, ball: Array, x: Array, y: Array, gaze: tuple[float, float], light: float, side: int, pixel: float
) -> None:
    dx, dy = x - gaze[0] * side * 0.07, y - 0.004 - gaze[1] * 0.035
    r = np.hypot(dx, dy) / IRIS
    cover = np.clip((1 - r) * IRIS / (1.6 * pixel) + 0.5, 0, 1)
    angle = np.arctan2(dy, dx)
    rays = 1 + 0.12 * np.sin(angle * 17 + 3 * np.sin(angle * 5))
    # Light that falls in from above brightens the lower half of the iris.
    tone = (0.72 + 0.5 * ramp(dy / IRIS, -0.6, 0.9)) * rays * (1 - 0.6 * ramp(r, 0.72, 1.02))
    ball += (vector(actor.eye_colour) * tone[..., None] - ball) * cover[..., None]
    pupil = np.clip((0.4 - r) * IRIS / (1.5 * pixel) + 0.5, 0, 1)
    ball += (vector([12, 10, 12]) - ball) * pupil[..., None]


def _fold(
    actor: Actor,
    patch: Array,
    x: Array,
    y: Array,
    t: Array,
    upper: Array,
    units: Mapping[int, float],
    half: float,
    pixel: float,
) -> None:
    """The crease above the upper lid; it opens with raised brows and sinks with lowered ones."""
    brow = 0.02 * units.get(1, 0.0) + 0.02 * units.get(2, 0.0) - 0.03 * units.get(4, 0.0) - 0.02 * units.get(9, 0.0)
    wide = units.get(5, 0.0)
    distance = max(0.018, 0.062 * (0.6 + 0.4 * actor.lid_fold) + brow - 0.035 * wide)
    rest = -0.09 * actor.eye_open * (1 - np.abs(t + 0.05) ** 2.2)
    crease = np.minimum(upper, rest) - distance * (1 - 0.35 * np.abs(t) ** 2)
    reach = np.clip((half * 1.12 - np.abs(x)) / 0.06, 0, 1) * np.clip((x + half) / 0.12, 0, 1)
    line = np.exp(-0.5 * ((y - crease) / 0.013) ** 2) * reach * (0.25 + 0.5 * min(1.0, actor.lid_fold))
    patch *= 1 - 0.5 * line[..., None] * vector([0.8, 1.0, 1.0])
    # The lid itself, between crease and lashes, catches a little light.
    lid = ramp(y - crease, 0.0, 0.02) * ramp(upper - y, 0.0, 0.02) * reach
    patch *= 1 + 0.05 * lid[..., None]


def _lashes(
    actor: Actor,
    patch: Array,
    x: Array,
    y: Array,
    t: Array,
    upper: Array,
    lower: Array,
    half: float,
    pixel: float,
    blink: float,
) -> None:
    dark = np.minimum(vector(actor.hair_colour) * 0.35, 60) + vector([8, 4, 4])
    dark = dark * (1 - 0.4 * actor.makeup)
    reach = np.clip((half + 0.02 - np.abs(x)) / 0.03, 0, 1)
    thick = (0.014 + 0.012 * actor.feminine + 0.008 * actor.makeup) * (0.65 + 0.35 * t)
    line = np.clip((thick - np.abs(y - upper + 0.35 * thick)) / (1.3 * pixel) + 0.5, 0, 1) * reach
    # A wing of long lashes at the outer corner.
    wing = np.exp(-0.5 * ((y - upper + 0.02 + 0.5 * np.clip(x - half * 0.85, 0, None)) / 0.014) ** 2)
    wing = wing * np.clip((x - half * 0.55) / 0.08, 0, 1) * np.clip((half * 1.16 - x) / 0.04, 0, 1)
    patch += (dark - patch) * np.clip(0.92 * line + 0.75 * actor.feminine * wing, 0, 0.95)[..., None]
    rim = np.exp(-0.5 * ((y - lower - 0.012) / 0.009) ** 2) * reach * (0.4 + 0.6 * np.clip(t + 0.6, 0, 1))
    under = dark * 0.5 + vector(actor.skin) * vector([0.35, 0.27, 0.26])
    patch += (under - patch) * (rim * (0.42 + 0.2 * actor.makeup) * (1 - 0.5 * blink))[..., None]
