"""How a performance runs over time: neutral, onset, a short apex, offset, and all that distracts from it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .canvas import Array
from .pose import View
from .units import LABELS, PROTOTYPES, foreign, mix, pose

PLACES = 60
MOOD = 0.5


@dataclass(frozen=True)
class Performance:
    """One video's script: units, view and intensity of every frame, and the apex, the frame of greatest intensity."""

    label: str
    units: tuple[Mapping[int, float], ...]
    views: tuple[View, ...]
    apex: int
    intensity: Array  # float32 (frames,), 0..1.1


def perform(label: str, rng: np.random.Generator, frames: int) -> Performance:
    """Make up a performance of an expression.

    The apex lies within 25-75 % of the video and is held for 4-10 frames; the whole event takes about a third of the
    video or less. Outside it, single units of other expressions flicker.
    """
    if frames < 24:
        raise ValueError(f"a performance needs at least 24 frames, not {frames}")
    intensity, apex, start, stop = _event(rng, frames)
    gains = gains_of(label, rng)
    rest = _mood(rng)
    flickers = _flickers(label, rng, frames, start, stop)
    stranger = _stranger(label, rng)
    units = tuple(
        mix(rest, pose(label, strength, gains), {unit: share * strength for unit, share in stranger.items()}, flicker)
        for strength, flicker in zip(intensity.tolist(), flickers, strict=True)
    )
    return Performance(label, units, _views(rng, frames, start, stop), apex, intensity)


def gains_of(label: str, rng: np.random.Generator) -> dict[int, float]:
    """How strongly this performer uses each unit of the expression; now and then one of them hardly moves."""
    gains = {unit: float(rng.uniform(0.7, 1.2)) for unit in PROTOTYPES[label]}
    if rng.random() < 0.4:
        weak = PROTOTYPES[label][int(rng.integers(0, len(PROTOTYPES[label])))]
        gains[weak] *= 0.4
    return gains


def _stranger(label: str, rng: np.random.Generator) -> dict[int, float]:
    """Expressions are seldom pure: sometimes a unit of another comes along with the event."""
    chosen = rng.choice(foreign(label), size=int(rng.integers(0, 2)), replace=False)
    return {int(unit): float(rng.uniform(0.2, 0.5)) for unit in chosen}


def _event(rng: np.random.Generator, frames: int) -> tuple[Array, int, int, int]:
    """The intensity (frames,), the apex, and where the event starts and stops."""
    hold, onset, offset = float(rng.integers(4, 11)), rng.uniform(5, 9), rng.uniform(6, 11)
    room = frames / 3 - hold
    if onset + offset > room:
        onset, offset = (part * max(room, 4.0) / (onset + offset) for part in (onset, offset))
    apex = int(rng.integers(int(np.ceil(0.27 * frames)), int(0.73 * frames) + 1))
    lead = hold * rng.uniform(0.3, 0.7)
    peak = 0.7 + 0.4 * rng.beta(1.2, 2.0)
    time = np.arange(frames) - apex
    rise = np.clip((time + lead + onset) / onset, 0, 1)
    fall = np.clip((hold - lead + offset - time) / offset, 0, 1)
    smooth = rise * rise * (3 - 2 * rise) * fall * fall * (3 - 2 * fall)
    # A held expression is never quite still: it is strongest at one frame.
    sway = 1 - 0.06 * np.minimum(1, (time / max(hold, 1)) ** 2) - 0.01 * np.minimum(1, np.abs(time))
    start, stop = int(apex - lead - onset), int(np.ceil(apex + hold - lead + offset))
    return (peak * smooth * sway).astype(np.float32), apex, start, stop


def _mood(rng: np.random.Generator) -> dict[int, float]:
    """A resting face is seldom neutral: a little of a few units, all through the video."""
    units = rng.choice([1, 2, 4, 6, 7, 10, 12, 15, 17, 20, 23], size=4, replace=False)
    return {int(unit): float(rng.uniform(0, MOOD)) for unit in units}


