"""What moves in a face: the FACS action units, and which of them each of the six expressions is made of."""

from collections.abc import Mapping

LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")

# Units that the renderer knows; a unit's intensity is 0 (at rest) to 1 (strong), a little more is allowed.
UNITS: dict[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}

PROTOTYPES: dict[str, tuple[int, ...]] = {
    "anger": (4, 5, 7, 23),
    "disgust": (9, 10, 15, 17),
    "fear": (1, 2, 4, 5, 20, 26),
    "happiness": (6, 12, 25),
    "sadness": (1, 4, 15, 17),
    "surprise": (1, 2, 5, 26),
}

# Full intensity of the expression is not full intensity of every unit: fear opens the jaw less than surprise does.
WEIGHTS: dict[str, dict[int, float]] = {
    "anger": {7: 0.8},
    "disgust": {15: 0.55, 17: 0.5},
    "fear": {1: 0.95, 2: 0.6, 4: 0.75, 26: 0.45},
    "happiness": {25: 0.8},
    "sadness": {4: 0.75, 17: 0.5},
    "surprise": {},
}


def pose(label: str, intensity: float, gains: Mapping[int, float] | None = None) -> dict[int, float]:
    """The units of one expression at `intensity` (0..1), each multiplied by its gain (1 where none is given)."""
    gains = gains or {}
    weights = WEIGHTS[label]
    return {unit: intensity * weights.get(unit, 1.0) * gains.get(unit, 1.0) for unit in PROTOTYPES[label]}


def foreign(label: str) -> tuple[int, ...]:
    """The units that belong to other expressions but not to this one."""
    own = set(PROTOTYPES[label])
    return tuple(sorted({unit for units in PROTOTYPES.values() for unit in units} - own))


def mix(*parts: Mapping[int, float]) -> dict[int, float]:
    """Units acting together: strengths add up, to 1.15 at most."""
    total: dict[int, float] = {}
    for part in parts:
        for unit, strength in part.items():
            total[unit] = min(1.15, total.get(unit, 0.0) + strength)
    return total
