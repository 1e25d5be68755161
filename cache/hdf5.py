"""HDF5 layout of the feature cache: writing part files, packing, reading. The only module that imports h5py.

A cache and the part file of one finished video have the same layout, so a part is a cache of one video and packing is
putting caches end to end. docs/cache.md describes the layout for readers in other languages.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .atomic import atomic_write
from .errors import CeflError
from .features import FEATURE_DIM, FeatureTable, VideoFeatures, VideoIndex, checksum
from .fingerprint import ExtractionSettings

SCHEMA = 2
_OVERHEAD = 1 << 16  # bytes of HDF5's own tables, and of the index of a few videos
_HINT = "; run ceflpipe extract to make it again"
CHUNK_ROWS = 1024  # of 512 float16: 1 MiB
FRAME_ARRAYS = {  # name in the file -> (numpy type, shape after the frame axis)
    "features": ("<f2", (FEATURE_DIM,)),
    "frames/status": ("u1", ()),
    "frames/score": ("<f4", ()),
    "frames/box": ("<f4", (4,)),
    "frames/landmarks": ("<f4", (5, 2)),
}
INDEX_NUMERIC = {"start": "<i8", "length": "<i8", "fps": "<f8", "declared": "<i8", "width": "<i4", "height": "<i4"}
INDEX_TEXT = ("id", "fingerprint", "source_sha256", "checksum", "status", "note")


@dataclass(frozen=True)
class VideoLocation:
    """One video in one file: what ``pack`` copies."""

    path: Path
    index: int


def write_part(path: Path, video: VideoFeatures, settings: ExtractionSettings) -> None:
    """Write one finished video as a file of its own; after a kill the file is there whole, or not at all."""
    arrays = (video.features, video.frame_status, video.score, video.box, video.landmarks)
    texts = {
        "id": video.id, "fingerprint": video.fingerprint, "source_sha256": video.source_sha256,
        "checksum": video.checksum, "status": video.status, "note": video.note,
    }  # fmt: skip
    numbers = {
        "start": 0, "length": len(video.features), "fps": video.fps, "declared": video.declared_frames,
        "width": video.width, "height": video.height,
    }  # fmt: skip
    with _create_file(path, len(video.features)) as file:
        datasets = _create_datasets(file, len(video.features), settings)
        for dataset, array in zip(datasets, arrays, strict=True):
            dataset[...] = array
        _write_index(file, {k: [v] for k, v in texts.items()}, {k: [v] for k, v in numbers.items()})


def pack(path: Path, locations: Sequence[VideoLocation], settings: ExtractionSettings) -> list[str]:
    """Put the videos of ``entries`` end to end into a new file that replaces ``path`` in one step.

    The bytes depend on the content and its order alone. Every video's checksum is compared on the way; the ids of
    those whose bytes have changed on disk are returned, and left out.
    """
    indexes = {file: read_index(file) for file in sorted({entry.path for entry in locations})}
    damaged = [name for name, entry in _corrupted(locations, indexes)]
    kept = [entry for entry in locations if indexes[entry.path].id[entry.index] not in damaged]
    lengths = [int(indexes[entry.path].length[entry.index]) for entry in kept]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if kept else np.zeros(0, np.int64)
    texts = {key: [getattr(indexes[e.path], key)[e.index] for e in kept] for key in INDEX_TEXT}
    numbers = {key: [getattr(indexes[e.path], key)[e.index] for e in kept] for key in INDEX_NUMERIC if key != "start"}
    with _create_file(path, sum(lengths)) as file:
        datasets = _create_datasets(file, sum(lengths), settings)
        for source, rows in _by_file(kept).items():
            for position, arrays in _videos(source, rows, indexes[source]):
                for dataset, array in zip(datasets, arrays, strict=True):
                    dataset[starts[position] : starts[position] + lengths[position]] = array
        _write_index(file, texts, {"start": starts, **numbers})
    return damaged


def _videos(path: Path, rows: Sequence[tuple[int, int]], index: VideoIndex) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield (position, arrays) of videos of one file. What goes wrong while a caller writes them is not this file's fault."""
    with _open(path) as file:
        for position, row in rows:
            begin, end = int(index.start[row]), int(index.start[row] + index.length[row])
            yield position, [_dataset(file, name)[begin:end] for name in FRAME_ARRAYS]


