"""Face crops: those that the encoder gets, and wider ones for display, read back from a video at the cached landmarks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ...cache.features import FrameStatus
from ..align import align_crop, center_crop, crop_box, estimate_similarity, resize
from .tracking import Face
from .video_reader import DecodeError, open_video

DISPLAY_MARGIN = 0.2
"""Margin of displayed faces on each side, as a fraction of the encoder's crop, so that chin and forehead are visible."""


def crop_face(image: np.ndarray, face: Face | None, align: str, size: int, margin: float = 0.0) -> np.ndarray:
    """Return the crop (size, size, 3) of a face, or the center of the image if no face is known.

    ``align``: that of the extraction. ``margin``: on each side, as a fraction of the encoder's crop, which has none; a box is
    made square with it.
    """
    if face is None:
        return center_crop(image, size)
    if face.status == FrameStatus.GIVEN:
        return resize(image, size)
    if align == "box":
        return crop_box(image, _square(face.box, margin) if margin else face.box, size)
    inner = round(size / (1 + 2 * margin))
    return align_crop(image, face.landmarks, inner, (size - inner) / 2)


def landmarks_in_crop(face: Face, align: str, size: int) -> np.ndarray:
    """Return the positions (5, 2) of the landmarks in the encoder's crop, in pixels."""
    if align == "box":
        corner = np.floor(face.box[:2])
        return (face.landmarks - corner) * (size / np.maximum(np.ceil(face.box[2:]) - corner, 1))
    return cv2.transform(face.landmarks[None].astype(np.float64), estimate_similarity(face.landmarks, size))[0]


def read_frames(
    path: Path, indices: Collection[int], rotation: str = "", region: str = ""
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, frame) for the given frames in time order; the video is decoded once, up to the last of them.

    Frames are uint8 (H, W, 3) RGB. Raises DecodeError.
    """
    last = max(indices, default=0)
    for index, frame in enumerate(open_video(path, rotation, region).frames()):
        if index in indices:
            yield index, frame.image
        if index >= last:
            break


def read_face_crops(
    path: Path,
    frames: Sequence[int],
    landmarks: np.ndarray,
    boxes: np.ndarray,
    rotation: str = "",
    region: str = "",
    *,
    align: str,
    size: int,
) -> list[np.ndarray | None]:
    """Return a face with DISPLAY_MARGIN per frame index, uint8 (size, size, 3) RGB; None for frames that cannot be read.

    ``landmarks`` (T, 5, 2) and ``boxes`` (T, 4) of all frames are in pixels. Where they are NaN, the nearest known ones in
    time are used. ``align`` is that of the extraction: landmarks, box or resize.
    """
    (crops,) = read_track_crops(path, [TrackFrames(frames, landmarks, boxes)], rotation, region, align=align, size=size)
    return crops


class TrackFrames(NamedTuple):
    """Frames of the file to show a face track at; landmarks (T, 5, 2) and boxes (T, 4) of its own frames, from ``first`` on."""

    frames: Sequence[int]
    landmarks: np.ndarray
    boxes: np.ndarray
    first: int = 0


def read_track_crops(
    path: Path, tracks: Sequence[TrackFrames], rotation: str = "", region: str = "", *, align: str, size: int
) -> list[list[np.ndarray | None]]:
    """Return, for each track, what ``read_face_crops`` does; the video is read once for all of them."""
    at: dict[int, list[int]] = {}
    for number, track in enumerate(tracks):
        for frame in track.frames:
            at.setdefault(frame, []).append(number)
    crops: dict[tuple[int, int], np.ndarray] = {}
    try:
        for index, image in read_frames(path, at, rotation, region):
            for number in at[index]:
                track = tracks[number]
                values = {"landmarks": track.landmarks, "box": track.boxes}.get(align)
                nearest = None if values is None else _nearest_valid(values, index - track.first)
                face = None
                if nearest is not None:
                    face = Face(track.boxes[nearest], track.landmarks[nearest], float("nan"), FrameStatus.DETECTED)
                crops[number, index] = crop_face(image, face, align, size, DISPLAY_MARGIN)
    except DecodeError:
        pass  # frames before the error are still shown
    return [[crops.get((number, frame)) for frame in track.frames] for number, track in enumerate(tracks)]


def _nearest_valid(values: np.ndarray, frame: int) -> int | None:
    """Return the frame nearest to ``frame`` whose values (T, ...) are finite; None if there is none."""
    valid = np.flatnonzero(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    return int(valid[np.abs(valid - frame).argmin()]) if len(valid) else None


def _square(box: np.ndarray, margin: float) -> np.ndarray:
    """Return the square around a box (4,) with the margin added."""
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * (1 + margin) / 2
    return np.concatenate([center - half, center + half])
