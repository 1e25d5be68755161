"""What hair an actor wears: the sheets and curls of every style, behind and in front of the face."""

from collections.abc import Callable

import numpy as np

from .actors import Actor
from .canvas import Array, mirrored, through, vector
from .strands import Curls, Sheet, scatter

Parts = tuple[list[Sheet | Curls], list[Sheet | Curls]]  # behind the head, in front of it
Point = tuple[float, float]


def style(actor: Actor, rng: np.random.Generator) -> Parts:
    """The actor's hair."""
    return STYLES[actor.hair_style](actor, rng)


def hairline(actor: Actor, grow: float = 0.0) -> list[Point]:
    """Where hair begins, from the left ear over the forehead to the right ear."""
    up, wide = actor.hairline - grow, actor.head_width
    soft = 0.1 * (1 - actor.feminine)
    right = [
        (0.34, -1.04 + up),
        (0.66, -0.96 + up - soft),
        (0.86 * wide, -0.72 + up - 0.3 * soft),
        (0.98 * wide, -0.38),
        (1.06 * wide, -0.1),
        (1.07 * wide, 0.16),
    ]
    return [(-x, y) for x, y in reversed(right)] + [(0.0, -1.05 + up)] + right


def crown(actor: Actor, thick: float, top: float = 0.0) -> list[Point]:
    """The outline of hair `thick` units deep and `top` more above it, point by point as the hairline."""
    wide = actor.head_width
    right = [
        (0.48, -1.64 - thick - top),
        (0.88 + 0.4 * thick, -1.42 - 0.8 * thick - 0.8 * top),
        (1.1 * wide + 0.8 * thick, -1.0 - 0.4 * thick - 0.3 * top),
        (1.17 * wide + thick, -0.5),
        (1.18 * wide + 0.8 * thick, -0.12),
        (1.15 * wide + 0.5 * thick, 0.2),
    ]
    return [(-x, y) for x, y in reversed(right)] + [(0.0, -1.69 - thick - top)] + right


def _fan(actor: Actor, thick: float, top: float, lean: float, bend: float) -> list[list[Point]]:
    """Guides from the hairline outwards to the crown, tips shifted sideways by `lean`."""
    guides = []
    for (x0, y0), (x1, y1) in zip(hairline(actor), crown(actor, thick, top), strict=True):
        if y0 > 0:  # the short hair before the ears is painted on the skin
            continue
        high = max(0.0, min(1.0, (-y0 - 0.3) / 0.6))
        tip = (x1 + lean * high, y1)
        middle = ((x0 + tip[0]) / 2 - lean * bend * high, (y0 + tip[1]) / 2 - bend * 0.25 * high)
        guides.append([(x0, y0), middle, tip])
    return guides


def _crop(actor: Actor, rng: np.random.Generator) -> Parts:
    thick = 0.05 * actor.hair_volume
    front = Sheet(_fan(actor, thick, 0.03, 0.1 * actor.hair_part, 0.2), 900, frizz=0.03, ragged=0.35, dark=0.9)
    return [], [front]


def _quiff(actor: Actor, rng: np.random.Generator) -> Parts:
    side = np.sign(actor.hair_part)
    top = 0.2 * actor.hair_volume
    base = Sheet(_fan(actor, 0.06, 0.05, 0.0, 0.0), 420, frizz=0.02, ragged=0.2, dark=0.85)
    crest = []
    for x in np.linspace(-0.82, 0.82, 7):
        root = -1.02 + actor.hairline + 0.12 * x * x
        tip_y = -1.66 - top + 0.42 * x * x - 0.1 * side * x
        crest.append([(x, root), (x * 1.05 - 0.1 * side, root - 0.35 - top * 0.6), (x * 1.12 + 0.25 * side, tip_y)])
    return [], [base, Sheet(crest, 520, frizz=0.018, ragged=0.12)]


def _part(actor: Actor, rng: np.random.Generator) -> Parts:
    side, x0, wide, up = np.sign(actor.hair_part), abs(actor.hair_part) + 0.1, actor.head_width, actor.hairline
    thick = 0.1 * actor.hair_volume
    base = Sheet(_fan(actor, 0.02, -0.08, 0.0, 0.0), 360, frizz=0.015, ragged=0.2, dark=0.85)
    sweep = [
        [(x0, -1.03 + up), (0.1, -1.16 + up), (-0.5, -1.04 + up), (-0.86 * wide, -0.78), (-1.06 * wide, -0.42)],
        [(x0, -1.2 + up), (0.0, -1.42 + up), (-0.66, -1.28), (-1.04 * wide, -0.86), (-1.17 * wide, -0.4)],
        [(x0, -1.45), (0.0, -1.72 - thick), (-0.7, -1.58 - thick), (-1.14 * wide - thick, -1.05), (-1.24 * wide, -0.4)],
    ]
    short = [
        [(x0, -1.03 + up), (0.7, -0.98 + up), (0.95 * wide, -0.62), (1.07 * wide, -0.3)],
        [(x0, -1.5), (0.85, -1.5 - thick), (1.16 * wide + 0.5 * thick, -0.98), (1.2 * wide, -0.3)],
    ]
    guides = [[(side * x, y) for x, y in guide] for guide in sweep]
    others = [[(side * x, y) for x, y in guide] for guide in short]
    return [], [base, Sheet(others, 220, dark=0.9), Sheet(guides, 420, ragged=0.08)]


