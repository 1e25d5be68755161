"""Feature bank: cached features on the device, joined with a manifest for training and evaluation."""

from __future__ import annotations

import hashlib
import mmap
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...cache.atomic import fold_stem
from ...cache.errors import CeflError, shorten_list
from ...cache.features import TRAINABLE_STATUSES, FeatureTable, FoldFeatures, VideoIndex, VideoStatus
from ...cache.hdf5 import read_features
from ..manifest.manifest import Manifest, VideoEntry
from .free_memory import available_bytes

MAX_ABSENT_FRACTION = 0.05
"""Highest fraction (0..1) of a manifest's videos that may be absent from the cache; they count as errors."""


STEPS_AHEAD = 2
"""Batches of features that are read from the disk while one is computed on."""
MAX_GAP = 16
"""Rows between two needed ones that are read along with them, since reading them costs less than another access to the disk."""

T = TypeVar("T")


def load_table(path: Path, *, verify: bool = True) -> FeatureTable:
    """Read the features of a cache to train on, as a memory map if they would take more than half of what is free.

    Raises CeflError as read_features.
    """
    mapped = path.is_file() and path.stat().st_size > available_bytes(torch.device("cpu")) // 2
    return read_features(path, verify=verify, mapped=mapped)


class MappedFeatures:
    """Features in a memory map, so that the system can be asked for many rows at once before each of them is needed.

    Without that, every page is read when it is first touched, one after the other: a tenth of the speed on a usual disk.
    """

    def __init__(self, features: np.ndarray) -> None:
        offset = features.offset if isinstance(features, np.memmap) else 0
        self._map = features.base if isinstance(features.base, mmap.mmap) else None
        self._offset, self._row_bytes = offset % mmap.ALLOCATIONGRANULARITY, features.strides[0]

    def read_ahead(self, rows: np.ndarray) -> None:
        """Begin to read the rows (indices in any order, with repetitions); does nothing where the system has no such call."""
        if self._map is None or not hasattr(self._map, "madvise") or not len(rows):
            return
        rows = np.unique(rows)
        is_first = np.diff(rows, prepend=rows[0] - MAX_GAP - 1) > MAX_GAP
        firsts, lasts = rows[is_first], rows[np.append(is_first[1:], True)]
        starts = (self._offset + firsts * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        ends = self._offset + (lasts + 1) * self._row_bytes
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._map.madvise(mmap.MADV_WILLNEED, start, end - start)


@dataclass(frozen=True)
class FeatureBank:
    """Features (N, D) of videos, back to back, and per video (V,) its first row, number of frames and label (0..C-1).

    ``mapped``: the file that the features are in, if they are a memory map. They may also be in the memory of the machine while
    all else is on a GPU, which they do not fit into.
    """

    features: Tensor
    start: Tensor
    length: Tensor
    label: Tensor
    num_classes: int
    mapped: MappedFeatures | None = None

    @property
    def is_remote(self) -> bool:
        """Whether batches of features should be fetched ahead: from a file, or from the memory of the machine to a GPU."""
        return self.mapped is not None or self.features.device != self.device

    @property
    def device(self) -> torch.device:
        """Where heads run on these features."""
        return self.start.device


def gather_frames(bank: FeatureBank, videos: Tensor, frames: Tensor) -> Tensor:
    """Return features (m, b, ..., D) float32 of videos (m, b) at frame indices (m, b, ...) into each video."""
    rows = bank.start[videos].view(*videos.shape, *[1] * (frames.ndim - videos.ndim)) + frames
    flat = rows.flatten().to(bank.features.device)
    if bank.mapped:
        bank.mapped.read_ahead(flat.numpy())
    # index_select copies whole rows; indexing with brackets copies single numbers and takes eight times as long
    features = bank.features.index_select(0, flat)
    return features.to(bank.device).float().view(*rows.shape, -1)


def iter_ahead(load: Callable[[T], Tensor], items: Iterable[T], *, is_remote: bool) -> Iterator[Tensor]:
    """Yield ``load(item)`` of each item in order; of a remote bank a thread loads the next STEPS_AHEAD ones meanwhile."""
    if not is_remote:
        yield from map(load, items)
        return
    with ThreadPoolExecutor(1) as pool:
        pending = deque()
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) > STEPS_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@dataclass(frozen=True)
class VideoDataset:
    """The entries of a manifest and the features of those that have any.

    ``status[i]``: status of entry i in the cache, or 'absent'. ``index[i]``: its video in ``bank``, or -1 if it has no
    features to train on. ``folds``: names of the folds' files if each fold has features of its own: then ``bank`` has every video
    once for each fold, in this order.
    """

    entries: tuple[VideoEntry, ...]
    labels: tuple[str, ...]
    status: list[str]
    index: np.ndarray
    bank: FeatureBank
    folds: tuple[str, ...] = ()

    def indices_of(self, entries: np.ndarray, fold: str) -> Tensor:
        """Return the videos in ``bank`` of the given entries (indices), without those that have no features.

        ``fold``: whose features they are to have, if each fold has its own; raises CeflError if it has none.
        """
        index = self.index[entries]
        first = 0
        if self.folds:
            if fold_stem(fold) not in self.folds:
                raise CeflError(
                    f"fold {fold}: there are features of other folds only ({shorten_list(list(self.folds))}); make those of this "
                    "run's folds with ceflpipe encoder adapt, or give the options --folds and --fold-scheme that it had"
                )
            first = self.folds.index(fold_stem(fold)) * (len(self.bank.start) // len(self.folds))
        return torch.from_numpy(index[index >= 0] + first)


def join_features(manifest: Manifest, table: FeatureTable, device: torch.device) -> VideoDataset:
    """Look up every entry of the manifest in the table.

    Raises CeflError if more than MAX_ABSENT_FRACTION of them are absent, none is usable, or features are not finite.
    """
    entries, videos = manifest.entries, table.videos
    rows = [table.index_of.get(entry.id) for entry in entries]
    status = [VideoStatus.ABSENT if row is None else videos.status[row] for row in rows]
    absent = [entry.id for entry, row in zip(entries, rows, strict=True) if row is None]
    if len(absent) > MAX_ABSENT_FRACTION * len(entries):
        raise CeflError(
            f"{len(absent)} of {len(entries)} videos of {manifest.name} are not in the feature cache "
            f"(e.g. {absent[0]}); run ceflpipe extract first"
        )
    usable = {i: row for i, row in enumerate(rows) if row is not None and _is_trainable(table, row)}
    if not usable:
        raise CeflError(f"no video of {manifest.name} has features; run ceflpipe inspect to see why")
    folds = table.folds if isinstance(table, FoldFeatures) else ()
    copies = table.features.reshape(max(1, len(folds)), -1, table.features.shape[1])
    for i in usable:
        if not np.isfinite(copies[:, table.rows(entries[i].id)]).all():
            raise CeflError(
                f"video {entries[i].id}: its cached features are NaN or infinite; run ceflpipe extract again"
            )
    index, cached = np.full(len(entries), -1), np.array(list(usable.values()))
    index[list(usable)] = np.arange(len(usable))
    starts = (np.arange(len(copies))[:, None] * copies.shape[1] + videos.start[cached]).reshape(-1)
    features = _to_device(table.features, device)
    is_mapped = features.device.type == "cpu" and isinstance(table.features, np.memmap)
    bank = FeatureBank(
        features=features,
        start=torch.from_numpy(starts).to(device),
        length=torch.from_numpy(videos.length[cached]).to(device).repeat(len(copies)),
        label=torch.tensor([manifest.labels.index(entries[i].label) for i in usable], device=device).repeat(
            len(copies)
        ),
        num_classes=len(manifest.labels),
        mapped=MappedFeatures(table.features) if is_mapped else None,
    )
    return VideoDataset(entries, manifest.labels, status, index, bank, folds)


def _to_device(features: np.ndarray, device: torch.device) -> Tensor:
    """Return the features on the device, or where they are if they would take more than half of its free memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to them
        tensor = torch.from_numpy(features)
    fits = device.type == "cpu" or features.nbytes <= available_bytes(device) // 2
    return tensor.to(device) if fits else tensor


def sources_sha256(ids: Iterable[str], videos: VideoIndex) -> str:
    """Return a hash of the source files of some videos, as the index of a cache records them; independent of their order."""
    known = dict(zip(videos.id, videos.source_sha256, strict=True))
    lines = sorted(f"{video_id} {known.get(video_id, '')}" for video_id in ids)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_trainable(table: FeatureTable, row: int) -> bool:
    return table.videos.status[row] in TRAINABLE_STATUSES and table.videos.length[row] > 0