def read_index(path: Path) -> VideoIndex:
    """Read what a cache says of its videos, without the features."""
    with _open(path) as file:
        return _read_index(file, path)


def read_settings(path: Path) -> ExtractionSettings:
    """Return the extraction settings a cache was made with."""
    with _open(path) as file:
        return _read_settings(file)


def read_features(path: Path, *, verify: bool = True, features: bool = True) -> FeatureTable:
    """Load a whole cache into memory; without ``features`` (they are then (0, 512)) it is small, and cannot be verified.

    Raises CeflError when the file is missing, is not a cache, or (``verify``) a video's bytes no longer match the
    checksum they were written with.
    """
    with _open(path) as file:
        index = _read_index(file, path)
        arrays = [_load(file, name) for name in FRAME_ARRAYS if features or name != "features"]
        settings = _read_settings(file)
    if not features:
        arrays.insert(0, np.zeros((0, FEATURE_DIM), np.float16))
    elif verify:
        bad = [
            index.id[row]
            for row in range(len(index))
            if checksum(*(a[index.start[row] : index.start[row] + index.length[row]] for a in arrays))
            != index.checksum[row]
        ]
        if bad:
            raise CeflError(
                f"{path}: {len(bad)} of {len(index)} videos have changed on disk since they were written "
                f"({_some(bad)}); run ceflpipe inspect {path} --verify to see them, ceflpipe extract --verify to redo them"
            )
    values, status, score, box, landmarks = arrays
    rows = {name: row for row, name in enumerate(index.id)}
    return FeatureTable(values, status, score, box, landmarks, index, settings, rows)


def corrupted_videos(path: Path) -> list[str]:
    """Return the ids of the videos whose bytes no longer match their checksum."""
    index = read_index(path)
    return [name for name, _ in _corrupted([VideoLocation(path, row) for row in range(len(index))], {path: index})]


def _corrupted(entries: Iterable[VideoLocation], indexes: dict[Path, VideoIndex]) -> list[tuple[str, VideoLocation]]:
    bad = []
    entries = list(entries)
    for path, rows in _by_file(entries).items():
        index = indexes[path]
        with _open(path) as file:
            for position, row in rows:
                begin, end = int(index.start[row]), int(index.start[row] + index.length[row])
                try:
                    found = checksum(*(_dataset(file, name)[begin:end] for name in FRAME_ARRAYS))
                except OSError:  # HDF5 cannot read a chunk whose place in the file was overwritten
                    found = "unreadable"
                if found != index.checksum[row]:
                    bad.append((index.id[row], entries[position]))
    return bad


def _by_file(entries: Sequence[VideoLocation]) -> dict[Path, list[tuple[int, int]]]:
    """Return, per file, the (position in entries, row in the file) of its videos, so that each is opened once."""
    files: dict[Path, list[tuple[int, int]]] = {}
    for position, entry in enumerate(entries):
        files.setdefault(entry.path, []).append((position, entry.index))
    return files


def _create_datasets(file: h5py.File, rows: int, settings: ExtractionSettings) -> list[h5py.Dataset]:
    file.attrs["schema"] = SCHEMA
    file.attrs["settings"] = settings.to_json()
    datasets = []
    for name, (kind, shape) in FRAME_ARRAYS.items():
        chunks = (min(CHUNK_ROWS, rows), *shape) if rows else None
        datasets.append(file.create_dataset(name, (rows, *shape), kind, chunks=chunks))
    return datasets


def _write_index(file: h5py.File, texts: dict[str, list[str]], numbers: dict[str, Any]) -> None:
    """Write what is known of the videos, and a checksum over it and the settings: arrays have theirs per video."""
    for key, kind in INDEX_NUMERIC.items():
        file.create_dataset(f"videos/{key}", data=np.asarray(numbers[key], dtype=kind))
    for key in INDEX_TEXT:
        encoded = [text.encode("utf-8") for text in texts[key]]
        width = max([1, *map(len, encoded)])
        file.create_dataset(f"videos/{key}", data=np.array(encoded, h5py.string_dtype("utf-8", width)))
    file.attrs["index_sha256"] = _index_sha256(file)


