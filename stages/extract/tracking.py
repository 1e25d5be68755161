"""Single-face tracking: the main face of every frame, with short gaps interpolated.

The main face is the one that continues the last one, else the largest and most central. Landmarks are interpolated across
a short gap between two detected frames. In a longer gap, before the first and after the last detection, frames hold the
nearest landmarks and are marked missing. Every frame is returned, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...cache.features import FrameStatus
from .detection import Detections, Detector, iou

IOU_THRESH = 0.3
"""IoU (0..1) with the last box from which a face is the same person."""
ROI_IOU_THRESH = 0.5
"""IoU (0..1) with the last box from which the rest of the image need not be searched."""
ROI_SCORE_RATIO = 0.8
"""If the score falls below this fraction of the last one, the whole image is searched."""
FULL_DETECT_INTERVAL = 25
"""Frames after which the whole image is searched again."""
MAX_GAP = 12
"""Longest gap in frames that is interpolated; its frames are held in memory."""


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


class FaceTracker:
    """Tracks the main face through the frames of a video, mostly by searching around its last box.

    The whole image is searched at first, every FULL_DETECT_INTERVAL frames, and if the region around the last box has no
    face of about the same position and size and a similar score.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._last_box: np.ndarray | None = None
        self._last_score = 0.0
        self._frames_since_full = 0

    def __call__(self, image: np.ndarray) -> Face | None:
        """Return the main face of the next frame, or None if no face is detected."""
        if self._last_box is not None and self._frames_since_full < FULL_DETECT_INTERVAL:
            faces = self._detector.detect_roi(image, self._last_box)
            if faces is not None and (index := self._match(faces, self._last_box)) is not None:
                self._frames_since_full += 1
                return self._update(faces, index)
        self._frames_since_full = 0
        faces = self._detector(image)
        index = select_face(faces, self._last_box, image.shape)
        return None if index is None else self._update(faces, index)

    def _match(self, faces: Detections, last_box: np.ndarray) -> int | None:
        if not len(faces):
            return None
        overlaps = iou(faces.boxes, last_box)  # low for another position and for another size
        index = int(overlaps.argmax())
        same_score = faces.scores[index] >= ROI_SCORE_RATIO * self._last_score
        return index if overlaps[index] >= ROI_IOU_THRESH and same_score else None

    def _update(self, faces: Detections, index: int) -> Face:
        self._last_box, self._last_score = faces.boxes[index], float(faces.scores[index])
        return Face(faces.boxes[index], faces.landmarks[index], self._last_score, FrameStatus.DETECTED)


def _center_weighted_area(boxes: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Return area minus twice the squared distance to the center, by which insightface selects the main face."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    center = np.array([image_shape[1], image_shape[0]]) / 2
    return areas - 2.0 * np.sum(((boxes[:, :2] + boxes[:, 2:]) / 2 - center) ** 2, axis=1)


class GapInterpolator:
    """Fills gaps in a sequence of (image, face or None), which is returned in order.

    ``push`` yields the frames that are complete, ``flush`` the rest. A face is None in the output only if no face was
    known before the frame or soon enough after it.
    """

    def __init__(self) -> None:
        self._last: Face | None = None
        self._pending: list[np.ndarray] = []

    def push(self, image: np.ndarray, face: Face | None) -> Iterator[tuple[np.ndarray, Face | None]]:
        if face is None:
            self._pending.append(image)
            if len(self._pending) > MAX_GAP:
                yield from self.flush()
            return
        yield from self._fill_gap(face)
        self._last = face
        yield image, face

    def flush(self) -> Iterator[tuple[np.ndarray, Face | None]]:
        if self._last is not None and self._pending:
            self._last = _hold(self._last)  # the gap is too long: the next face is not interpolated with this one
        for image in self._pending:
            yield image, self._last
        self._pending = []

    def _fill_gap(self, after: Face) -> Iterator[tuple[np.ndarray, Face]]:
        before = self._last
        for number, image in enumerate(self._pending, start=1):
            # faces that do not overlap at all are two people or two scenes
            if (
                before is not None
                and before.status == FrameStatus.DETECTED
                and iou(after.box[np.newaxis], before.box)[0] > 0
            ):
                yield image, _interpolate(before, after, number / (len(self._pending) + 1))
            else:
                yield image, _hold(before or after)
        self._pending = []


def _interpolate(before: Face, after: Face, fraction: float) -> Face:
    """Return the face at a fraction (0..1) of the time between two faces."""
    box = (before.box + (after.box - before.box) * fraction).astype(np.float32)
    landmarks = (before.landmarks + (after.landmarks - before.landmarks) * fraction).astype(np.float32)
    return Face(box, landmarks, float("nan"), FrameStatus.INTERPOLATED)


def _hold(face: Face) -> Face:
    return Face(face.box, face.landmarks, float("nan"), FrameStatus.MISSING)
