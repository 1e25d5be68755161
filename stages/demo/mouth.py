"""How a mouth looks: its lips, teeth and tongue at given units."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, ramp, vector
from .muscles import JAW_DROP


@dataclass(frozen=True)
class Lips:
    """The lines of a mouth in units: corners at (±wide, corner); heights at the middle, y down."""

    wide: float
    corner: float
    upper: float  # lower edge of the upper lip
    lower: float  # upper edge of the lower lip
    thick_upper: float
    thick_lower: float
    square: float  # 0 a soft arch, 1 a squared upper lip as in disgust
    jaw: float
    bare: float  # how much of the lower teeth shows


def lips(actor: Actor, units: Mapping[int, float]) -> Lips:
    """Where the lips are: units 10, 12, 15, 17, 20, 23, 25 and 26 move them."""
    raised, pulled, down, chin = (units.get(unit, 0.0) for unit in (10, 12, 15, 17))
    stretched, tight, parted, open_ = (units.get(unit, 0.0) for unit in (20, 23, 25, 26))
    nose = units.get(9, 0.0)
    jaw = JAW_DROP * open_
    middle = actor.mouth_y
    wide = actor.mouth_wide + 0.115 * pulled + 0.12 * stretched - 0.055 * tight - 0.07 * open_ + 0.015 * down
    corner = middle + actor.mouth_rest - 0.15 * pulled + 0.105 * down + 0.03 * stretched + 0.3 * jaw
    push = 0.05 * chin + 0.02 * tight
    upper = middle - 0.075 * raised - 0.025 * nose - 0.03 * pulled - 0.045 * parted - 0.6 * push
    lower = middle + jaw + 0.07 * parted + 0.025 * pulled * parted + 0.05 * stretched - push + 0.01 * raised
    lower = max(lower, upper)
    thin = 1 - 0.22 * pulled - 0.52 * tight - 0.22 * stretched - 0.1 * open_
    return Lips(
        wide=wide,
        corner=corner,
        upper=upper,
        lower=lower,
        thick_upper=actor.lip_upper * max(0.3, thin - 0.2 * raised),
        thick_lower=actor.lip_lower * max(0.3, thin + 0.25 * chin * (1 - tight)),
        square=min(1.0, 0.9 * raised + 0.5 * stretched),
        jaw=jaw,
        bare=min(1.0, stretched),
    )


@dataclass(frozen=True)
class Drawing:
    """A mouth on its patch of the canvas; all float32 (h, w), colours (h, w, 3)."""

    where: tuple[slice, slice]
    lip: Array  # share of lip colour
    height: Array  # what the lips add to the relief
    shade: Array  # darkening of the lip colour and the skin beside it
    inside: Array  # share of the open mouth
    colour: Array  # what is seen inside


def draw(actor: Actor, canvas: Canvas, shape: Lips) -> Drawing:
    """Draw the mouth on its patch."""
    reach = shape.wide + 0.16
    where = canvas.box(-reach, actor.mouth_y - 0.42, reach, shape.lower + shape.thick_lower + 0.2)
    x, y = canvas.x[:, where[1]], canvas.y[where[0]]
    pixel = 1.0 / canvas.detail
    t = np.clip(np.abs(x) / shape.wide, 0, 1)
    arch = 1 - t ** (2 + 1.6 * shape.square)
    # An open mouth is round at its corners.
    gape = min(1.0, (shape.lower - shape.upper) / 0.3)
    round_ = (1 - t**2) ** (1 - 0.4 * gape)
    upper = shape.corner + (shape.upper - shape.corner) * (arch * (1 - gape) + np.maximum(arch, round_) * gape)
    lower = shape.corner + (shape.lower - shape.corner) * round_
    lower = np.maximum(lower, upper)
    bow = 1 - 0.3 * np.exp(-0.5 * (x / 0.05) ** 2) + 0.12 * np.exp(-0.5 * ((np.abs(x) - 0.12) / 0.06) ** 2)
    top = upper - shape.thick_upper * bow * (1 - t**2.4) ** 0.9
    bottom = lower + shape.thick_lower * (1 - t**2.3) ** 0.8
    across = np.clip((shape.wide + 0.01 - np.abs(x)) / (1.5 * pixel), 0, 1)

    def soft(distance: Array, width: float = 1.3) -> Array:
        return np.clip(distance / (width * pixel) + 0.5, 0, 1)

    inside = soft(y - upper) * soft(lower - y) * across * np.clip((lower - upper) / (2 * pixel), 0, 1)
    upper_lip = soft(y - top, 2.2) * soft(upper - y) * across
    lower_lip = soft(bottom - y, 2.6) * soft(y - lower) * across
    lip = np.clip(upper_lip + lower_lip, 0, 1) * (1 - inside)

    def mound(low: Array, high: Array) -> Array:
        part = np.clip((y - low) / np.maximum(high - low, 1e-3), 0, 1)
        return np.sqrt(part * (1 - part)) * 2 * ((y > low) & (y < high)) * np.minimum(1, (high - low) / 0.05)

    height = 0.055 * mound(top, upper) + 0.08 * mound(lower, bottom)
    seam = np.exp(-0.5 * ((y - 0.5 * (upper + lower)) / (0.013 + 0.5 * (lower - upper))) ** 2)
    seam = seam * np.clip((shape.wide + 0.035 - np.abs(x)) / 0.05, 0, 1) * np.clip(1.4 - (lower - upper) / 0.06, 0.0, 1)
    corner = np.exp(-0.5 * (((np.abs(x) - shape.wide) / 0.035) ** 2 + ((y - shape.corner) / 0.03) ** 2))
    below = np.exp(-0.5 * ((y - bottom - 0.035) / 0.03) ** 2) * (1 - t**2)
    shade = np.clip(0.72 * seam + 0.5 * corner + 0.2 * below + 0.2 * upper_lip, 0, 0.92)
    shape_ = (y.shape[0], x.shape[1])
    return Drawing(
        where=where,
        lip=np.broadcast_to(lip, shape_).astype(np.float32),
        height=height.astype(np.float32),
        shade=shade.astype(np.float32),
        inside=inside.astype(np.float32),
        colour=_inside(actor, shape, x, y, upper, lower, pixel).astype(np.float32),
    )


def _inside(actor: Actor, shape: Lips, x: Array, y: Array, upper: Array, lower: Array, pixel: float) -> Array:
    """The colours of the open mouth, (h, w, 3): dark throat, tongue, lower and upper teeth."""
    away = np.abs(x)
    colour = np.empty((y.shape[0], x.shape[1], 3), np.float32)
    colour[:] = (58, 16, 18)
    middle = actor.mouth_y
    tongue_top = middle + 0.14 + 0.72 * shape.jaw
    tongue = np.clip((1.1 - np.hypot(x / 0.3, (y - tongue_top - 0.2) / 0.19)) * 6, 0, 1)
    groove = 1 - 0.25 * np.exp(-0.5 * (x / 0.02) ** 2)
    colour += (vector([178, 82, 82]) - colour) * (tongue * groove * 0.85)[..., None]
    white = vector([240, 234, 222]) * (1 - 0.1 * actor.age)

    def teeth(edges: list[float], rows: Array) -> Array:
        gaps = np.zeros_like(x)
        for edge in edges:
            gaps = np.maximum(gaps, np.exp(-0.5 * ((away - edge) / (0.7 * pixel)) ** 2))
        return rows * np.clip((edges[-1] - away) / 0.03, 0, 1) * (1 - 0.24 * gaps)

    edge = middle + 0.055 - 0.007 * np.cos(away * 2 * np.pi / 0.13) - 0.12 * away**2
    upper_teeth = teeth([0.0, 0.13, 0.23, 0.33, 0.42], np.clip((edge - y) / (1.3 * pixel) + 0.5, 0, 1))
    floor = middle + 0.075 + 0.93 * shape.jaw + 0.1 * away**2
    lower_teeth = teeth([0.0, 0.085, 0.175, 0.27, 0.35], np.clip((y - floor) / (1.3 * pixel) + 0.5, 0, 1))
    colour += (white * 0.86 - colour) * (lower_teeth * (0.35 + 0.55 * shape.bare))[..., None]
    colour += (white - colour) * upper_teeth[..., None]
    # The lips throw a shadow, and the corners lie deep.
    light = (0.62 + 0.38 * ramp(y - upper, 0.0, 0.07)) * (1 - 0.55 * ramp(away, 0.5 * shape.wide, 1.02 * shape.wide))
    light = light * (0.75 + 0.25 * ramp(lower - y, 0.0, 0.05))
    return colour * light[..., None]
