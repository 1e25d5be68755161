"""Performances: action units and camera of every frame, from neutral through onset, apex and offset, with distractor units."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .action_units import (
    EXPRESSIONS,
    MAX_INTENSITY,
    NEUTRAL,
    PROTOTYPES,
    expression_units,
    gaze_units,
    non_prototype_units,
)
from .canvas import Array
from .render import NUM_BACKGROUNDS, Camera

MIN_FRAMES = 24
NEUTRAL_VARIATION = 0.5  # the greatest intensity of a unit in a resting face
VIDEO_SPREAD = 0.65  # how far apart the cameras of videos are, as a fraction of those of still images


@dataclass(frozen=True)
class Performance:
    """Action units, camera and intensity of every frame of a video, and its apex: the frame of greatest intensity.

    ``intensity`` of the expression is float32 (num_frames,), 0..1.1. A neutral performance has intensity 0 and no apex.
    """

    label: str
    units: tuple[Mapping[int, float], ...]
    cameras: tuple[Camera, ...]
    apex: int | None
    intensity: Array


def sample_performance(label: str, rng: np.random.Generator, num_frames: int) -> Performance:
    """Draw a performance of an expression, or of a neutral face.

    The apex lies within 25-75 % of the video and is held for 4-10 frames; the whole event takes about a third of the
    video or less. Outside it, and in all of a neutral performance, one or two units of (other) expressions flicker. Raises
    ValueError below MIN_FRAMES.
    """
    if num_frames < MIN_FRAMES:
        raise ValueError(f"a performance needs at least {MIN_FRAMES} frames, not {num_frames}")
    intensity, apex, start, stop = _no_event(num_frames) if label == NEUTRAL else _event(rng, num_frames)
    unit_curves = np.zeros((num_frames, 65))  # a column for each number of a unit
    for unit, strength in expression_units(label, 1.0, sample_gains(label, rng)).items():
        unit_curves[:, unit] += strength * intensity
    # resting faces and expressions are not pure: add weak units of other expressions
    resting = rng.choice([1, 2, 4, 6, 7, 10, 12, 15, 17, 20, 23], size=4, replace=False)
    unit_curves[:, resting] += rng.uniform(0, NEUTRAL_VARIATION, 4)
    if rng.random() < 0.5:
        unit_curves[:, rng.choice(non_prototype_units(label))] += rng.uniform(0.2, 0.5) * intensity
    _add_distractors(unit_curves, label, rng, start, stop)
    _add_eyes(unit_curves, rng, start, stop)
    unit_curves = np.minimum(unit_curves, MAX_INTENSITY)
    units = tuple({int(unit): float(frame[unit]) for unit in np.flatnonzero(frame)} for frame in unit_curves)
    return Performance(label, units, _cameras(rng, num_frames), apex, intensity)


def sample_gains(label: str, rng: np.random.Generator) -> dict[int, float]:
    """Draw how strongly each unit of the expression is used, about 1; now and then one of them hardly moves."""
    gains = {unit: float(rng.uniform(0.7, 1.2)) for unit in PROTOTYPES[label]}
    if gains and rng.random() < 0.4:
        gains[int(rng.choice(list(gains)))] *= 0.4
    return gains


def sample_camera(rng: np.random.Generator, spread: float = 1.0) -> Camera:
    """Draw head pose, camera and light; a smaller ``spread`` keeps them closer to a frontal view in plain light."""
    shift = rng.uniform(-0.05, 0.05, 2).tolist()
    return Camera(
        roll=float(rng.normal(0, 5 * spread)),
        yaw=float(np.clip(rng.normal(0, 9 * spread), -22, 22)),
        pitch=float(np.clip(rng.normal(0, 5 * spread), -13, 13)),
        scale=1 + float(rng.uniform(-0.11, 0.11)) * spread,
        shift=(shift[0], shift[1]),
        brightness=1 + float(rng.uniform(-0.25, 0.25)) * spread,
        contrast=1 + float(rng.uniform(-0.2, 0.15)) * spread,
        warmth=float(rng.normal(0, 0.7 * spread)),
        light_angle=float(rng.uniform(-50, 50)),
        noise_std=0.5 + float(rng.uniform(0, 4.5)) * spread,
        noise_index=int(rng.integers(0, 4000)),
        background=int(rng.integers(0, NUM_BACKGROUNDS)),
    )


def _event(rng: np.random.Generator, num_frames: int) -> tuple[Array, int, int, int]:
    """Draw the intensity (num_frames,), the apex, and the frames at which the event starts and stops."""
    hold, onset, offset = float(rng.integers(4, 11)), rng.uniform(5, 9), rng.uniform(6, 11)
    available = num_frames / 3 - hold
    if onset + offset > available:
        onset, offset = (part * max(available, 4.0) / (onset + offset) for part in (onset, offset))
    apex = int(rng.integers(int(np.ceil(0.27 * num_frames)), int(0.73 * num_frames) + 1))
    lead, peak = hold * rng.uniform(0.3, 0.7), 0.7 + 0.4 * rng.beta(1.2, 2.0)
    time = np.arange(num_frames) - apex
    rise = np.clip((time + lead + onset) / onset, 0, 1)
    fall = np.clip((hold - lead + offset - time) / offset, 0, 1)
    smooth = rise * rise * (3 - 2 * rise) * fall * fall * (3 - 2 * fall)
    # a held expression is never quite still: it is strongest at one frame
    sway = 1 - 0.06 * np.minimum(1, (time / hold) ** 2) - 0.01 * np.minimum(1, np.abs(time))
    start, stop = int(apex - lead - onset), int(np.ceil(apex + hold - lead + offset))
    return (peak * smooth * sway).astype(np.float32), apex, start, stop


def _no_event(num_frames: int) -> tuple[Array, None, int, int]:
    """Return the intensity (num_frames,) of a neutral face, no apex, and start and stop far after the last frame."""
    return np.zeros(num_frames, np.float32), None, 2 * num_frames, 2 * num_frames


def _add_distractors(unit_curves: Array, label: str, rng: np.random.Generator, start: int, stop: int) -> None:
    """Add brief activations of units of other expressions, and a mouth about to speak, all outside the event."""
    time, others = np.arange(len(unit_curves)), non_prototype_units(label)
    outside = (time < start) | (time > stop)
    for _ in range(int(rng.integers(6, 11))):
        width, middle = rng.uniform(3, 8), rng.uniform(0, len(unit_curves))
        if start - width < middle < stop + width:
            continue
        # often two units that belong together: for a moment it looks like another expression
        related = [unit for unit in PROTOTYPES[EXPRESSIONS[int(rng.integers(0, len(EXPRESSIONS)))]] if unit in others]
        pool = related if len(related) > 1 and rng.random() < 0.6 else others
        bell = rng.uniform(0.3, 0.8) * (0.5 + 0.5 * np.cos(np.pi * np.clip((time - middle) / width, -1, 1)))
        for unit in rng.choice(pool, size=int(rng.integers(1, 3)), replace=False):
            unit_curves[:, unit] += bell * outside
    if rng.random() < 0.5:
        begin, length = rng.integers(0, len(unit_curves)), rng.integers(8, 18)
        speech = 0.5 * np.maximum(0, np.sin((time - begin) * 1.1)) * (time >= begin) * (time < begin + length) * outside
        unit_curves[:, 25] += speech
        unit_curves[:, 26] += 0.4 * speech


def _add_eyes(unit_curves: Array, rng: np.random.Generator, start: int, stop: int) -> None:
    """Add blinks, none during the event, which would hide the eyes at the apex; and a gaze that jumps."""
    time, at = np.arange(len(unit_curves)), rng.uniform(0, 40)
    while at < len(unit_curves):
        if not start - 4 < at < stop + 2:
            unit_curves[:, 45] += np.clip(np.minimum(1 + (time - at) / 2.2, 1.25 - (time - at) / 3.2), 0, 1)
        at += rng.uniform(35, 90)
    mean = rng.uniform(-0.2, 0.2, 2)
    for first in range(0, len(unit_curves), 12):
        for unit, strength in gaze_units(*np.clip(mean + rng.normal(0, 0.25, 2), -1, 1).tolist()).items():
            unit_curves[first : first + 12, unit] = strength


def _cameras(rng: np.random.Generator, num_frames: int) -> tuple[Camera, ...]:
    """Draw a slow, smooth movement of the head and the light around a pose."""
    base, time = sample_camera(rng, VIDEO_SPREAD), np.arange(num_frames)

    def smooth_drift(amplitude: float) -> Array:
        slow, fast, (first, second) = rng.uniform(50, 110), rng.uniform(20, 40), rng.uniform(0, 2 * np.pi, 2)
        wave = 0.7 * np.sin(2 * np.pi * time / slow + first) + 0.3 * np.sin(2 * np.pi * time / fast + second)
        return amplitude * wave

    yaw = np.clip(base.yaw + smooth_drift(rng.uniform(1, 5)), -20, 20)
    pitch = np.clip(base.pitch + smooth_drift(rng.uniform(0.5, 3)), -12, 12)
    roll = np.clip(base.roll + smooth_drift(rng.uniform(0.5, 3)), -12, 12)
    scale = base.scale + smooth_drift(0.015)
    brightness = base.brightness + smooth_drift(0.02) + rng.normal(0, 0.006, num_frames)
    across, down = base.shift[0] + smooth_drift(0.012), base.shift[1] + smooth_drift(0.008)
    curves = np.stack([across, down, yaw, pitch, roll, scale, brightness], -1).tolist()
    return tuple(
        replace(base, shift=(x, y), yaw=a, pitch=b, roll=c, scale=d, brightness=e, noise_index=frame)
        for frame, (x, y, a, b, c, d, e) in enumerate(curves)
    )