def _messy(actor: Actor, rng: np.random.Generator) -> Parts:
    base = Sheet(_fan(actor, 0.09, 0.08, 0.1, 0.3), 500, frizz=0.05, ragged=0.3, dark=0.75)
    tufts: list[Sheet | Curls] = []
    for x in rng.permutation(np.linspace(-0.95, 0.95, 15)):
        root = (x * 0.9, -1.5 + 0.35 * x * x + rng.uniform(-0.1, 0.1))
        lean = rng.uniform(-0.25, 0.25) + 0.15 * np.sign(actor.hair_part)
        end_y = -0.86 + actor.hairline + 0.3 * x * x + rng.uniform(-0.06, 0.1)
        left = [root, (x + lean * 0.4 - 0.1, -1.25 + 0.3 * x * x), (x + lean, end_y)]
        right = [(root[0] + 0.22, root[1]), (x + lean * 0.4 + 0.16, -1.25 + 0.3 * x * x), (x + lean + 0.04, end_y)]
        tufts.append(Sheet([left, right], 46, ragged=0.2, dark=rng.uniform(0.85, 1.05)))
    return [], [base, *tufts]


def _curtain(
    actor: Actor, length: float, wave: float, swell: float, face: float, strands: int = 420
) -> list[Sheet | Curls]:
    """Two sheets from the parting down both sides of the face to y = length."""
    sheets: list[Sheet | Curls] = []
    part, wide, up = actor.hair_part * 0.7, actor.head_width, actor.hairline
    for side in (-1, 1):
        x0 = side * part
        inner = [
            (x0 - 0.02, -1.07 + up),
            (x0 + 0.28 * (1 - x0), -1.1 + up),
            (0.82 * wide, -0.86 + up),
            (face * 0.98, -0.3),
            (face, 0.4),
            (face - 0.03 + 0.5 * swell, max(1.0, 0.5 * length)),
            (face - 0.12 + swell, length),
        ]
        outer = [
            (x0 - 0.02, -1.62),
            (x0 + 0.4 * (1 - x0), -1.8 - 0.05 * actor.hair_volume),
            (1.08 * wide, -1.45 - 0.05 * actor.hair_volume),
            (1.28 * wide + 0.06 * actor.hair_volume, -0.75),
            (1.32 * wide + 0.5 * swell, 0.2),
            (1.33 * wide + 0.8 * swell, max(0.9, 0.5 * length)),
            (1.2 * wide + swell, length - 0.22),
        ]
        guides = [[(side * x, y) for x, y in guide] for guide in (inner, outer)]
        sheets.append(Sheet(guides, strands, wave=wave, waves=3.0, ragged=0.05))
    return sheets


def _behind(actor: Actor, length: float, spread: float, wave: float = 0.0) -> list[Sheet | Curls]:
    wide = actor.head_width
    guides = [
        [(x * 0.8 * wide, -1.4 + 0.3 * x * x), (x * 1.25 * wide, -0.5), (x * 1.26 * wide, 0.6), (x * spread, length)]
        for x in np.linspace(-1, 1, 7)
    ]
    return [Sheet(guides, 420, wave=wave, ragged=0.06, dark=0.62)]


def _long(actor: Actor, rng: np.random.Generator) -> Parts:
    length = 0.9 * actor.hair_length + 2.0
    if actor.feminine < 0.4:
        length = 1.55
    return _behind(actor, length, 1.3), _curtain(actor, length, 0.0, 0.06, 1.03 * actor.head_width)


def _waves(actor: Actor, rng: np.random.Generator) -> Parts:
    length = 0.9 * actor.hair_length + 1.95
    front = _curtain(actor, length, 0.055, 0.14, 1.05 * actor.head_width, 520)
    return _behind(actor, length, 1.5, 0.05), front


def _bob(actor: Actor, rng: np.random.Generator) -> Parts:
    length = 0.85 + 0.35 * actor.hair_length
    return _behind(actor, length, 1.18), _curtain(actor, length, 0.012, -0.1, 1.0 * actor.head_width)


