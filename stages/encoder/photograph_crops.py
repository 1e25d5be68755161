"""Aligned face crops of photographs, prepared once in a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...cache.atomic import atomic_write, remove_stale_tmp, write_json
from ...cache.errors import CeflError, shorten_list
from ..align import align_crop
from ..callbacks import Executor, ProgressCallback, ignore_progress
from .augment import CONTEXT_RATIO
from .photographs import Photographs

FaceFinder = Callable[[np.ndarray], np.ndarray | None]
"""Returns the landmarks (5, 2) of the face in a uint8 RGB image in its pixels, or None; picklable."""
PHOTOGRAPHS_PER_TASK = 64
BORDER = 0.5
"""Each photograph is continued by its edge so far, in sides of it: a crop of a tightly cut face has no black border."""
VERSION = 1
"""Raised when the same photographs give other crops."""
CROPS_FILE, RECORD_FILE = "crops.npy", "crops.json"
RECORD_BYTES = 32
"""Of a photograph in the record, about."""


@dataclass(frozen=True)
class PhotographCrops:
    """``crops`` uint8 RGB (N, W, W, 3), W = size * CONTEXT_RATIO, with the aligned face of ``size`` pixels in the middle.

    ``rows``: the photograph of each crop; those that cannot be read have none. ``detected``: bool (N,), whether by a detection.
    """

    crops: np.ndarray
    rows: np.ndarray
    detected: np.ndarray
    size: int

    def describe(self) -> str:
        """Return the share of photographs with a detected face, in words."""
        return (
            f"faces detected in {self.detected.sum():,} of {len(self.rows):,} photographs; "
            "the others are cropped where faces usually are"
        )


def prepare_crops(
    photographs: Photographs,
    size: int,
    folder: Path,
    find_face: FaceFinder,
    *,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> PhotographCrops:
    """Detect and align every face into ``folder``, or take what an earlier call prepared there for the same photographs.

    A photograph without a detection is aligned by the median landmarks of the others, relative to its sides; if no face is
    found at all, the template covers the whole image. ``on_progress`` counts photographs. Raises CeflError if a worker died
    or no photograph can be read.
    """
    key, record = _key(photographs, size), folder / RECORD_FILE
    if values := _read_record(record, key):
        rows, detected = np.array(values["rows"]), np.array(values["detected"], bool)
        return PhotographCrops(np.load(folder / CROPS_FILE, mmap_mode="r"), rows, detected, size)
    landmarks, unreadable = _detect(photographs.paths, find_face, executor, on_progress)
    rows = np.array([row for row in range(len(photographs)) if row not in unreadable])
    if not len(rows):
        raise CeflError(f"{photographs.root}: none of {len(photographs)} images can be read: {unreadable[0]}")
    detected = np.asarray(np.isfinite(landmarks[rows]).all(axis=(1, 2)))
    usual = np.median(landmarks[rows][detected], axis=0) if detected.any() else None
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_tmp(folder / CROPS_FILE)
    width = round(size * CONTEXT_RATIO)
    with atomic_write(folder / CROPS_FILE) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (len(rows), width, width, 3)}
        )
        for row in rows:
            known = landmarks[row] if np.isfinite(landmarks[row]).all() else usual
            file.write(crop_photograph(read_image(photographs.paths[row]), known, size).tobytes())
    write_json(record, {"key": key, "rows": rows.tolist(), "detected": detected.tolist()})
    if unreadable:
        photographs.notes.append(
            f"{len(unreadable)} images cannot be read and are left out: {shorten_list(list(unreadable.values()), 3)}"
        )
    return PhotographCrops(np.load(folder / CROPS_FILE, mmap_mode="r"), rows, detected, size)


def crops_bytes(photographs: Photographs, size: int, folder: Path) -> int:
    """Return how many bytes ``prepare_crops`` will write into ``folder`` at most: none if the crops are there already."""
    if _read_record(folder / RECORD_FILE, _key(photographs, size)):
        return 0
    return len(photographs) * (crop_bytes(size) + RECORD_BYTES)


def crop_bytes(size: int) -> int:
    """Return the bytes of a crop (W, W, 3) of ``size`` pixels and its context."""
    return 3 * round(size * CONTEXT_RATIO) ** 2


def _read_record(record: Path, key: str) -> dict[str, Any]:
    """Return what an earlier call recorded of the same photographs; nothing if it recorded others, or has not finished."""
    try:
        values = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) and values.get("key") == key else {}


def crop_photograph(image: np.ndarray, landmarks: np.ndarray | None, size: int) -> np.ndarray:
    """Return the aligned crop (W, W, 3) of an image (H, W, 3); ``landmarks`` (5, 2) are relative to its width and height."""
    height, width = image.shape[:2]
    margin = (round(size * CONTEXT_RATIO) - size) / 2
    if landmarks is None:
        side = round(size * CONTEXT_RATIO)
        return cv2.resize(
            image, (side, side), interpolation=cv2.INTER_AREA if max(height, width) > side else cv2.INTER_LINEAR
        )
    border = round(BORDER * max(height, width))
    wide = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
    return align_crop(wide, landmarks * [width, height] + border, size, margin=margin)


def read_image(path: Path) -> np.ndarray:
    """Return an image as uint8 RGB (H, W, 3), upright as its Exif orientation says; raises CeflError if it cannot be read."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise CeflError(f"{path}: not an image that can be read; replace it or take it out of the list")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def detect_landmarks(task: tuple[int, list[Path]], find_face: FaceFinder) -> tuple[int, np.ndarray, dict[int, str]]:
    """Return (first row, landmarks (n, 5, 2) relative to each image's sides, names of unreadable images by row)."""
    first, paths = task
    landmarks, unreadable = np.full((len(paths), 5, 2), np.nan), {}
    for index, path in enumerate(paths):
        try:
            image = read_image(path)
        except CeflError:
            unreadable[first + index] = path.name
            continue
        points = find_face(image)
        if points is not None:
            landmarks[index] = points / image.shape[1::-1]
    return first, landmarks, unreadable


def _detect(
    paths: list[Path], find_face: FaceFinder, executor: Executor, on_progress: ProgressCallback
) -> tuple[np.ndarray, dict[int, str]]:
    landmarks, unreadable, completed = np.full((len(paths), 5, 2), np.nan), {}, 0
    tasks = list(_tasks(paths))
    for result in executor(partial(detect_landmarks, find_face=find_face), tasks):
        if len(result) == 2:  # the worker died
            raise CeflError(f"{result[0][1][0]}: {result[1]}; run the same command again")
        first, values, failed = result
        landmarks[first : first + len(values)] = values
        unreadable |= failed
        completed += len(values)
        on_progress(completed, len(paths), "detecting faces")
    return landmarks, unreadable


def _tasks(paths: list[Path]) -> Iterator[tuple[int, list[Path]]]:
    for first in range(0, len(paths), PHOTOGRAPHS_PER_TASK):
        yield first, paths[first : first + PHOTOGRAPHS_PER_TASK]


def _key(photographs: Photographs, size: int) -> str:
    """Return the hash of all that decides the crops: names, sizes and times of the files."""
    digest = hashlib.sha256(f"{VERSION} {size}\n".encode())
    for path in photographs.paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
