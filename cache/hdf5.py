"""HDF5 layout of the feature cache: writing part files, packing, reading. The only module that imports h5py.

A part file has the layout of a feature cache with one video, so that packing is concatenating caches. docs/cache.md
describes the layout for readers in other languages.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .atomic import atomic_write, fold_stem
from .errors import CeflError, CorruptedError, OtherVersionError, first_line, shorten_list
from .features import ARRAY_FIELDS, FeatureTable, FoldFeatures, VideoFeatures, VideoIndex, checksum
from .fingerprint import ExtractionSettings

SCHEMA = 5
BLOCK_ROWS = 1 << 14
"""Rows that are read and written at a time, of videos that follow one another: one by one a video takes several times as long."""
BLOCK_BYTES = 64 << 20  # of crops, which have fewer rows in a block
ALIGNED_BYTES, PAGE_BYTES = 1 << 16, 1 << 12
"""Arrays of at least so many bytes begin at a multiple of a page of memory: see read_features."""
FRAME_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {  # name in the file -> (numpy type, shape after the frame axis)
    "features": ("<f2", (-1,)),  # the encoder's width; of a crop cache pixels, uint8
    "frames/time": ("<f8", ()),
    "frames/status": ("u1", ()),
    "frames/scene_start": ("u1", ()),
    "frames/score": ("<f4", ()),
    "frames/box": ("<f4", (4,)),
    "frames/landmarks": ("<f4", (5, 2)),
}
INDEX_NUMERIC = {
    "start": "<i8",
    "length": "<i8",
    "fps": "<f8",
    "declared_frames": "<i8",
    "width": "<i4",
    "height": "<i4",
}
INDEX_TEXT = (
    "id", "fingerprint", "detection", "source_sha256", "checksum", "status", "note", "rotation", "code_hash",
    "detection_code", "device", "decoder",
)  # fmt: skip
_CACHED_TEXT = ("fingerprint", "detection", "source_sha256", "status", "note", "code_hash", "detection_code", "decoder")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OVERHEAD = 1 << 16  # bytes of HDF5's own tables, and of the index of a few videos


@dataclass(frozen=True)
class VideoLocation:
    """One video in one file: the input of ``pack``."""

    path: Path
    index: int


@dataclass(frozen=True)
class CachedVideo:
    """The index entry of one video, and its location."""

    location: VideoLocation
    fingerprint: str
    detection: str
    source_sha256: str
    status: str
    note: str
    code_hash: str
    detection_code: str
    decoder: str
    settings: ExtractionSettings


def write_part(path: Path, video: VideoFeatures, settings: ExtractionSettings) -> None:
    """Write one extracted video as a part file; after a kill the file is complete or does not exist."""
    write_videos(path, [video], settings)


def write_videos(path: Path, videos: Sequence[VideoFeatures], settings: ExtractionSettings) -> None:
    """Write videos to a new file that replaces ``path`` in one step."""
    ends = np.cumsum([len(video.features) for video in videos], dtype=np.int64).tolist()
    starts, num_frames = [0, *ends][: len(videos)], sum(len(video.features) for video in videos)
    columns: dict[str, Sequence[Any]] = {"start": starts, "length": [len(video.features) for video in videos]}
    columns |= {
        key: [getattr(video, key) for video in videos] for key in (*INDEX_NUMERIC, *INDEX_TEXT) if key not in columns
    }
    with _create_file(path, num_frames, settings) as file:
        datasets = _create_datasets(file, num_frames, settings)
        for video, start, end in zip(videos, starts, ends, strict=True):
            for dataset, array in zip(datasets, video.arrays, strict=True):
                dataset[start:end] = array
        _write_index(file, columns)


def pack(path: Path, locations: Sequence[VideoLocation], settings: ExtractionSettings) -> list[str]:
    """Concatenate the videos at ``locations`` into a new file that replaces ``path`` in one step.

    The bytes of the file depend only on the videos and their order. Every video's checksum is verified first; corrupted
    videos are left out, and their ids are returned.
    """
    indexes = {file: read_index(file) for file in sorted({location.path for location in locations})}
    corrupted = _corrupted(locations, indexes)
    valid = [location for position, location in enumerate(locations) if position not in corrupted]
    columns = {
        key: [getattr(indexes[location.path], key)[location.index] for location in valid]
        for key in (*INDEX_NUMERIC, *INDEX_TEXT)
    }
    ends = np.cumsum(columns["length"], dtype=np.int64)
    columns["start"] = starts = [0, *ends.tolist()][: len(valid)]
    num_frames = int(sum(columns["length"]))
    with _create_file(path, num_frames, settings) as file:
        datasets = _create_datasets(file, num_frames, settings)
        for source, videos in _by_file(valid).items():
            for block, arrays in _iter_arrays(source, videos, indexes[source]):
                first, last = block[0][0], block[-1][0]
                for dataset, array in zip(datasets, arrays, strict=True):
                    dataset[starts[first] : ends[last]] = array
        _write_index(file, columns)
    return [indexes[locations[position].path].id[locations[position].index] for position in sorted(corrupted)]


def is_cache_file(path: Path) -> bool:
    """Return whether a file is a feature cache, or an HDF5 file so damaged that it may have been one."""
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return False
    try:
        with h5py.File(path, "r") as file:
            return {"schema", "settings"} <= set(file.attrs)
    except (OSError, KeyError, ValueError, RuntimeError):
        return True


def read_index(path: Path) -> VideoIndex:
    """Read the index of a feature cache, without the features; raises CeflError if it is missing or corrupted.

    Of a folder of fold caches it is that of the first.
    """
    path = next(iter(fold_caches(path).values()), path)
    with _open(path) as file:
        return _read_index(file, path)


def read_videos(files: Iterable[Path]) -> dict[str, CachedVideo]:
    """Read the index entries of several feature caches or part files by id; a later file takes precedence."""
    videos = {}
    for path in files:
        with _open(path) as file:
            index, settings = _read_index(file, path), _read_settings(file)
        for number, video_id in enumerate(index.id):
            values = {key: getattr(index, key)[number] for key in _CACHED_TEXT}
            videos[video_id] = CachedVideo(VideoLocation(path, number), settings=settings, **values)
    return videos


def read_settings(path: Path) -> ExtractionSettings:
    """Read the extraction settings of a feature cache; raises CeflError if it is missing or corrupted.

    Of a folder of fold caches these are those of the first.
    """
    path = next(iter(fold_caches(path).values()), path)
    with _open(path) as file:
        _read_index(file, path)  # its checksum covers the settings
        return _read_settings(file)


def read_features(path: Path, *, verify: bool = True, features: bool = True, mapped: bool = False) -> FeatureTable:
    """Load a feature cache into memory. Without ``features`` these are (0, D), and checksums are not verified.

    ``mapped``: the arrays stay in the file and are read as they are needed (read-only memory maps), unless an older version
    wrote it, in chunks. Raises CeflError if the file is missing or not a feature cache, or (``verify``) if a video does not match
    its checksum; and for a crop cache, which is read in parts (read_crops) and never as a whole. A folder of fold caches is
    read as ``read_fold_features`` does.
    """
    if path.is_dir():
        return read_fold_features(path, verify=verify)
    with _open(path) as file:
        index = _read_index(file, path)
        if features and _read_settings(file).is_crops:
            raise CeflError(
                f"{path}: a crop cache: it holds the pixels of faces, not features; give a feature cache, which ceflpipe extract "
                "makes"
            )
        load = _map if mapped else _load
        arrays = [load(file, name) for name in FRAME_ARRAYS if features or name != "features"]
        settings = _read_settings(file)
    if not features:
        arrays.insert(0, np.zeros((0, settings.width), np.float16))
    elif verify:
        spans = [slice(start, start + length) for start, length in zip(index.start, index.length, strict=True)]
        corrupted = [
            video_id
            for video_id, span, expected in zip(index.id, spans, index.checksum, strict=True)
            if checksum(*(array[span] for array in arrays)) != expected
        ]
        if corrupted:
            raise CeflError(
                f"{path}: {len(corrupted)} of {len(index)} videos corrupted, checksum mismatch ({shorten_list(corrupted)}); "
                f"run ceflpipe inspect {path} --verify to list them, ceflpipe extract --verify to redo them"
            )
    values: dict[str, Any] = dict(zip(ARRAY_FIELDS, arrays, strict=True))
    index_of = {video_id: number for number, video_id in enumerate(index.id)}
    return FeatureTable(videos=index, settings=settings, index_of=index_of, **values)


def fold_cache(folder: Path, fold: str) -> Path:
    """Return the feature cache of a fold, made by the encoder of that fold."""
    return folder / f"{fold_stem(fold)}.h5"


def fold_caches(folder: Path) -> dict[str, Path]:
    """Return the feature caches of folds in a folder by their names without extension, in the order of numbers; {} of a file."""
    files = folder.glob("fold-*.h5") if folder.is_dir() else ()
    return {file.stem: file for file in sorted(files, key=lambda file: (len(file.stem), file.stem))}


def read_fold_features(folder: Path, *, verify: bool = True) -> FoldFeatures:
    """Load the feature caches of all folds into memory, K times what one takes.

    Raises CeflError if there is none, if one cannot be read, or if two are not of the same videos and settings.
    """
    files = fold_caches(folder)
    if not files:
        raise CeflError(f"{folder}: no feature caches of folds (fold-1.h5, …); make them with ceflpipe encoder adapt")
    first, parts, hashes, encoders = None, np.zeros((0, 0), np.float16), [], []
    for number, path in enumerate(files.values()):
        table = read_features(path, verify=verify)
        if first is None:
            first, parts = table, np.empty((len(files), *table.features.shape), np.float16)
        same = replace(table.settings, encoder_sha256=first.settings.encoder_sha256) == first.settings
        indexes = (table.videos, first.videos)
        if not same or any(
            index.id != first.videos.id or index.detection != first.videos.detection for index in indexes
        ):
            raise CeflError(
                f"{path}: not of the videos, faces and settings of {next(iter(files.values()))}; make both with one ceflpipe "
                "encoder adapt"
            )
        parts[number] = table.features
        hashes.append(table.features_sha256)
        encoders.append(table.settings.encoder_sha256)
    if first is None:
        raise CeflError(f"{folder}: no feature caches of folds")
    values = {field.name: getattr(first, field.name) for field in fields(FeatureTable)}
    digest = hashlib.sha256("\n".join(encoders).encode()).hexdigest()
    values |= {
        "features": parts.reshape(-1, first.width),
        "settings": replace(first.settings, encoder_sha256=digest),
    }
    return FoldFeatures(**values, folds=tuple(files), encoders=tuple(encoders), hashes=tuple(hashes))


def read_video(path: Path, video_id: str, index: VideoIndex | None = None) -> VideoFeatures:
    """Read one video of a feature cache; ``index``: what read_index returned, to read it once for several videos.

    Raises CeflError if the cache has no such video, or its bytes do not match its checksum.
    """
    index = index or read_index(path)
    if video_id not in index.id:
        raise CeflError(f"{path}: has no video {video_id}; extract it with ceflpipe extract")
    number = index.id.index(video_id)
    with _open(path) as file:
        arrays = _read_arrays(file, index, [(0, number)])
    if checksum(*arrays) != index.checksum[number]:
        raise CorruptedError(
            f"{path}: corrupted: checksum mismatch of {video_id}; redo it with ceflpipe extract --verify"
        )
    keys = [key for key in (*INDEX_NUMERIC, *INDEX_TEXT) if key not in ("start", "length", "checksum")]
    values: dict[str, Any] = {key: getattr(index, key)[number] for key in keys}
    values |= {key: value.item() for key, value in values.items() if isinstance(value, np.generic)}
    values |= dict(zip(ARRAY_FIELDS, arrays, strict=True))
    return VideoFeatures(**values)


def read_crops(
    path: Path, index: VideoIndex, number: int, frames: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Read crops (T, S, S, 3) uint8 of the ``number``-th video of a crop cache; ``index``: what read_index returned for it.

    ``frames``: their indices in the video; None: all. Raises CeflError if it is not a crop cache.
    """
    with _open(path) as file:
        settings = _read_settings(file)
        if not settings.is_crops:
            raise CeflError(f"{path}: a feature cache, which has no crops; make a crop cache with ceflpipe crops")
        start = int(index.start[number])
        rows = _dataset(file, "features")[start : start + int(index.length[number])]
    crops = rows.reshape(-1, settings.crop_size, settings.crop_size, 3)
    return crops if frames is None else crops[np.asarray(frames, np.int64)]


