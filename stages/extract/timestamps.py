"""Times of frames: repair of those that a container does not give or gives wrong."""

from __future__ import annotations

import heapq
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
MAX_JUMP = 10.0
"""Seconds from one frame to the next above which the timestamps of a broadcast or camcorder stream (MPEG-TS, MPEG-PS) have
jumped, as in FFmpeg. A phone or a screen recorder may write no frame for so long."""
MAX_STEP_BACK = 0.5
"""Seconds back from one frame to the next above which such timestamps have jumped."""
GAP_RATIO = 10.0
"""Factor by which a gap above MAX_JUMP must exceed the usual time between two frames to be noted."""
MAX_LISTED = 3
"""Jumps and gaps that a note lists."""
MIN_VALID_FRACTION = 0.5
"""Fraction (0..1) of frames with usable times from which the others are interpolated."""


def is_plausible_fps(fps: float) -> bool:
    """Return whether a frame rate is a number in MIN_ASSUMED_FPS..MAX_ASSUMED_FPS."""
    return bool(MIN_ASSUMED_FPS <= fps <= MAX_ASSUMED_FPS)


def repair_times(times: Sequence[float] | np.ndarray, fps: float) -> tuple[np.ndarray, str]:
    """Return finite, increasing times (T,) in seconds, and what was assumed, '' if the times are returned as they are.

    The longest increasing series among the finite times counts as right; the others are interpolated between their
    neighbors, and continued at the ends at the mean rate. If that series has less than half of the frames, or a mean rate
    above MAX_FPS, then frame i is at i / ``fps``, or i / DEFAULT_FPS if ``fps`` is not plausible. If the first frame then
    comes before the start of the file, the file starts with it.

    >>> repair_times([0.0, 0.04, 0.04, 0.12], 25)
    (array([0.  , 0.04, 0.08, 0.12]), '1 of 4 times missing or not increasing: interpolated')
    """
    raw = np.asarray(times, np.float64)
    count = len(raw)
    fps = fps if is_plausible_fps(fps) else DEFAULT_FPS
    valid = increasing_indices(raw)
    if count == 1:
        return np.maximum(raw[valid], 0) if len(valid) else np.zeros(1), ""
    steps = np.arange(count)
    span = raw[valid[-1]] - raw[valid[0]] if len(valid) > 1 else 0.0
    mean_step = span / (valid[-1] - valid[0]) if span else 0.0
    if count and (len(valid) < MIN_VALID_FRACTION * count or mean_step * MAX_FPS < 0.999):
        too_fast = 1e-9 < mean_step < 1 / MAX_FPS
        reason = f"mean of {1 / mean_step:.0f} frames per second" if too_fast else "missing or not increasing"
        return steps / fps, f"times not usable ({reason}): {fps:g} frames per second assumed"
    repaired, note = raw, ""
    if len(valid) < count:
        repaired = np.interp(steps, valid, raw[valid])
        before, after = steps < valid[0], steps > valid[-1]
        repaired[before] = raw[valid[0]] - (valid[0] - steps[before]) * mean_step
        repaired[after] = raw[valid[-1]] + (steps[after] - valid[-1]) * mean_step
        note = f"{count - len(valid)} of {count} times missing or not increasing: interpolated"
    if count and repaired[0] < 0:
        repaired = repaired - repaired[0]
    if not (np.diff(repaired) > 0).all():  # neighbors so close that the numbers between them are equal
        return steps / fps, f"times not usable (not increasing): {fps:g} frames per second assumed"
    return repaired, note


class ContinuousTimes:
    """Times of frames without the jumps of their timestamps: after a jump they go on one ``step`` (seconds) later.

    ``jumps`` receives the time of each and its seconds.

    >>> jumps = []
    >>> times = ContinuousTimes(0.25, jumps)
    >>> [times(time) for time in (0.0, 0.25, 5000.5, 5000.75, 0.5)], jumps
    ([0.0, 0.25, 0.5, 0.75, 1.0], [(0.5, 5000.0), (1.0, -5000.5)])
    """

    def __init__(self, step: float, jumps: list[tuple[float, float]]) -> None:
        self.jumps = jumps
        self._step = step
        self._last: float | None = None
        self._offset = 0.0

    def __call__(self, time: float) -> float:
        if self._last is not None:
            expected = self._last + self._step
            step = time - self._offset - self._last
            if not -MAX_STEP_BACK <= step <= MAX_JUMP:
                self.jumps.append((expected, time - self._offset - expected))
                self._offset = time - expected
        self._last = time - self._offset
        return self._last


class ShownTimes:
    """Times at which frames are shown, of a container that has only those at which packets are decoded, such as AVI.

    Frames leave a decoder in the order in which they are shown, so each has the earliest of the times that are left. Call it
    for every packet with its time, the frames that it gave, and how many the decoder then holds back to reorder them. The
    time of a packet that gives no frame at all is left out.

    >>> times = ShownTimes()
    >>> times(0, 0, 1), times(1, 1, 1), times(2, 1, 1), times(3, 0, 1), times(4, 1, 1), times(None, 1, 0)
    ([], [0], [1], [], [2], [4])
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        self._has_begun = False

    def __call__(self, time: int | None, num_frames: int, num_held: int) -> list[int | None]:
        """Return the times of the frames of a packet; None for a frame whose packet has no time."""
        if time is not None and (num_frames or not self._has_begun or len(self._times) < num_held):
            heapq.heappush(self._times, time)
        if num_frames and not self._has_begun:  # packets before them gave none
            self._has_begun = True
            while len(self._times) > num_frames + num_held:
                heapq.heappop(self._times)
        return [heapq.heappop(self._times) if self._times else None for _ in range(num_frames)]


def describe_jumps(jumps: Sequence[tuple[float, float]]) -> str:
    """Return a note on jumps of timestamps.

    >>> describe_jumps([(2.0, 5000.0)])
    'timestamps jump by +5000.0 s at 2.00 s: times go on without that'
    """
    listed = [f"{seconds:+.1f} s at {time:.2f} s" for time, seconds in jumps[:MAX_LISTED]]
    more = [f"{len(jumps) - MAX_LISTED} more times"] if len(jumps) > MAX_LISTED else []
    return f"timestamps jump by {', '.join([*listed, *more])}: times go on without that"


def describe_gaps(times: np.ndarray) -> str:
    """Return a note on gaps between frames that are long, and much longer than usual; '' if there are none.

    >>> describe_gaps(np.array([0.0, 0.1, 0.2, 20.2, 20.3]))
    'no frame from 0.20 to 20.20 s'
    """
    steps = np.diff(times)
    long = np.flatnonzero(steps > max(MAX_JUMP, GAP_RATIO * np.median(steps))) if len(steps) else []
    listed = [f"{times[index]:.2f} to {times[index + 1]:.2f} s" for index in long[:MAX_LISTED]]
    more = [f"{len(long) - MAX_LISTED} more times"] if len(long) > MAX_LISTED else []
    return f"no frame from {', '.join([*listed, *more])}" if len(long) else ""


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
