"""De-interlacing, also of interlaced video whose frames are marked progressive: that is found from how its lines move."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from av.error import BlockingIOError as NoFrameYetError
from av.error import EOFError as EndOfFileError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

LOOKAHEAD = 10
"""Frames held in memory to find fields in those that are marked progressive, before the first of them is used."""
MIN_MOVING = 4
"""Frames out of LOOKAHEAD in which one field must be the earlier one, and in none the other."""
MOTION_THRESH = 12
"""Difference of brightness (0..255) to the frame before from which a pixel moves."""
MIN_MOVING_FRACTION = 0.002
"""Fraction of the pixels (0..1) that must move in a frame to judge it."""
FRAME_RATIO, WINDOW_RATIO = 1.15, 1.35
"""Factor by which the fields that are far apart in time must differ more than those next to each other, in a frame and over
LOOKAHEAD frames. Progressive video of stripes, noise, text and faces reaches 1.2, interlaced video 1.6 and more."""
COMB_THRESH, MIN_COMBED_FRACTION = 8, 0.04
"""Difference of brightness (0..255) of a line to those above and below it from which it is combed, and the fraction (0..1) of
the moving pixels that must be."""
MAX_WIDTH, MAX_HEIGHT = 1920, 1088
"""Size in pixels above which no video is interlaced."""
COLUMNS = 64
"""Columns of a frame that are compared, about."""
MAX_CHECKED, INTERVAL = 50, 60
"""After so many frames with motion and no sign of fields, only the first frames of every INTERVAL are compared."""


class Deinterlacer:
    """Turns interlaced frames into progressive ones, one each; progressive frames pass as they are.

    ``is_unmarked``: fields were found in frames that are marked progressive; all frames from there on are de-interlaced.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.is_unmarked = False
        self._time_base = stream.time_base
        self._graph: Graph | None = None
        self._layout: tuple[int, int, str] = (0, 0, "")
        self._held: deque[VideoFrame] = deque()
        self._detector = FieldDetector()

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        layout = (frame.width, frame.height, frame.format.name)
        if layout != self._layout:
            yield from self.flush()
        self._layout = layout
        if self._graph is None and not frame.interlaced_frame:
            self._held.append(frame)
            if order := self._detector.push(frame):
                self.is_unmarked = True
                self._graph = self._build(frame, f"parity={order}:deint=all")
                yield from self._filter_held()
            elif len(self._held) > LOOKAHEAD:
                yield self._held.popleft()
            return
        if self._graph is None:
            self._graph = self._build(frame, "parity=auto:deint=interlaced")
            yield from self._filter_held()
        self._graph.vpush(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the frames that wait for a next one."""
        yield from self._held
        self._held.clear()
        self._detector = FieldDetector()
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull(self._graph)
            self._graph = None

    def _filter_held(self) -> Iterator[VideoFrame]:
        while self._held and self._graph is not None:
            self._graph.vpush(self._held.popleft())
            yield from self._pull(self._graph)

    def _build(self, frame: VideoFrame, options: str) -> Graph:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or self._time_base
        )
        deinterlace = graph.add("bwdif", f"mode=send_frame:{options}")
        graph.link_nodes(source, deinterlace, graph.add("buffersink")).configure()
        return graph

    @staticmethod
    def _pull(graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                yield graph.vpull()
            except (NoFrameYetError, EndOfFileError):
                return


class _Fields(NamedTuple):
    """How the moving pixels of a frame differ from those around them: the fraction of combed ones (0..1), and the mean
    difference (0..1020) to the lines of the other field of the last frame, and of those to this one, if the top field is the
    earlier one of a frame (``top_first``) or the bottom field (``bottom_first``)."""

    combed: float
    top_first: float
    bottom_first: float


class FieldDetector:
    """Finds interlaced video in frames that are marked progressive.

    Lines of one field are compared with those of the other field in the neighboring frame. If frames are progressive, one
    pair of fields is as far apart in time as the other. If they are interlaced, one is three times as far apart, and moving
    edges are combed. Stripes are combed, too, but they and noise do not prefer either pair.
    """

    def __init__(self) -> None:
        self._number = -1  # of the frame
        self._num_checked = 0
        self._last: np.ndarray | None = None
        self._recent: deque[_Fields | None] = deque(maxlen=LOOKAHEAD)

    def push(self, frame: VideoFrame) -> str:
        """Take the next frame; returns the field order, tff or bff, if the last frames are interlaced, else ''."""
        if frame.width > MAX_WIDTH or frame.height > MAX_HEIGHT or frame.height < 16:
            return ""
        self._number += 1
        if self._num_checked >= MAX_CHECKED and self._number % INTERVAL > LOOKAHEAD:
            self._last = None
            self._recent.clear()
            return ""
        lines, last = _brightness(frame), self._last
        self._last = lines
        if last is None:
            return ""
        self._recent.append(_compare_fields(lines, last))
        self._num_checked += self._recent[-1] is not None
        recent = [fields for fields in self._recent if fields]
        _, top_first, bottom_first = np.sum(recent, axis=0) if recent else (0.0, 0.0, 0.0)
        votes = [_field_order(fields) for fields in recent]
        order = "tff" if top_first < bottom_first else "bff"
        is_clear = max(top_first, bottom_first) > WINDOW_RATIO * min(top_first, bottom_first)
        return order if is_clear and votes.count(order) >= MIN_MOVING and set(votes) <= {order, ""} else ""


def _field_order(fields: _Fields) -> str:
    """Return tff or bff if a frame is likely to be interlaced, else ''."""
    near, far = sorted((fields.top_first, fields.bottom_first))
    if far < FRAME_RATIO * near or fields.combed < MIN_COMBED_FRACTION:
        return ""
    return "tff" if fields.top_first < fields.bottom_first else "bff"


def _brightness(frame: VideoFrame) -> np.ndarray:
    """Return the brightness of some columns of a frame, int16 (H, about COLUMNS) in 0..255."""
    step = max(1, frame.width // COLUMNS)
    plane = frame.planes[0]
    has_own_plane = frame.format.name.startswith(("yuv", "gray", "nv")) and frame.format.components[0].bits == 8
    if has_own_plane and plane.line_size > 0:  # negative: lines from the bottom up
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    else:
        lines = frame.to_ndarray(format="gray")
    return lines[:, ::step].astype(np.int16)


def _compare_fields(lines: np.ndarray, last: np.ndarray) -> _Fields | None:
    """Compare a frame (H, W) with the last one; None if too little moves."""
    if lines.shape != last.shape:
        return None
    moving = np.abs(lines[1:-1] - last[1:-1]) > MOTION_THRESH
    count = int(np.count_nonzero(moving))
    if count < MIN_MOVING_FRACTION * moving.size:
        return None
    above, below = lines[1:-1] - lines[:-2], lines[1:-1] - lines[2:]
    combed = (np.minimum(above, below) > COMB_THRESH) | (np.maximum(above, below) < -COMB_THRESH)
    of_last = (
        np.abs(lines[:-2] + lines[2:] - 2 * last[1:-1]) * moving
    )  # lines of the last frame between those of this one
    in_last = np.abs(last[:-2] + last[2:] - 2 * lines[1:-1]) * moving
    bottom, top = slice(0, None, 2), slice(1, None, 2)  # the first line that is compared is line 1, of the bottom field
    top_first = of_last[bottom].sum() + in_last[top].sum()
    bottom_first = in_last[bottom].sum() + of_last[top].sum()
    return _Fields(np.count_nonzero(combed & moving) / count, top_first / count, bottom_first / count)
