"""Times of frames: repair of those that a container does not give or gives wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_FPS = 1000.0
"""Frames per second, as a mean over the video, above which a container's times are not used."""
MAX_ASSUMED_FPS = 240.0
"""Frames per second above which a declared rate is not assumed: it is likely to come from the same wrong times."""
MIN_ASSUMED_FPS = 0.001
"""Frames per second below which a declared rate is not assumed: a frame in a quarter of an hour is no video."""
DEFAULT_FPS = 25.0
"""Frames per second of image folders, and of videos without a usable time or frame rate, unless another rate is given."""
MIN_VALID_FRACTION = 0.5
"""Fraction (0..1) of frames with usable times from which the others are interpolated."""


def is_plausible_fps(fps: float) -> bool:
    """Return whether a frame rate is a number in MIN_ASSUMED_FPS..MAX_ASSUMED_FPS."""
    return bool(MIN_ASSUMED_FPS <= fps <= MAX_ASSUMED_FPS)


def repair_times(times: Sequence[float] | np.ndarray, fps: float) -> tuple[np.ndarray, str]:
    """Return finite, increasing times (T,) in seconds, and what was assumed, '' if the times are returned as they are.

    The longest increasing series among the finite times counts as right; the others are interpolated between their
    neighbors, and continued at the ends at the mean rate. If that series has less than half of the frames, or a mean rate
    above MAX_FPS, then frame i is at i / ``fps``, or i / DEFAULT_FPS if ``fps`` is not plausible.

    >>> repair_times([0.0, 0.04, 0.04, 0.12], 25)
    (array([0.  , 0.04, 0.08, 0.12]), '1 of 4 times missing or not increasing: interpolated')
    """
    raw = np.asarray(times, np.float64)
    count = len(raw)
    fps = fps if is_plausible_fps(fps) else DEFAULT_FPS
    valid = increasing_indices(raw)
    if count == 1:
        return (raw, "") if len(valid) else (np.zeros(1), "")
    steps = np.arange(count)
    span = raw[valid[-1]] - raw[valid[0]] if len(valid) > 1 else 0.0
    mean_step = span / (valid[-1] - valid[0]) if span else 0.0
    if count and (len(valid) < MIN_VALID_FRACTION * count or mean_step * MAX_FPS < 1):
        too_fast = 1e-9 < mean_step < 1 / MAX_FPS
        reason = f"mean of {1 / mean_step:.0f} frames per second" if too_fast else "missing or not increasing"
        return steps / fps, f"times not usable ({reason}): {fps:g} frames per second assumed"
    if len(valid) == count:
        return raw, ""
    repaired = np.interp(steps, valid, raw[valid])
    before, after = steps < valid[0], steps > valid[-1]
    repaired[before] = raw[valid[0]] - (valid[0] - steps[before]) * mean_step
    repaired[after] = raw[valid[-1]] + (steps[after] - valid[-1]) * mean_step
    note = f"{count - len(valid)} of {count} times missing or not increasing: interpolated"
    if not (np.diff(repaired) > 0).all():  # neighbors so close that the numbers between them are equal
        return steps / fps, f"times not usable (not increasing): {fps:g} frames per second assumed"
    return repaired, note


def increasing_indices(values: np.ndarray) -> np.ndarray:
    """Return the indices of the longest strictly increasing series among the finite values, by patience sorting."""
    tails: list[float] = []  # the smallest last value of a series of each length
    ends: list[int] = []
    previous = np.full(len(values), -1)
    for index, value in enumerate(values):
        if not np.isfinite(value):
            continue
        length = int(np.searchsorted(tails, value))
        previous[index] = ends[length - 1] if length else -1
        if length == len(tails):
            tails.append(float(value))
            ends.append(index)
        elif value < tails[length]:  # of equal ones the first
            tails[length], ends[length] = float(value), index
    series: list[int] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        series.append(index)
        index = int(previous[index])
    return np.array(series[::-1], np.int64)