def set_aside(path: Path, target: Path, reason: str) -> Path:
    """Rename a file to the first of TARGET.REASON-1, -2 … that is free, and return that. The caller holds the writer's lock."""
    aside = _free_name(target, reason)
    os.replace(path, aside)
    return aside


def keep_replaced(path: Path, reason: str) -> Path:
    """Give a file that is about to be replaced a second name like those of ``set_aside``; readers find the first as before."""
    aside = _free_name(path, reason)
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        shutil.copy2(path, aside)
    return aside


def _free_name(target: Path, reason: str) -> Path:
    names = (target.with_name(f"{target.name}.{reason}-{number}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def corrupted_videos(path: Path) -> list[str]:
    """Return the ids of the videos whose bytes do not match their checksum; raises CeflError if the index is corrupted."""
    index = read_index(path)
    corrupted = _corrupted([VideoLocation(path, number) for number in range(len(index))], {path: index})
    return [index.id[number] for number in sorted(corrupted)]


def _corrupted(locations: Sequence[VideoLocation], indexes: Mapping[Path, VideoIndex]) -> set[int]:
    """Return the positions in ``locations`` of the videos that do not match their checksum."""
    corrupted = set()
    for path, videos in _by_file(locations).items():
        index = indexes[path]
        with _open(path) as file:
            for block in _blocks(videos, index, _block_rows(file)):
                corrupted |= _corrupted_in_block(file, index, block)
    return corrupted


def _corrupted_in_block(file: h5py.File, index: VideoIndex, block: Sequence[tuple[int, int]]) -> set[int]:
    try:
        arrays = _read_arrays(file, index, block)
    except OSError as error:  # HDF5 cannot read an array whose address in the file was overwritten
        if _system_errno(error):
            raise
        return (
            set().union(*(_corrupted_in_block(file, index, [video]) for video in block)) if block[1:] else {block[0][0]}
        )
    offset, corrupted = int(index.start[block[0][1]]), set()
    for position, number in block:
        first = int(index.start[number]) - offset
        last = first + int(index.length[number])
        if checksum(*(array[first:last] for array in arrays)) != index.checksum[number]:
            corrupted.add(position)
    return corrupted


def _blocks(videos: Sequence[tuple[int, int]], index: VideoIndex, max_rows: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the videos (see _by_file) of one file in groups that follow one another in both orders, of about ``max_rows``."""
    block: list[tuple[int, int]] = []
    rows = 0
    for position, number in videos:
        follows = block and position == block[-1][0] + 1 and number == block[-1][1] + 1
        length = int(index.length[number])
        if block and (not follows or rows + length > max_rows):
            yield block
            block, rows = [], 0
        block.append((position, number))
        rows += length
    if block:
        yield block


def _block_rows(file: h5py.File) -> int:
    """Return how many rows are read at a time."""
    features = _dataset(file, "features")
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, features.shape[1] * features.dtype.itemsize)))


def _by_file(locations: Sequence[VideoLocation]) -> dict[Path, list[tuple[int, int]]]:
    """Return, per file, the (position in ``locations``, index in the file) of its videos, so that each is opened once."""
    files: dict[Path, list[tuple[int, int]]] = {}
    for position, location in enumerate(locations):
        files.setdefault(location.path, []).append((position, location.index))
    return files


def _iter_arrays(
    path: Path, videos: Sequence[tuple[int, int]], index: VideoIndex
) -> Iterator[tuple[list[tuple[int, int]], list[np.ndarray]]]:
    """Yield (videos, arrays) of the blocks of one file. Errors of the caller between two items are not reported as errors of
    this file."""
    with _open(path) as file:
        for block in _blocks(videos, index, _block_rows(file)):
            yield block, _read_arrays(file, index, block)


def _read_arrays(file: h5py.File, index: VideoIndex, block: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return the arrays of videos that follow one another."""
    first, last = block[0][1], block[-1][1]
    rows = slice(int(index.start[first]), int(index.start[last]) + int(index.length[last]))
    return [_dataset(file, name)[rows] for name in FRAME_ARRAYS]


def _create_datasets(file: h5py.File, num_frames: int, settings: ExtractionSettings) -> list[h5py.Dataset]:
    file.attrs["schema"] = SCHEMA
    file.attrs["settings"] = settings.to_json()
    datasets = []
    for name, (dtype, shape) in _frame_arrays(settings).items():
        datasets.append(file.create_dataset(name, (num_frames, *shape), dtype))
    return datasets


def _frame_arrays(settings: ExtractionSettings) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return FRAME_ARRAYS with the type and width of the features of these settings."""
    return {**FRAME_ARRAYS, "features": (settings.dtype, (settings.width,))}


def frame_bytes(width: int, itemsize: int = 2) -> int:
    """Return the bytes of a frame in a file, with ``width`` features of ``itemsize`` bytes."""
    others = (value for name, value in FRAME_ARRAYS.items() if name != "features")
    return width * itemsize + sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in others)


def _write_index(file: h5py.File, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the index and a checksum over it and the settings; the frame arrays have a checksum per video."""
    for key, dtype in INDEX_NUMERIC.items():
        file.create_dataset(f"videos/{key}", data=np.asarray(columns[key], dtype=dtype))
    for key in INDEX_TEXT:
        encoded = [text.encode("utf-8") for text in columns[key]]
        width = max([1, *map(len, encoded)])
        file.create_dataset(f"videos/{key}", data=np.array(encoded, h5py.string_dtype("utf-8", width)))
    file.attrs["index_sha256"] = _index_sha256(file)


def _read_settings(file: h5py.File) -> ExtractionSettings:
    try:
        return ExtractionSettings.from_json(str(file.attrs["settings"]))
    except TypeError:  # whole, as its checksum says, but with other fields
        raise _other_version_error(file.filename, "other settings") from None


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
    texts = {key: [_decode(item, path) for item in _dataset(file, f"videos/{key}")[()]] for key in INDEX_TEXT}
    numbers = {key: _dataset(file, f"videos/{key}")[()].astype(dtype) for key, dtype in INDEX_NUMERIC.items()}
    video_counts = {len(values) for values in (*texts.values(), *numbers.values())}
    shapes = {name: _dataset(file, name).shape for name in FRAME_ARRAYS}
    frame_counts = {shape[0] for shape in shapes.values() if shape}
    if len(video_counts) != 1 or len(frame_counts) != 1:
        raise _corrupted_error(path, "its arrays differ in length")
    offsets = np.concatenate([[0], np.cumsum(numbers["length"])]).astype(np.int64)
    if (
        (numbers["length"] < 0).any()
        or not np.array_equal(numbers["start"], offsets[:-1])
        or {offsets[-1]} != frame_counts
    ):
        raise _corrupted_error(path, "the lengths of its videos do not add up to its frames")
    if str(file.attrs.get("index_sha256")) != _index_sha256(file):
        raise _corrupted_error(path, "its index or settings do not match their checksum")
    expected = {name: shape for name, (_, shape) in _frame_arrays(_read_settings(file)).items()}
    if any(shapes[name][1:] != shape for name, shape in expected.items()):
        raise _corrupted_error(path, "an array has another width than its settings say")
    return VideoIndex(**texts, **numbers)


@contextmanager
def _create_file(path: Path, num_frames: int, settings: ExtractionSettings) -> Iterator[h5py.File]:
    """Yield a new file that replaces ``path``; raises OSError, before anything is written, if the disk is full.

    HDF5 itself notices a full disk when it closes the file, and can then neither close nor release it.
    """
    frame = frame_bytes(settings.width, np.dtype(settings.dtype).itemsize)
    with atomic_write(path, required_bytes=num_frames * frame + _OVERHEAD) as temporary:
        try:
            with h5py.File(temporary, "w", alignment_threshold=ALIGNED_BYTES, alignment_interval=PAGE_BYTES) as file:
                yield file
        except (RuntimeError, OSError) as error:
            number = _system_errno(error)
            if not number:
                raise
            raise OSError(number, os.strerror(number), str(path)) from None


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Open a feature cache or part file for reading.

    What h5py raises on damaged content becomes CorruptedError. Errors of the system (a lock, no rights, no descriptors, a
    stale handle, a failing disk) say nothing of the content and become another CeflError.
    """
    try:
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema")
            if schema is None or "settings" not in file.attrs:
                raise CeflError(
                    f"{path}: an HDF5 file, but not a feature cache; give the path of one, or move this file away"
                )
            if schema != SCHEMA:
                raise _other_version_error(path, f"schema {schema}, this version has {SCHEMA}")
            yield file
    except FileNotFoundError:
        raise CeflError(f"{path}: no such feature cache; create it with ceflpipe extract") from None
    except OSError as error:
        number = _system_errno(error)
        if number:
            raise _system_error(path, number) from None
        raise CorruptedError(
            f"{path}: not a readable HDF5 file ({first_line(error)}); run ceflpipe extract to create it again"
        ) from None
    except MemoryError:
        raise CeflError(f"{path}: not enough memory to read it; free some and run the same command again") from None
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise _corrupted_error(path, f"HDF5 cannot interpret it ({first_line(error)})") from None


def _system_errno(error: OSError | RuntimeError) -> int:
    """Return the number of the system's error behind an error of h5py, or 0 if the content of the file is at fault."""
    if "already open" in str(error):  # in this process, or with the flag that HDF5's newest format sets while writing
        return errno.EAGAIN
    number = error.errno if isinstance(error, OSError) else None
    match = re.search(r"errno = (\d+)", str(error))  # often only in the message
    number = number or (int(match[1]) if match else 0)
    return 0 if number in (errno.EINVAL, errno.EOVERFLOW) else number  # an address in the file that makes no sense


def _system_error(path: Path, number: int) -> CeflError:
    cures = {
        errno.EAGAIN: "another program has it open for writing (HDFView, MATLAB, h5py 'r+'); close it there",
        errno.EMFILE: "too many files are open; raise the limit with ulimit -n",
        errno.ENFILE: "too many files are open on this machine; close some",
        errno.EACCES: "no permission to read it; give yourself the right to",
        errno.EPERM: "no permission to read it; give yourself the right to",
        errno.ENOLCK: "its file system cannot lock files; set HDF5_USE_FILE_LOCKING=FALSE if nothing else writes it",
        errno.ESTALE: "the network file system has lost it (stale file handle); mount it again",
    }
    cure = cures.get(number, f"cannot be read ({os.strerror(number)}); see to that")
    return CeflError(f"{path}: {cure}, and run the same command again. Nothing was changed")


def _other_version_error(path: Path | str, contents: str) -> OtherVersionError:
    return OtherVersionError(
        f"{path}: a feature cache of another version of ceflpipe ({contents}); use that version, or pass --redo to "
        "ceflpipe extract: it keeps this file under another name and extracts its videos again"
    )


def _corrupted_error(path: Path | str, reason: str) -> CorruptedError:
    return CorruptedError(f"{path}: corrupted: {reason}; run ceflpipe extract to create it again")


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise _corrupted_error(file.filename, f"/{name} is missing")
    if dataset.nbytes > file.id.get_filesize():  # nothing is compressed, so it cannot be larger than the file
        raise _corrupted_error(file.filename, f"/{name} claims {dataset.nbytes} bytes, more than the file has")
    return dataset


def _load(file: h5py.File, name: str) -> np.ndarray:
    dataset = _dataset(file, name)
    array = np.empty(dataset.shape, FRAME_ARRAYS[name][0])
    if array.size:
        try:
            dataset.read_direct(array)
        except OSError as error:
            if _system_errno(error):
                raise
            raise CorruptedError(
                f"{file.filename}: corrupted: /{name} cannot be read ({first_line(error)}); run ceflpipe extract --verify "
                "to redo its videos"
            ) from None
    return array


def _map(file: h5py.File, name: str) -> np.ndarray:
    """Return an array as a memory map, or in memory if it is empty or not in one piece."""
    dataset = _dataset(file, name)
    dtype, offset = np.dtype(FRAME_ARRAYS[name][0]), dataset.id.get_offset()
    if not offset or offset % dtype.itemsize or dataset.dtype != dtype:
        return _load(file, name)
    if offset + dataset.nbytes > os.path.getsize(file.filename):  # reading it would kill the process
        raise _corrupted_error(file.filename, f"/{name} goes beyond the end of the file")
    return np.memmap(file.filename, dtype, "r", offset, dataset.shape)


def _decode(item: bytes, path: Path) -> str:
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupted_error(path, "a text in its index is not UTF-8") from None
