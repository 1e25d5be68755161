"""Association of detected faces with face tracks, by overlap, motion and colors.

A track is expected where it would be if it moved on as it did before. Where tracks overlap each other, the colors of the
faces before they met decide as well. A face that is hidden by another one is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .detection import Detections, iou

IOU_THRESH = 0.3
"""IoU (0..1) with the expected box from which a face continues a track."""
HIDDEN_IOU_THRESH = 0.1
"""The same for a face that was hidden by another one, since its motion meanwhile is not known."""
MEETING_IOU_THRESH = 0.2
"""IoU (0..1) of the boxes of two tracks from which they may be taken for each other, until they are apart again."""
APART_GAP = 0.5
"""Distance of the boxes of two tracks, in sides of the larger one, from which they are apart again and wholly visible."""
COLOR_MARGIN = 0.02
"""Difference of color similarities (0..1) below which colors do not tell two faces from each other."""
COLOR_WEIGHT = 4.0
"""Weight of the color similarity against the IoU, for tracks that overlap each other."""
MAX_GAP = 12
"""Longest time in frames for which a face may be lost."""
MAX_HIDDEN = 50
"""Longest time in frames for which a face may be hidden by another one."""
SMOOTHING = 0.1
"""Weight (0..1) of a frame in the speed and the colors of a track; higher in its first ones."""
MIN_DETECTIONS = 3
"""Times that a face must have been detected to be waited for while another one hides it."""
COLOR_BINS = 6
"""Bins per color channel."""


class TrackState:
    """What is known of a face track: its last box (4,) and frame, its speed in pixels per frame, and its colors.

    ``hidden``: its face was lost behind that of another track. ``doubts``: frames from which on it may be another face.
    """

    def __init__(self, number: int, box: np.ndarray, colors: np.ndarray) -> None:
        self.number, self.box, self.colors = number, box, colors
        self.hidden = False
        self.doubts: list[int] = []
        self.rivals: list[TrackState] = []
        self._speed = np.zeros(2)
        self._num_detections = 1

    def expected_box(self, number: int) -> np.ndarray:
        """Return the box in frame ``number`` if the face moves on."""
        return self.box + np.tile(self._speed * (number - self.number), 2)

    def is_over(self, number: int) -> bool:
        """Return whether the face has been lost for too long before frame ``number``."""
        return number - self.number - 1 > (MAX_HIDDEN if self.hidden else MAX_GAP)

    def update(self, number: int, box: np.ndarray, colors: np.ndarray | None = None, *, alone: bool = True) -> None:
        """Take the box, and the colors unless they are not known, of the face in frame ``number``.

        Unless it is ``alone`` it may be partly hidden, with another center and colors of both: its speed and colors are kept.
        """
        if alone or self._num_detections < MIN_DETECTIONS:
            frames = max(1, number - self.number)
            weight = max(1 - (1 - SMOOTHING) ** frames, 1 / self._num_detections)
            step = ((box - self.box)[:2] + (box - self.box)[2:]) / 2 / frames
            self._speed += weight * (step - self._speed)
            if colors is not None:
                self.colors = self.colors + weight * (colors - self.colors)
        self._num_detections += 1
        self.number, self.box, self.hidden = number, box, False

    def meet(self, other: TrackState, number: int) -> None:
        """Note that the track overlaps another one in frame ``number``; it is hidden if only the other one is seen."""
        if other not in self.rivals:
            self.rivals.append(other)
        self.hidden = self.hidden or (self._num_detections >= MIN_DETECTIONS and self.number < number == other.number)


def associate(
    number: int, image: np.ndarray, faces: Detections, tracks: Sequence[TrackState]
) -> tuple[list[int | None], list[int]]:
    """Find the face that continues each track in frame ``number``, and update the tracks.

    Returns the index of the face of each track, or None, and the indices of faces without a track.
    Pairs are formed greedily, the best first, so that two people next to each other keep their own faces.
    """
    colors = [color_histogram(image, box) for box in faces.boxes]
    matches: list[int | None] = [None] * len(tracks)
    scores = np.array([_scores(number, faces, colors, track) for track in tracks]).reshape(len(tracks), len(faces))
    while scores.size and scores.max() > 0:
        index, face = (int(i) for i in np.unravel_index(scores.argmax(), scores.shape))
        matches[index] = face
        scores[index, :] = scores[:, face] = 0
    near = [
        any(other is not track and box_gap(other.box, track.box) < APART_GAP for other in tracks) for track in tracks
    ]
    for track, face, crowded in zip(tracks, matches, near, strict=True):
        if face is not None:
            track.update(number, faces.boxes[face], colors[face], alone=not crowded)
    _find_rivals(number, tracks)
    for track, face in zip(tracks, matches, strict=True):
        if face is not None:
            _resolve_rivals(number, track, colors[face], tracks)
    return matches, [index for index in range(len(faces)) if index not in matches]


def color_histogram(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the color histogram of a box (4,) of an image, square roots of fractions; all zero outside the image."""
    x1, y1, x2, y2 = (int(value) for value in np.clip(box, 0, [*image.shape[1::-1]] * 2))
    part = image[y1:y2, x1:x2]
    if not part.size:
        return np.zeros(COLOR_BINS**3, np.float32)
    step = max(1, min(part.shape[:2]) // 32)
    part = np.ascontiguousarray(part[::step, ::step])
    histogram = cv2.calcHist([part], [0, 1, 2], None, [COLOR_BINS] * 3, [0, 256] * 3).ravel()
    return np.sqrt(histogram / histogram.sum())


def _scores(number: int, faces: Detections, colors: Sequence[np.ndarray], track: TrackState) -> np.ndarray:
    """Return how well each face continues a track (N,), 0 if it does not."""
    overlap = iou(faces.boxes, track.expected_box(number))
    if not track.rivals and not track.hidden:  # it may also have stopped
        overlap = np.maximum(overlap, iou(faces.boxes, track.box))
    near = overlap >= (HIDDEN_IOU_THRESH if track.hidden else IOU_THRESH)
    similarity = np.array([track.colors @ color for color in colors]) if track.rivals else 0.0
    return np.where(near, overlap + COLOR_WEIGHT * similarity, 0.0)


def _find_rivals(number: int, tracks: Sequence[TrackState]) -> None:
    """Note which tracks overlap each other, and which of them are hidden."""
    boxes = np.array([track.expected_box(number) for track in tracks]).reshape(-1, 4)
    for index, track in enumerate(tracks):
        for other_index in np.flatnonzero(iou(boxes, boxes[index]) >= MEETING_IOU_THRESH):
            if other_index != index:
                track.meet(tracks[int(other_index)], number)


def _resolve_rivals(number: int, track: TrackState, colors: np.ndarray, tracks: Sequence[TrackState]) -> None:
    """Forget the rivals that a track is apart from; if its face has not clearly its own colors, note the doubt."""
    for other in list(track.rivals):
        if other in tracks and (other.number < number or box_gap(other.box, track.box) < APART_GAP):
            continue  # hidden, or still too near
        track.rivals.remove(other)
        if track.colors @ colors - other.colors @ colors < COLOR_MARGIN:
            track.doubts.append(number)


def box_gap(box: np.ndarray, other: np.ndarray) -> float:
    """Return the distance of two boxes (4,) in sides of the larger one, negative if they overlap."""
    gap = np.maximum(box[:2] - other[2:], other[:2] - box[2:]).max()
    return float(gap / max((box[2:] - box[:2]).max(), (other[2:] - other[:2]).max(), 1e-6))