def _read_settings(file: h5py.File) -> ExtractionSettings:
    return ExtractionSettings.from_json(str(file.attrs["settings"]))


def _index_sha256(file: h5py.File) -> str:
    digest = hashlib.sha256(str(file.attrs["settings"]).encode())
    for key in (*INDEX_NUMERIC, *INDEX_TEXT):
        values = _dataset(file, f"videos/{key}")[()]
        digest.update(f"{key} {len(values)}".encode())
        digest.update(
            b"\n".join(values.tolist()) if key in INDEX_TEXT else np.asarray(values, INDEX_NUMERIC[key]).tobytes()
        )
    return digest.hexdigest()


def _read_index(file: h5py.File, path: Path) -> VideoIndex:
    texts = {key: [_text(item, path) for item in _dataset(file, f"videos/{key}")[()]] for key in INDEX_TEXT}
    numbers = {key: _dataset(file, f"videos/{key}")[()].astype(kind) for key, kind in INDEX_NUMERIC.items()}
    counts = {len(values) for values in (*texts.values(), *numbers.values())}
    rows = {len(_dataset(file, name)) for name in FRAME_ARRAYS}
    lengths, starts = numbers["length"], numbers["start"]
    if len(counts) != 1 or len(rows) != 1:
        raise CeflError(f"{path}: damaged: its arrays differ in length{_HINT}")
    expected = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if (lengths < 0).any() or not np.array_equal(starts, expected[:-1]) or expected[-1] != rows.pop():
        raise CeflError(f"{path}: damaged: its videos do not fill the frames{_HINT}")
    if str(file.attrs.get("index_sha256")) != _index_sha256(file):
        raise CeflError(f"{path}: damaged: what it says of its videos has changed since it was written{_HINT}")
    return VideoIndex(**texts, **numbers)


@contextmanager
def _create_file(path: Path, rows: int) -> Iterator[h5py.File]:
    """Yield a new file that takes the place of ``path``; raises OSError, before anything is written, where the disk is full.

    HDF5 itself meets a full disk when it closes the file, and can then neither close it nor forget it.
    """
    per_row = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in FRAME_ARRAYS.values())
    with atomic_write(path, required_bytes=rows * per_row + _OVERHEAD) as temporary:
        try:
            with h5py.File(temporary, "w") as file:
                yield file
        except RuntimeError as error:
            number = next((n for n in (errno.ENOSPC, errno.EFBIG, errno.EIO) if f"errno = {n}" in str(error)), None)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(path)) from None


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Open a cache for reading; whatever HDF5 raises on a damaged file comes out as CeflError."""
    if not path.exists():
        raise CeflError(f"{path}: no such feature cache; make it with ceflpipe extract")
    try:
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema")
            if schema != SCHEMA or "settings" not in file.attrs:
                raise CeflError(
                    f"{path}: not a feature cache of schema {SCHEMA} (found {schema}); make it with ceflpipe extract"
                )
            yield file
    except OSError as error:
        raise CeflError(f"{path}: not a readable HDF5 file ({_first_line(error)})") from None
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise CeflError(f"{path}: damaged: HDF5 cannot make sense of it ({_first_line(error)}){_HINT}") from None


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise CeflError(f"{file.filename}: damaged: /{name} is missing{_HINT}")
    if found.nbytes > file.id.get_filesize():  # nothing is compressed, so it cannot hold more than its bytes
        raise CeflError(f"{file.filename}: damaged: /{name} claims {found.nbytes} bytes{_HINT}")
    return found


def _load(file: h5py.File, name: str) -> np.ndarray:
    dataset = _dataset(file, name)
    array = np.empty(dataset.shape, FRAME_ARRAYS[name][0])
    if array.size:
        try:
            dataset.read_direct(array)
        except OSError as error:
            raise CeflError(f"{file.filename}: /{name} cannot be read ({_first_line(error)})") from None
    return array


def _text(item: bytes, path: Path) -> str:
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError:
        raise CeflError(f"{path}: damaged: an id is not text{_HINT}") from None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
