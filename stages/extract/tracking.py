"""Single-face tracking: the main face of every frame, with short gaps interpolated.

The main face is the one that continues the last one, else the largest and most central. Other faces near it are followed as
well, so that it is not taken for one of them. At the end of a video it may turn out that another face, which was seen
beside the first one, is there for much longer: a second pass begins with that one. Landmarks are interpolated across a short gap
between two detected frames. In a longer gap, before the first and after the last detection of a scene, frames hold the nearest
landmarks and are marked missing. Every frame is returned, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from ...cache.features import FrameStatus
from .association import IOU_THRESH, MAX_GAP, TrackState, associate, box_gap, color_histogram
from .detection import Detections, Detector, iou

T = TypeVar("T")

ROI_IOU_THRESH = 0.5
"""IoU (0..1) with the last box from which the rest of the image need not be searched."""
ROI_SCORE_RATIO = 0.8
"""If the score falls below this fraction of the last one, the whole image is searched."""
FULL_DETECT_INTERVAL = 25
"""Frames after which the whole image is searched again."""
NEAR_INTERVAL = 8
"""Frames after which the whole image is searched again, per side of the main face that another one is away from it."""
LONGER_RATIO = 1.5
"""Factor by which a face must be there for longer than the first one of its scene to be the main face in its place."""
MAX_CHANGES = 5
"""Changes of the main face that a note lists."""


@dataclass(frozen=True)
class Face:
    """One face in one frame: box (4,) and landmarks (5, 2) in pixels, score 0..1, NaN unless detected."""

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    status: FrameStatus


def select_face(faces: Detections, last_box: np.ndarray | None, image_shape: tuple[int, ...]) -> int | None:
    """Return the index of the face that overlaps ``last_box`` most, else of the main one; None if there are no faces."""
    if not len(faces):
        return None
    if last_box is not None:
        overlaps = iou(faces.boxes, last_box)
        if overlaps.max() >= IOU_THRESH:
            return int(overlaps.argmax())
    return int(_center_weighted_area(faces.boxes, image_shape).argmax())


class Change(StrEnum):
    """Why the main face may be another person than before."""

    SCENE_CUT = "scene cut"
    JUMP = "another place"
    MEETING = "faces overlapped"


class Start(NamedTuple):
    """Where the main face of a scene is first seen: ``box`` (4,) in ``frame``; it may be there from ``earliest`` on."""

    earliest: int
    frame: int
    box: np.ndarray


@dataclass
class _Presence:
    """What a scene shows of a face: where it is first seen, whether it was the main one, its frames, the sum of its areas,
    and the faces that were seen beside it."""

    start: Start
    was_main: bool = False
    frames: int = 0
    area: float = 0.0
    concurrent: set[TrackState] = field(default_factory=set)


class FaceTracker:
    """Tracks the main face through the frames of a video, mostly by searching around its last box.

    The whole image is searched at first, every FULL_DETECT_INTERVAL frames, more often if another face is near, and if the
    region around the last box has no face of about the same position and size and a similar score. ``changes``: the frames
    from which on the main face may be another person, and why. ``starts``: the main face of a scene, by its first frame, as
    ``better_starts`` of a first pass gave it; other faces before it are left out.
    """

    def __init__(self, detector: Detector, starts: Mapping[int, Start] | None = None) -> None:
        self.changes: list[tuple[int, Change]] = []
        self.starts = starts or {}
        self._detector = detector
        self._number = -1  # of the frame
        self._main: TrackState | None = None
        self._others: list[TrackState] = []
        self._last_score = 0.0
        self._next_full = 0
        self._cut = False
        self._scene = 0  # its first frame
        self._last_full = -1
        self._first: TrackState | None = None
        self._presence: dict[TrackState, _Presence] = {}
        self._better_starts: dict[int, Start] = {}

    def better_starts(self) -> dict[int, Start]:
        """Return, by the first frame of each scene that is over, the face that is there for much longer than the first one.

        It must have been seen beside the first one, so that it is another person. Call it after the last frame.
        """
        self._end_scene(self._number + 1)
        return self._better_starts

    def __call__(self, image: np.ndarray, is_cut: bool = False) -> Face | None:
        """Return the main face of the next frame, or None if it is not detected; ``is_cut``: the frame begins a new scene."""
        self._number += 1
        if is_cut:
            self._cut = self._cut or self._main is not None
            self._main, self._others = None, []
            self._end_scene(self._number)
        main = self._main
        if main is not None and self._number < self._next_full:
            faces = self._detector.detect_roi(image, main.box)
            if faces is not None and (index := self._match(faces, main.box)) is not None:
                main.update(self._number, faces.boxes[index])
                self._count(main, 1)
                return self._update(faces, index)
        if self._scene in self.starts and main is None and self._number < self.starts[self._scene].earliest:
            return None
        faces = self._detector(image)
        index = self._start(image, faces) if main is None else self._continue(image, faces, main)
        self._count_all()
        if index is None or self._main is None:
            self._next_full = self._number
            return None
        self._next_full = self._number + 1 + self._full_interval(self._main.box)
        return self._update(faces, index)

    def _start(self, image: np.ndarray, faces: Detections) -> int | None:
        """Begin with the largest and most central face of a scene, or the one of ``starts``."""
        start = self.starts.get(self._scene)
        index = select_face(faces, start.box if start else None, image.shape)
        if start and index is not None and self._number < start.frame and not _continues(faces.boxes[index], start.box):
            index = None  # another face, before the main one
        if index is not None:
            if self._cut:
                self.changes.append((self._number, Change.SCENE_CUT))
                self._cut = False
            tracks = self._begin_tracks(faces, range(len(faces)), image)
            self._main = self._first = tracks.pop(index)
            self._others = tracks
        return index

    def _count_all(self) -> None:
        """Count the faces of a search of the whole image; other faces than the main one are seen only there."""
        detected = [track for track in (self._main, *self._others) if track and track.number == self._number]
        for track in detected:
            known = track in self._presence and track is not self._main
            self._count(track, self._number - self._last_full if known else 1)
            self._presence[track].concurrent.update({*detected} - {track})
            self._presence[track].was_main |= track is self._main
        self._last_full = self._number

    def _count(self, track: TrackState, frames: int) -> None:
        if track not in self._presence:
            self._presence[track] = _Presence(Start(self._last_full + 1, self._number, track.box))
        presence = self._presence[track]
        presence.frames += frames
        presence.area += frames * float(np.prod(track.box[2:] - track.box[:2]))

    def _end_scene(self, next_scene: int) -> None:
        first = self._first
        if first is not None:
            # a main face that was never seen beside the first one may be the same person, who was lost for a time
            same = [
                presence
                for presence in self._presence.values()
                if presence.was_main and first not in presence.concurrent
            ]
            best = max(self._presence.values(), key=lambda presence: presence.area)
            is_longer = best.frames >= LONGER_RATIO * sum(presence.frames for presence in same)
            if first in best.concurrent and is_longer and best.area > sum(presence.area for presence in same):
                self._better_starts[self._scene] = best.start
        self._scene, self._first, self._presence = next_scene, None, {}
        self._last_full = next_scene - 1

    def _continue(self, image: np.ndarray, faces: Detections, main: TrackState) -> int | None:
        """Find the main face again, by where it is and where the others are; else take another face in its place."""
        doubts = len(main.doubts)
        matches, unmatched = associate(self._number, image, faces, [main, *self._others])
        new = self._begin_tracks(faces, unmatched, image)
        track_of = dict(zip(unmatched, new, strict=True))
        track_of |= {
            face: track for track, face in zip([main, *self._others], matches, strict=True) if face is not None
        }
        hidden = [track for track in self._others if track.hidden and not track.is_over(self._number)]
        index = matches[0]
        if index is not None and len(main.doubts) > doubts:
            self.changes.append((self._number, Change.MEETING))
        if index is None:
            index = self._replace(image, faces, unmatched)
        if index is not None:
            self._main = track_of[index]
        self._others = [
            track for track in (*track_of.values(), *hidden) if track is not self._main and track is not main
        ]
        return index

    def _replace(self, image: np.ndarray, faces: Detections, new: list[int]) -> int | None:
        """Return the face to go on with, or None to wait for the main one."""
        if self._main is None or not len(faces):
            return None
        box = self._main.expected_box(self._number)
        # a face that was not seen before may be the main one, which has moved; for one that was, the main one must be gone
        candidates = new or list(range(len(faces)))
        if not new and not self._main.is_over(self._number) and not _leaves(image, box):
            return None
        index = candidates[int(_center_weighted_area(faces.boxes[candidates], image.shape).argmax())]
        if not new or not iou(faces.boxes[index : index + 1], self._main.box)[0]:
            self.changes.append((self._number, Change.JUMP))
        return index

    def _begin_tracks(self, faces: Detections, indices: Sequence[int], image: np.ndarray) -> list[TrackState]:
        return [TrackState(self._number, faces.boxes[i], color_histogram(image, faces.boxes[i])) for i in indices]

    def _full_interval(self, box: np.ndarray) -> int:
        """Return the frames until another face may have come so near that it could be taken for the main one."""
        gap = min((box_gap(box, other.box) for other in self._others), default=np.inf)
        return int(np.clip(gap * NEAR_INTERVAL, 0, FULL_DETECT_INTERVAL))

    def _match(self, faces: Detections, last_box: np.ndarray) -> int | None:
        if not len(faces):
            return None
        overlaps = iou(faces.boxes, last_box)  # low for another position and for another size
        index = int(overlaps.argmax())
        same_score = faces.scores[index] >= ROI_SCORE_RATIO * self._last_score
        alone = (iou(faces.boxes, faces.boxes[index]) > 0).sum() == 1
        return index if overlaps[index] >= ROI_IOU_THRESH and same_score and alone else None

    def _update(self, faces: Detections, index: int) -> Face:
        self._last_score = float(faces.scores[index])
        return Face(faces.boxes[index], faces.landmarks[index], self._last_score, FrameStatus.DETECTED)


def describe_changes(changes: Sequence[tuple[int, Change]], times: Sequence[float] | np.ndarray) -> str:
    """Return a note on the changes of the main face, '' if there are none; ``times`` of all frames in seconds.

    >>> describe_changes([(1, Change.SCENE_CUT)], [0.0, 0.04])
    'the main face may change at 0.04 s (scene cut)'
    """
    if not changes:
        return ""
    listed = [f"{times[frame]:.2f} s ({reason})" for frame, reason in changes[:MAX_CHANGES]]
    more = [f"{len(changes) - MAX_CHANGES} more times"] if len(changes) > MAX_CHANGES else []
    return f"the main face may change at {', '.join([*listed, *more])}"


def describe_starts(starts: Mapping[int, Start], times: Sequence[float] | np.ndarray) -> str:
    """Return a note on the faces that were left out before the main one of a scene, '' if there are none."""
    listed = [f"{times[start.frame]:.2f} s" for _, start in sorted(starts.items())[:MAX_CHANGES]]
    more = [f"{len(starts) - MAX_CHANGES} more times"] if len(starts) > MAX_CHANGES else []
    return f"another face was left out before the main one came at {', '.join([*listed, *more])}" if starts else ""


def is_missing(face: Face | None) -> bool:
    """Return whether a frame does not show the face."""
    return face is None or face.status == FrameStatus.MISSING


def describe_absence(missing: Sequence[bool], times: Sequence[float] | np.ndarray) -> str:
    """Return a note on the times at which the main face is not found for more than MAX_GAP frames, '' if there are none.

    >>> describe_absence([False, *[True] * 20, False], [i / 10 for i in range(22)])
    'the main face is not found from 0.10 to 2.10 s'
    """
    flags = np.array([False, *missing, False])
    begins, ends = np.flatnonzero(flags[1:] & ~flags[:-1]), np.flatnonzero(flags[:-1] & ~flags[1:])
    spans = [(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True) if end - begin > MAX_GAP]
    listed = [f"{times[begin]:.2f} to {times[min(end, len(times) - 1)]:.2f} s" for begin, end in spans[:MAX_CHANGES]]
    more = [f"{len(spans) - MAX_CHANGES} more times"] if len(spans) > MAX_CHANGES else []
    return f"the main face is not found from {', '.join([*listed, *more])}" if spans else ""


def _continues(box: np.ndarray, last_box: np.ndarray) -> bool:
    return bool(iou(box[np.newaxis], last_box)[0] >= IOU_THRESH)


def _leaves(image: np.ndarray, box: np.ndarray) -> bool:
    """Return whether a box (4,) is not whole inside the image."""
    return bool((box[:2] < 0).any() or (box[2:] > image.shape[1::-1]).any())


def _center_weighted_area(boxes: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Return area minus twice the squared distance to the center, by which insightface selects the main face."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    center = np.array([image_shape[1], image_shape[0]]) / 2
    return areas - 2.0 * np.sum(((boxes[:, :2] + boxes[:, 2:]) / 2 - center) ** 2, axis=1)


class GapInterpolator(Generic[T]):
    """Fills gaps in a sequence of (frame, face or None), which is returned in order; frames are any objects.

    ``push`` yields the frames that are complete, ``flush`` the rest. A face is None in the output only if no face of the
    scene was known before the frame or soon enough after it.
    """

    def __init__(self) -> None:
        self._last: Face | None = None
        self._pending: list[T] = []

    def push(self, frame: T, face: Face | None, is_cut: bool = False) -> Iterator[tuple[T, Face | None]]:
        """Take the next frame; ``is_cut``: it begins a new scene."""
        if is_cut:
            yield from self.flush()
            self._last = None
        if face is None:
            self._pending.append(frame)
            if len(self._pending) > MAX_GAP:
                yield from self.flush()
            return
        yield from self._fill_gap(face)
        self._last = face
        yield frame, face

    def flush(self) -> Iterator[tuple[T, Face | None]]:
        if self._last is not None and self._pending:
            self._last = _hold(self._last)  # the gap is too long: the next face is not interpolated with this one
        for frame in self._pending:
            yield frame, self._last
        self._pending = []

    def _fill_gap(self, after: Face) -> Iterator[tuple[T, Face]]:
        before = self._last
        for number, frame in enumerate(self._pending, start=1):
            # faces that do not overlap at all are two people or two scenes
            if (
                before is not None
                and before.status == FrameStatus.DETECTED
                and iou(after.box[np.newaxis], before.box)[0] > 0
            ):
                yield frame, _interpolate(before, after, number / (len(self._pending) + 1))
            else:
                yield frame, _hold(before or after)
        self._pending = []


def _interpolate(before: Face, after: Face, fraction: float) -> Face:
    """Return the face at a fraction (0..1) of the time between two faces."""
    box = (before.box + (after.box - before.box) * fraction).astype(np.float32)
    landmarks = (before.landmarks + (after.landmarks - before.landmarks) * fraction).astype(np.float32)
    return Face(box, landmarks, float("nan"), FrameStatus.INTERPOLATED)


def _hold(face: Face) -> Face:
    return Face(face.box, face.landmarks, float("nan"), FrameStatus.MISSING)