def _fringe(actor: Actor, rng: np.random.Generator) -> Parts:
    length = 1.3 * actor.hair_length + 0.3
    low = actor.brow_y - 0.13
    guides = [
        [(x * 0.45, -1.6), (x * 0.95, -1.28 + 0.1 * x * x), (x * 1.02, low + 0.02 + 0.16 * x * x)]
        for x in np.linspace(-0.98, 0.98, 7)
    ]
    front = [*_curtain(actor, length, 0.0, 0.0, 1.0 * actor.head_width), Sheet(guides, 360, ragged=0.05)]
    return _behind(actor, length, 1.24), front


def _pixie(actor: Actor, rng: np.random.Generator) -> Parts:
    behind, front = _part(actor, rng)
    side, low = np.sign(actor.hair_part), actor.brow_y - 0.12
    sweep = [
        [(side * 0.5, -1.5), (side * 0.1, -1.3), (-side * x, low - 0.32 + 0.4 * x)] for x in (0.0, 0.35, 0.7, 0.98)
    ]
    return behind, [*front, Sheet(sweep, 240, ragged=0.1)]


def _bun(actor: Actor, rng: np.random.Generator) -> Parts:
    size = 0.36 + 0.08 * actor.hair_volume
    turn = np.linspace(0, 2 * np.pi, 9)
    knot = [
        [
            (0.5 * size * np.cos(a), -1.95 + 0.4 * size * np.sin(a)),
            (size * np.cos(a + 0.9), -1.92 + 0.8 * size * np.sin(a + 0.9)),
        ]
        for a in turn
    ]
    guides = []
    for (x0, y0), (x1, y1) in zip(hairline(actor), crown(actor, 0.03), strict=True):
        if y0 < 0:
            guides.append([(x0, y0), (0.5 * (x0 + x1), 0.5 * (y0 + y1) - 0.05), (x1 * 0.97, y1 - 0.04)])
    disc = Curls(np.array([[0.0, -1.94, 0.9 * size]]), dark=0.8)
    return [disc, Sheet(knot, 220, frizz=0.02, dark=0.95)], [Sheet(guides, 620, ragged=0.02, frizz=0.008, dark=0.92)]


def _curls(actor: Actor, rng: np.random.Generator) -> Parts:
    return _mop(actor, rng, 0.16 * actor.hair_volume, 0.085, 420)


def _afro(actor: Actor, rng: np.random.Generator) -> Parts:
    return _mop(actor, rng, (0.42 if actor.feminine > 0.5 else 0.16) * actor.hair_volume, 0.055, 1100)


def _mop(actor: Actor, rng: np.random.Generator, thick: float, size: float, count: int) -> Parts:
    inner, outer = through(hairline(actor, -0.02), 60), through(crown(actor, thick, 0.3 * thick), 60)
    behind = scatter(rng, inner, outer + vector([0, 0.1]), count // 3, size * 1.2)
    front = scatter(rng, inner, outer, count, size)
    ring = np.concatenate([inner, outer[::-1]])
    return [Curls(behind, dark=0.6)], [Curls(front, ring)]


def _bald(actor: Actor, rng: np.random.Generator) -> Parts:
    return [], []


def _scarf(actor: Actor, rng: np.random.Generator) -> Parts:
    return [], []


STYLES: dict[str, Callable[[Actor, np.random.Generator], Parts]] = {
    "part": _part,
    "crop": _crop,
    "quiff": _quiff,
    "bald": _bald,
    "curls": _curls,
    "messy": _messy,
    "long": _long,
    "bob": _bob,
    "bun": _bun,
    "afro": _afro,
    "fringe": _fringe,
    "waves": _waves,
    "scarf": _scarf,
    "pixie": _pixie,
}


def scarf_outline(actor: Actor) -> tuple[Array, Array]:
    """A headscarf's opening for the face and its outer edge, closed outlines (n, 2)."""
    wide, chin = actor.head_width, actor.chin_y
    opening = [
        (0.0, -1.08),
        (0.5, -1.02),
        (0.86 * wide, -0.7),
        (1.0 * wide, -0.2),
        (1.0 * wide, 0.5),
        (0.9 * wide, 1.05),
        (0.66 * wide, chin - 0.2),
        (0.35, chin + 0.06),
        (0.0, chin + 0.1),
    ]
    edge = [
        (0.0, -1.82),
        (0.6, -1.72),
        (1.08 * wide, -1.3),
        (1.32 * wide, -0.6),
        (1.36 * wide, 0.2),
        (1.28 * wide, 0.95),
        (1.12 * wide, 1.6),
        (1.2, 2.2),
        (1.3, 2.6),
    ]
    closed = []
    for points in (opening, edge):
        path = through(points, 48)
        closed.append(np.concatenate([path, mirrored(path)[::-1]]))
    return closed[0], closed[1]
