"""Which pictures an encoder learns from: single frames of actors who play in no video."""

from dataclasses import dataclass

import numpy as np

from .actors import cast
from .canvas import Array
from .motion import PLACES, gains_of
from .pose import View
from .render import render
from .units import LABELS, UNITS, foreign, mix, pose

ENCODER_CAST = 10_000
PER_ACTOR = 8


@dataclass(frozen=True)
class Stills:
    """Pictures of actors and what is true of them.

    images uint8 RGB (N, size, size, 3); landmarks float32 (N, 5, 2) in pixels, as `render` gives them; intensity float32
    (N, 6), 0..1, of each expression in the order of LABELS; units float32 (N, 15), 0..1.15, of each action unit in the
    order of UNITS.
    """

    images: Array
    landmarks: Array
    intensity: Array
    units: Array


def stills(count: int, seed: int, size: int) -> Stills:
    """Draw `count` pictures of actors numbered ENCODER_CAST and up; the same arguments give the same pictures."""
    images = np.zeros((count, size, size, 3), np.uint8)
    landmarks = np.zeros((count, 5, 2), np.float32)
    intensity = np.zeros((count, len(LABELS)), np.float32)
    units = np.zeros((count, len(UNITS)), np.float32)
    for start in range(0, count, PER_ACTOR):  # drawing the actor is what takes time
        rng = np.random.default_rng([seed, 77, start // PER_ACTOR])
        actor, lamp = cast(ENCODER_CAST + int(rng.integers(0, 1_000_000))), float(rng.uniform(-50, 50))
        for index in range(start, min(start + PER_ACTOR, count)):
            moved, intensity[index] = _expression(rng)
            units[index] = [moved.get(unit, 0.0) for unit in UNITS]
            images[index], landmarks[index] = render(actor, moved, _view(rng, lamp), size)
    return Stills(images, landmarks, intensity, units)


def _expression(rng: np.random.Generator) -> tuple[dict[int, float], Array]:
    intensity = np.zeros(len(LABELS), np.float32)
    parts: list[dict[int, float]] = []
    main, second = rng.permutation(len(LABELS))[:2]
    if rng.random() < 0.85:
        strength = float(rng.uniform(0.05, 1.0) if rng.random() < 0.5 else rng.uniform(0.55, 1.1))
        intensity[main] = min(1.0, strength)
        parts.append(pose(LABELS[main], strength, gains_of(LABELS[main], rng)))
        if rng.random() < 0.15:
            intensity[second] = strength * rng.uniform(0.1, 0.4)
            parts.append(pose(LABELS[second], float(intensity[second])))
    if rng.random() < 0.5:
        chosen = rng.choice(foreign(LABELS[main]), size=int(rng.integers(1, 3)), replace=False)
        parts.append({int(unit): float(rng.uniform(0.1, 0.7)) for unit in chosen})
    return mix(*parts), intensity


def _view(rng: np.random.Generator, lamp: float) -> View:
    blink = float(rng.uniform(0, 1)) if rng.random() < 0.1 else 0.0
    return View(
        roll=float(rng.normal(0, 5)),
        yaw=float(np.clip(rng.normal(0, 9), -22, 22)),
        pitch=float(np.clip(rng.normal(0, 5), -13, 13)),
        scale=float(rng.uniform(0.88, 1.1)),
        shift=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.03, 0.05))),
        brightness=float(rng.uniform(0.75, 1.25)),
        contrast=float(rng.uniform(0.8, 1.15)),
        warmth=float(rng.normal(0, 0.7)),
        light=lamp,
        blink=blink,
        gaze=(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.5, 0.5))),
        noise=float(rng.uniform(0.5, 5)),
        grain=int(rng.integers(0, 4000)),
        place=int(rng.integers(0, PLACES)),
    )
