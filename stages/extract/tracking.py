"""Single-face tracking: the main face of every frame, with short gaps interpolated.

One person per video: the face that continues the last one, else the largest and most central. A short gap between two
detected frames is bridged by interpolating the landmarks; a longer one, and the frames before the first and after the
last detection, keep the nearest landmarks and are marked missing. Every frame comes out, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...cache.features import FrameStatus
from .detection import Detections, Detector

IOU_THRESH = 0.3
"""IoU with the last face from which a face counts as the same person going on."""
ROI_IOU_THRESH = 0.5
"""IoU with the last face from which the rest of the picture need not be searched."""
ROI_SCORE_RATIO = 0.8
"""A score below this share of the last one's sends the search to the whole picture."""
FULL_DETECT_INTERVAL = 25
"""Pictures after which the whole is searched again, however sure the region is."""
MAX_GAP = 12
"""Frames that may be bridged; the frames of a gap are held in memory until it closes."""


@dataclass(frozen=True)
class Face:
    """The person's face in one frame: box (4,) and landmarks (5, 2) in pixels, score NaN unless detected."""

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    status: FrameStatus


def select_face(faces: Detections, last: np.ndarray | None, picture_shape: tuple[int, ...]) -> int | None:
    """Return which face is the person, or None: the one that overlaps ``last`` (box) most, else the main one."""
    if not len(faces):
        return None
    if last is not None:
        overlaps = iou(faces.boxes, last)
        if overlaps.max() >= IOU_THRESH:
            return int(overlaps.argmax())
    return int(_center_weighted_area(faces.boxes, picture_shape).argmax())


class FaceTracker:
    """Finds one person in picture after picture of a video, mostly by searching around where the face was last.

    The whole picture is searched at first, every ``WHOLE_EVERY`` pictures, and whenever the region holds no face that
    continues the last one: same place, about the same size, no clearly worse score.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._box: np.ndarray | None = None
        self._score = 0.0
        self._since_full = 0

    def __call__(self, picture: np.ndarray) -> Face | None:
        """Return the person's face in the next picture of the video, or None where none is found."""
        if self._box is not None and self._since_full < FULL_DETECT_INTERVAL:
            faces = self._detector.detect_roi(picture, self._box)
            if faces is not None and (place := self._match(faces)) is not None:
                self._since_full += 1
                return self._update(faces, place)
        self._since_full = 0
        faces = self._detector(picture)
        place = select_face(faces, self._box, picture.shape)
        return None if place is None else self._update(faces, place)

    def _match(self, faces: Detections) -> int | None:
        if not len(faces) or self._box is None:
            return None
        overlaps = iou(faces.boxes, self._box)
        place = int(overlaps.argmax())
        # in a region's IoU a box of another size shows as well as one in another place
        return (
            place
            if overlaps[place] >= ROI_IOU_THRESH and faces.scores[place] >= ROI_SCORE_RATIO * self._score
            else None
        )

    def _update(self, faces: Detections, place: int) -> Face:
        self._box, self._score = faces.boxes[place], float(faces.scores[place])
        return Face(faces.boxes[place], faces.landmarks[place], self._score, FrameStatus.DETECTED)


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each of (N, 4) boxes with one box."""
    corner, far = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.prod(np.clip(far - corner, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / np.maximum(areas + np.prod(box[2:] - box[:2]) - shared, 1e-9)


def _center_weighted_area(boxes: np.ndarray, picture_shape: tuple[int, ...]) -> np.ndarray:
    """Area less twice the squared distance from the middle, the measure insightface uses for the main face."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    middle = np.array([picture_shape[1], picture_shape[0]]) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return areas - 2.0 * np.sum((centres - middle) ** 2, axis=1)


class GapInterpolator:
    """Turns (picture, face or None) frame by frame into (picture, face or None) with gaps filled, in order.

    ``feed`` gives back the frames that are settled, ``finish`` the rest. A None that comes out means that no face is
    known to borrow landmarks from; its frame is missing like those with a borrowed one.
    """

    def __init__(self) -> None:
        self._last: Face | None = None
        self._pending: list[np.ndarray] = []

    def push(self, picture: np.ndarray, face: Face | None) -> Iterator[tuple[np.ndarray, Face | None]]:
        if face is None:
            self._pending.append(picture)
            if len(self._pending) > MAX_GAP:
                yield from self._flush_missing()
            return
        if self._pending:
            yield from self._interpolate(face)
        self._last = face
        yield picture, face

    def flush(self) -> Iterator[tuple[np.ndarray, Face | None]]:
        yield from self._flush_missing()

    def _interpolate(self, after: Face) -> Iterator[tuple[np.ndarray, Face | None]]:
        before, count = self._last, len(self._pending)
        # two faces that do not even touch are two people, or two scenes: nothing lies between them
        bridgeable = (
            before is not None
            and before.status == FrameStatus.DETECTED
            and iou(after.box[np.newaxis], before.box)[0] > 0
        )
        for place, picture in enumerate(self._pending, start=1):
            if before is not None and bridgeable:
                yield picture, _interpolate_face(before, after, place / (count + 1))
            else:
                yield picture, _hold(before or after)
        self._pending = []

    def _flush_missing(self) -> Iterator[tuple[np.ndarray, Face | None]]:
        if self._last is not None and self._pending:
            self._last = _hold(self._last)  # the gap is too long: what follows is not bridged to this face
        for picture in self._pending:
            yield picture, self._last
        self._pending = []


def _interpolate_face(before: Face, after: Face, share: float) -> Face:
    def mix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a + (b - a) * share).astype(np.float32)

    box, landmarks = mix(before.box, after.box), mix(before.landmarks, after.landmarks)
    return Face(box, landmarks, float("nan"), FrameStatus.INTERPOLATED)


def _hold(face: Face) -> Face:
    return Face(face.box, face.landmarks, float("nan"), FrameStatus.MISSING)
