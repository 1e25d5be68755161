"""Scene cuts: frames that begin a new scene, by brightness histograms and structure of a small image.

A cut changes the histograms of the parts of the image and its structure, both at once, and for good. Motion changes
neighboring frames as much, a change of light keeps the structure, and after a flash the old scene comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import cv2
import numpy as np

T = TypeVar("T")

HISTOGRAM_THRESH = 0.2
"""Mean distance (0..1) of the histograms of two frames from which they may be two scenes."""
STRUCTURE_THRESH = 0.3
"""One minus the correlation (0..2) of two frames from which they may be two scenes."""
MOTION_RATIO = 1.5
"""Factor by which the histograms must change more at a cut than in the frames around it."""
LOOKAHEAD = 5
"""Frames held in memory, to compare as many before and after a cut; shorter flashes are no cuts."""
WIDTH, HEIGHT = 64, 36
"""Size in pixels of the small image."""
GRID, BINS = 4, 16
"""The small image has GRID x GRID parts, each with a histogram of BINS values."""
FLAT = 1.0
"""Standard deviation (0..255) of the brightness below which an image has hardly any structure."""

_ROWS, _COLUMNS = np.arange(HEIGHT) * GRID // HEIGHT, np.arange(WIDTH) * GRID // WIDTH
_FIRST_BIN = ((_ROWS[:, None] * GRID + _COLUMNS) * BINS).astype(np.int64)


@dataclass(frozen=True)
class _Signature:
    """Histograms (GRID * GRID, BINS), each with sum 1, and structure (HEIGHT, WIDTH) of length 1 of a small image."""

    histograms: np.ndarray
    structure: np.ndarray

    def histogram_distance(self, other: _Signature) -> float:
        return float(np.abs(self.histograms - other.histograms).sum()) / (2 * GRID * GRID)

    def is_other_scene(self, other: _Signature) -> bool:
        changed = self.histogram_distance(other) >= HISTOGRAM_THRESH
        return changed and 1 - float(np.sum(self.structure * other.structure)) >= STRUCTURE_THRESH


@dataclass(frozen=True)
class _Measured:
    """The signature of a frame, and how far its histograms are from those of the frame before it."""

    signature: _Signature
    change: float


class SceneCutDetector(Generic[T]):
    """Marks the frames that begin a new scene, in a sequence of frames that is returned in order.

    ``push`` yields the frames that are decided, ``flush`` the rest, each with whether it begins a new scene. LOOKAHEAD
    frames are held in memory.
    """

    def __init__(self) -> None:
        self._frames: deque[T] = deque()
        self._after: deque[_Measured] = deque()  # of the frames that are held
        self._before: deque[_Measured] = deque(maxlen=LOOKAHEAD)  # of the frames of the scene before them

    def push(self, frame: T, image: np.ndarray) -> Iterator[tuple[T, bool]]:
        """Take the next frame, any object, and its uint8 RGB image (H, W, 3)."""
        signature = _describe(image)
        known = self._after or self._before
        self._after.append(_Measured(signature, signature.histogram_distance(known[-1].signature) if known else 0.0))
        self._frames.append(frame)
        if len(self._frames) > LOOKAHEAD:
            yield self._release()

    def flush(self) -> Iterator[tuple[T, bool]]:
        while self._frames:
            yield self._release()

    def _release(self) -> tuple[T, bool]:
        is_cut = self._is_cut()
        first = self._after.popleft()
        if is_cut:
            self._before.clear()
            first = replace(first, change=0.0)
        self._before.append(first)
        return self._frames.popleft(), is_cut

    def _is_cut(self) -> bool:
        """Return whether all frames that are held differ from all before them, and the first one changes most."""
        first, *following = self._after
        around = max((other.change for other in (*self._before, *following)), default=0.0)
        if not self._before or first.change < max(HISTOGRAM_THRESH, MOTION_RATIO * around):
            return False
        return all(new.signature.is_other_scene(old.signature) for new in self._after for old in self._before)


def mark_scene_cuts(frames: Iterable[T], image_of: Callable[[T], np.ndarray]) -> Iterator[tuple[T, bool]]:
    """Yield every frame, in order, and whether it begins a new scene; ``image_of`` returns the image of a frame."""
    detector: SceneCutDetector[T] = SceneCutDetector()
    for frame in frames:
        yield from detector.push(frame, image_of(frame))
    yield from detector.flush()


def _describe(image: np.ndarray) -> _Signature:
    step = max(1, min(image.shape[0] // (2 * HEIGHT), image.shape[1] // (2 * WIDTH)))
    part = np.ascontiguousarray(image[::step, ::step])
    small = cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    bins = _FIRST_BIN + (small.astype(np.int64) * BINS >> 8)
    counts = np.bincount(bins.ravel(), minlength=GRID * GRID * BINS).reshape(GRID * GRID, BINS)
    centered = small - small.mean(dtype=np.float64)
    length = max(float(np.linalg.norm(centered)), FLAT * np.sqrt(small.size))
    return _Signature(counts / counts.sum(axis=1, keepdims=True), centered / length)