def _flickers(label: str, rng: np.random.Generator, frames: int, start: int, stop: int) -> list[dict[int, float]]:
    """Per frame: brief activations of single units of other expressions, and the mouth of someone about to speak."""
    strengths: list[dict[int, float]] = [{} for _ in range(frames)]
    others = foreign(label)
    for _ in range(int(rng.integers(6, 11))):
        width = rng.uniform(3, 8)
        middle = rng.uniform(0, frames)
        if start - width < middle < stop + width:
            continue
        # Often two units that belong together: for a moment it looks like another expression.
        kin = [unit for unit in PROTOTYPES[LABELS[int(rng.integers(0, len(LABELS)))]] if unit in others]
        pool = kin if len(kin) > 1 and rng.random() < 0.6 else others
        chosen = rng.choice(pool, size=int(rng.integers(1, 3)), replace=False)
        height = rng.uniform(0.3, 0.8)
        for frame in range(max(0, int(middle - width)), min(frames, int(middle + width) + 1)):
            if not start <= frame <= stop:
                bell = 0.5 + 0.5 * np.cos(np.pi * np.clip((frame - middle) / width, -1, 1))
                strengths[frame] = mix(strengths[frame], {int(unit): float(height * bell) for unit in chosen})
    if rng.random() < 0.5:
        begin = int(rng.integers(0, frames))
        for frame in range(begin, min(frames, begin + int(rng.integers(8, 18)))):
            if not start <= frame <= stop:
                speech = max(0.0, np.sin((frame - begin) * 1.1)) * 0.5
                strengths[frame] = mix(strengths[frame], {25: float(speech), 26: float(speech * 0.4)})
    return strengths


def _wander(rng: np.random.Generator, frames: int, far: float) -> Array:
    """A slow, smooth movement of about `far`, float64 (frames,)."""
    time = np.arange(frames)
    slow, fast = rng.uniform(50, 110), rng.uniform(20, 40)
    phase = rng.uniform(0, 2 * np.pi, 2)
    return far * (0.7 * np.sin(2 * np.pi * time / slow + phase[0]) + 0.3 * np.sin(2 * np.pi * time / fast + phase[1]))


def _blinks(rng: np.random.Generator, frames: int, start: int, stop: int) -> Array:
    """How far the lids are shut, (frames,); nobody blinks during the event, which would hide the eyes at the apex."""
    shut = np.zeros(frames)
    at = rng.uniform(0, 40)
    while at < frames:
        time = np.arange(frames) - at
        if not start - 4 < at < stop + 2:
            shut = np.maximum(shut, np.clip(np.where(time < 0, 1 + time / 2.2, 1.25 - time / 3.2), 0, 1))
        at += rng.uniform(35, 90)
    return shut


def _views(rng: np.random.Generator, frames: int, start: int, stop: int) -> tuple[View, ...]:
    centre = {"yaw": rng.normal(0, 6), "pitch": rng.normal(0, 3), "roll": rng.normal(0, 2.5)}
    yaw = np.clip(centre["yaw"] + _wander(rng, frames, rng.uniform(1, 5)), -20, 20)
    pitch = np.clip(centre["pitch"] + _wander(rng, frames, rng.uniform(0.5, 3)), -12, 12)
    roll = np.clip(centre["roll"] + _wander(rng, frames, rng.uniform(0.5, 3)), -12, 12)
    scale = rng.uniform(0.9, 1.08) + _wander(rng, frames, 0.015)
    across = rng.uniform(-0.05, 0.05) + _wander(rng, frames, 0.012)
    down = rng.uniform(-0.02, 0.04) + _wander(rng, frames, 0.008)
    brightness = rng.uniform(0.9, 1.12) + _wander(rng, frames, 0.02) + rng.normal(0, 0.006, frames)
    look_x, look_y = rng.uniform(-0.2, 0.2, 2)
    gaze = np.repeat(rng.normal(0, 0.25, (frames // 12 + 2, 2)), 12, axis=0)[:frames]
    blink = _blinks(rng, frames, start, stop)
    contrast, warmth = float(rng.uniform(0.9, 1.08)), float(rng.normal(0, 0.5))
    light, noise, place = float(rng.uniform(-50, 50)), float(rng.uniform(1.2, 3.5)), int(rng.integers(0, PLACES))
    return tuple(
        View(
            roll=float(roll[frame]),
            yaw=float(yaw[frame]),
            pitch=float(pitch[frame]),
            scale=float(scale[frame]),
            shift=(float(across[frame]), float(down[frame])),
            brightness=float(brightness[frame]),
            contrast=contrast,
            warmth=warmth,
            light=light,
            blink=float(blink[frame]),
            gaze=(float(np.clip(look_x + gaze[frame, 0], -1, 1)), float(np.clip(look_y + gaze[frame, 1], -1, 1))),
            noise=noise,
            grain=frame,
            place=place,
        )
        for frame in range(frames)
    )
