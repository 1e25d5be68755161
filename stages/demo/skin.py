"""What colour a face has at rest: skin tone, blush, freckles, age, beard and brows."""

import cv2
import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, blend, noise, ramp, through, vector
from .skull import nostrils, radius


def paint(actor: Actor, canvas: Canvas, rng: np.random.Generator) -> Array:
    """The colour of the skin without light, float32 RGB (height, width, 3)."""
    skin = vector(actor.skin)
    colour = np.empty((*canvas.shape, 3), np.float32)
    colour[:] = skin
    detail = canvas.detail
    mottle = 0.55 * noise(rng, canvas.shape, 0.2 * detail) + 0.35 * noise(rng, canvas.shape, 0.05 * detail)
    colour *= (1 + 0.014 * mottle)[..., None]
    rosy = skin * vector([0.97, 0.76, 0.74])
    tip = actor.nose_y
    blend(colour, rosy, 0.42 * canvas.pair(0.68, 0.55, 0.26, 0.2) * (0.8 + 0.5 * actor.makeup))
    blend(colour, rosy, 0.45 * canvas.bump(0, tip, 0.2, 0.12))
    blend(colour, rosy, 0.25 * canvas.bump(0, actor.chin_y - 0.2, 0.2, 0.12))
    shade = skin * vector([0.78, 0.68, 0.68])
    blend(colour, shade, (0.35 + 0.25 * actor.age) * canvas.pair(0.46, 0.0, 0.27, 0.16))
    blend(colour, skin * vector([0.42, 0.28, 0.26]), 0.8 * nostrils(actor, canvas))
    under = canvas.bump(0, tip + 0.17, 0.2, 0.05) + 0.6 * canvas.pair(0.29 * actor.nose_wide, tip + 0.07, 0.03, 0.08)
    blend(colour, skin * vector([0.7, 0.55, 0.52]), 0.35 * np.minimum(under, 1))
    if actor.makeup > 0.3:
        shadow = vector(skin * (0.62, 0.5, 0.55))
        blend(colour, shadow, (0.6 * actor.makeup - 0.1) * canvas.pair(0.51, -0.12, 0.22, 0.06))
    _age(actor, canvas, colour)
    if actor.freckles:
        _freckles(actor, canvas, colour, rng)
    if actor.beard != "none" or actor.feminine < 0.3:
        _beard(actor, canvas, colour, rng)
    if actor.feminine < 0.5 and actor.hair_style != "long":
        _sideburns(actor, canvas, colour, rng)
    _brows(actor, canvas, colour, rng)
    return colour


def _age(actor: Actor, canvas: Canvas, colour: Array) -> None:
    """The lines that years leave: they stay when nothing moves."""
    mouth, tip = actor.mouth_y, actor.nose_y
    brow = actor.brow_y
    right = [
        through([(0.27, tip + 0.02), (0.42, tip + 0.18), (0.52, mouth - 0.1)]),
        through([(0.3, 0.2), (0.45, 0.25), (0.62, 0.22)]),
        through([(0.85, 0.02), (0.95, 0.03)]),
        through([(0.84, 0.07), (0.93, 0.13)]),
    ]
    rows = [
        through([(-0.6, y + 0.03), (-0.2, y), (0.2, y + 0.01), (0.62, y + 0.04)]) for y in (brow - 0.28, brow - 0.42)
    ]
    sides = right + [path * vector([-1, 1]) for path in right]
    share = 0.16 + 0.34 * actor.age
    lines = share * canvas.lines(sides, 0.012, 0.02) + 0.3 * max(0, actor.age - 0.2) * canvas.lines(rows, 0.012, 0.016)
    blend(colour, vector(actor.skin) * vector([0.62, 0.47, 0.44]), np.minimum(lines, 1))


def _freckles(actor: Actor, canvas: Canvas, colour: Array, rng: np.random.Generator) -> None:
    spots = np.zeros(canvas.shape, np.uint8)
    for _ in range(int(170 * actor.freckles)):
        place = (rng.normal(0, 0.5), rng.normal(0.42, 0.2))
        size = rng.uniform(0.006, 0.016) * canvas.detail * 16
        cv2.circle(
            spots, tuple(int(v) for v in canvas.fixed(place)), int(size), int(rng.integers(60, 170)), -1, cv2.LINE_AA, 4
        )
    blend(colour, vector(actor.skin) * vector([0.72, 0.54, 0.44]), spots.astype(np.float32) / 255)


def _sideburns(actor: Actor, canvas: Canvas, colour: Array, rng: np.random.Generator) -> None:
    """Short hair before the ears, and on a bald head all around them."""
    x = np.abs(canvas.x) / actor.head_width
    stipple = 0.7 + 0.3 * np.clip(noise(rng, canvas.shape, 0.025 * canvas.detail), -1, 1)
    high = 0.62 if actor.hair_style == "bald" else 1.0
    side = ramp(x + 0.25 * canvas.y, 0.93, 1.03) * ramp(0.22 - canvas.y, 0.0, 0.25) * ramp(canvas.y + high, 0.0, 0.25)
    blend(colour, vector(actor.hair_colour) * 0.85, 0.8 * side * stipple)


