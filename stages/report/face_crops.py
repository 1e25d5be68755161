"""Face crops at given frames, read back from the video at the cached landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ...cache.features import FeatureTable
from ..align import align_crop, center_crop, crop_box
from ..extract.video_reader import DecodeError, open_video

MARGIN = 0.2
"""Share of the crop's side that is shown around it, so that chin and brow are seen whole; the encoder sees the middle.
"""


def read_face_crops(
    path: Path, frames: Sequence[int], landmarks: np.ndarray, boxes: np.ndarray, *, align: str, side: int,
    rotation: str = "", region: str = "",
) -> list[np.ndarray | None]:  # fmt: skip
    """Return a face per wanted frame as uint8 (side, side, 3) RGB, None where the video gives no such frame.

    ``landmarks`` (T, 5, 2) and ``boxes`` (T, 4) of all frames in pixels, NaN where no face is known; there the nearest
    known ones in time stand in. ``align`` is the extraction's: by landmarks, by box, or as given ("resize"). The video
    is read once, up to the last wanted frame.
    """
    wanted = set(frames)
    found: dict[int, np.ndarray] = {}
    try:
        for number, picture in enumerate(open_video(path, rotation, region).frames()):
            if number in wanted:
                found[number] = crop_face(picture, number, landmarks, boxes, align, side)
            if number >= max(wanted):
                break
    except DecodeError:
        pass  # what could be read is shown, the rest stays None
    return [found.get(frame) for frame in frames]


def crop_face(
    picture: np.ndarray, frame: int, landmarks: np.ndarray, boxes: np.ndarray, align: str, side: int
) -> np.ndarray:
    """Return the face of one frame as uint8 (side, side, 3), as ``faces_at`` does."""
    inner = side / (1 + 2 * MARGIN)
    if align == "landmarks":
        known = nearest_valid(landmarks.reshape(len(landmarks), -1), frame)
        if known is not None:
            crop = align_crop(picture, landmarks[known], round(inner), (side - round(inner)) / 2)
            return crop if crop.shape[0] == side else cv2.resize(crop, (side, side))
    elif align == "box":
        known = nearest_valid(boxes, frame)
        if known is not None:
            return crop_box(picture, _square(boxes[known]), side)
    return center_crop(picture, side)


def alignment_of(table: FeatureTable) -> str:
    """Return how the crops of a cache were cut: landmarks, box, or resize where the data set gave them."""
    return table.settings.align


def nearest_valid(values: np.ndarray, frame: int) -> int | None:
    """Return the frame nearest to ``frame`` whose row of ``values`` (T, n) is finite, or None if none is."""
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    if not len(known):
        return None
    return int(known[np.abs(known - frame).argmin()])


def _square(box: np.ndarray) -> np.ndarray:
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * (1 + MARGIN) / 2
    return np.concatenate([middle - half, middle + half])
