"""Face crops at given frames, read back from the video at the cached landmarks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..align import align_crop, center_crop, crop_box
from ..extract.video_reader import DecodeError, open_video

MARGIN = 0.2
"""Margin on each side as a fraction of the encoder's crop, so that chin and forehead are visible."""


def read_frames(
    path: Path, indices: Collection[int], rotation: str = "", region: str = ""
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, frame) for the given frames in time order; the video is decoded once, up to the last of them.

    Frames are uint8 (H, W, 3) RGB. Raises DecodeError.
    """
    last = max(indices, default=0)
    for index, frame in enumerate(open_video(path, rotation, region).frames()):
        if index in indices:
            yield index, frame
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
    """Return a face per frame index as uint8 (size, size, 3) RGB; None for frames that cannot be read.

    ``landmarks`` (T, 5, 2) and ``boxes`` (T, 4) of all frames are in pixels. Where they are NaN, the nearest known ones in
    time are used. ``align`` is that of the extraction: landmarks, box or resize.
    """
    crops: dict[int, np.ndarray] = {}
    try:
        for index, image in read_frames(path, set(frames), rotation, region):
            crops[index] = _crop_with_margin(image, index, landmarks, boxes, align, size)
    except DecodeError:
        pass  # frames before the error are still shown
    return [crops.get(frame) for frame in frames]


def nearest_valid(values: np.ndarray, frame: int) -> int | None:
    """Return the frame nearest to ``frame`` whose values (T, ...) are finite; None if there is none."""
    valid = np.flatnonzero(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    return int(valid[np.abs(valid - frame).argmin()]) if len(valid) else None


def _crop_with_margin(
    image: np.ndarray, frame: int, landmarks: np.ndarray, boxes: np.ndarray, align: str, size: int
) -> np.ndarray:
    values = {"landmarks": landmarks, "box": boxes}.get(align)
    nearest = None if values is None else nearest_valid(values, frame)
    if nearest is None:
        return center_crop(image, size)
    if align == "box":
        return crop_box(image, _square(boxes[nearest]), size)
    inner = round(size / (1 + 2 * MARGIN))
    crop = align_crop(image, landmarks[nearest], inner, (size - inner) / 2)
    return crop if len(crop) == size else cv2.resize(crop, (size, size))


def _square(box: np.ndarray) -> np.ndarray:
    """Return the square around a box (4,) with the margin added."""
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * (1 + MARGIN) / 2
    return np.concatenate([center - half, center + half])