def _beard(actor: Actor, canvas: Canvas, colour: Array, rng: np.random.Generator) -> None:
    """Hairs on the lower face; a clean-shaven man keeps a faint shadow."""
    x, y, mouth, tip = np.abs(canvas.x), canvas.y, actor.mouth_y, actor.nose_y
    r = radius(actor, canvas)
    line = mouth - 0.02 - 0.62 * ramp(x, 0.45, 1.15) + 0.12 * ramp(0.5 - x, 0.0, 0.3)
    cheeks = ramp(y - line, 0.0, 0.16)
    upper = (
        ramp(y, tip + 0.17, tip + 0.25) * ramp(0.46 + 0.2 * (y - mouth) - x, 0.0, 0.12) * ramp(mouth + 0.06 - y, 0, 0.1)
    )
    philtrum = 1 - 0.5 * np.exp(-0.5 * (x / 0.035) ** 2)
    patch = np.exp(-0.5 * (x / 0.1) ** 2) * ramp(y, mouth + 0.14, mouth + 0.2)
    chin = ramp(y, mouth + 0.22, mouth + 0.34) * ramp(0.5 - x, 0, 0.15)
    # Bare skin beside the soul patch, as in most beards.
    bare = 1 - 0.8 * canvas.pair(0.2, mouth + 0.24, 0.08, 0.05)
    areas = {
        "none": np.maximum(cheeks, upper) * 0.16,
        "stubble": np.maximum(cheeks * bare, upper * philtrum) * 0.42,
        "moustache": np.maximum(upper * philtrum, cheeks * 0.1),
        "goatee": np.maximum(np.maximum(upper * philtrum, np.maximum(patch, chin)), cheeks * 0.15),
        "full": np.maximum(np.maximum(cheeks * bare, upper * philtrum), patch),
    }
    area = areas[actor.beard] * (r < 1.05)
    area = area * (1 - np.clip(1.1 - np.hypot(x / 0.42, (y - mouth - 0.02) / 0.12), 0, 1))
    hair = vector(actor.hair_colour) * 0.85
    heavy = actor.beard in ("moustache", "goatee", "full")
    stipple = 0.5 + 0.5 * np.clip(noise(rng, canvas.shape, 0.025 * canvas.detail), -1.5, 1.5) / 1.5
    blend(colour, hair, np.clip(area * (0.62 + 0.25 * stipple if heavy else 0.35 + 0.65 * stipple), 0, 1))
    if not heavy:
        return
    inside = np.argwhere(area > 0.45)
    for row, column in inside[rng.integers(0, len(inside), min(1500, len(inside) // 3))]:
        # Beards grow down, moustaches sideways.
        across, lip = float(canvas.x[0, column]), float(canvas.y[row, 0]) < mouth - 0.03
        lean = np.sign(across) * min(1.0, abs(across) * 1.5) * (1.1 if lip else 0.5) + rng.normal(0, 0.3)
        length = rng.uniform(0.04, 0.08) * canvas.detail
        end = (int(column + length * lean), int(row + length * (0.4 if lip else 1.0)))
        tone = hair * rng.uniform(0.6, 1.45)
        cv2.line(colour, (int(column), int(row)), end, tuple(float(v) for v in tone), 1, cv2.LINE_AA)


def brow_line(actor: Actor) -> Array:
    """The middle of the right brow from its inner to its outer end, float32 (24, 2)."""
    y, arch, slant = actor.brow_y, actor.brow_arch, actor.brow_slant
    return through(
        [
            (0.19, y + 0.012 - slant),
            (0.38, y - 0.025 - 0.45 * arch),
            (0.6, y - 0.03 - arch),
            (0.76, y + 0.005 - 0.4 * arch + slant),
            (0.88, y + 0.08 + slant),
        ]
    )


def _brows(actor: Actor, canvas: Canvas, colour: Array, rng: np.random.Generator) -> None:
    line = brow_line(actor)
    along = np.linspace(0, 1, len(line))
    thick = actor.brow_thick * np.interp(along, [0, 0.12, 0.55, 1], [0.7, 1.1, 0.95, 0.25])
    shape = np.concatenate([line - np.stack([0 * thick, thick], 1), (line + np.stack([0 * thick, thick], 1))[::-1]])
    hair = np.minimum(vector(actor.hair_colour) * 0.8 + 6, vector(actor.skin) * 0.6)
    if actor.age > 0.75:
        hair = 0.5 * hair + 0.35 * vector(actor.hair_colour)
    for side in (-1, 1):
        mask = cv2.GaussianBlur(canvas.filled(shape * vector([side, 1])), (0, 0), 0.014 * canvas.detail)
        blend(colour, hair, 0.72 * mask)
        for _ in range(130):
            at = rng.uniform(0, 1) ** 0.9
            spot = np.array([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])])
            half = float(np.interp(at, along, thick))
            spot[1] += rng.uniform(-0.75, 0.95) * half
            # Hairs stand up at the inner end and lie flat towards the temple.
            angle = np.interp(at, [0, 0.25, 1], [-1.2, -0.55, 0.25]) + rng.normal(0, 0.15)
            end = spot + rng.uniform(0.03, 0.065) * np.array(
                [np.cos(angle), np.sin(angle) * (0.6 if at < 0.3 else 1.0)]
            )
            ends = canvas.fixed(np.stack([spot, end]) * (side, 1))
            tone = hair * rng.uniform(0.55, 1.15)
            cv2.line(
                colour,
                tuple(ends[0].tolist()),
                tuple(ends[1].tolist()),
                tuple(float(v) for v in tone),
                1,
                cv2.LINE_AA,
                4,
            )
