"""Feature bank: cached features on the device, joined with a manifest for training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...cache.atomic import fold_stem
from ...cache.errors import CeflError, shorten_list
from ...cache.features import TRAINABLE_STATUSES, FeatureTable, FoldFeatures, VideoIndex, VideoStatus
from ..manifest.manifest import Manifest, VideoEntry

MAX_ABSENT_FRACTION = 0.05
"""Highest fraction (0..1) of a manifest's videos that may be absent from the cache; they count as errors."""


@dataclass(frozen=True)
class FeatureBank:
    """Features (N, D) of videos, back to back, and per video (V,) its first row, number of frames and label (0..C-1)."""

    features: Tensor
    start: Tensor
    length: Tensor
    label: Tensor
    num_classes: int


def gather_frames(bank: FeatureBank, videos: Tensor, frames: Tensor) -> Tensor:
    """Return features (m, b, ..., D) float32 of videos (m, b) at frame indices (m, b, ...) into each video."""
    rows = bank.start[videos].view(*videos.shape, *[1] * (frames.ndim - videos.ndim)) + frames
    # index_select copies whole rows; indexing with brackets copies single numbers and takes eight times as long
    return bank.features.index_select(0, rows.flatten()).float().view(*rows.shape, -1)


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
    bank = FeatureBank(
        features=torch.from_numpy(table.features).to(device),
        start=torch.from_numpy(starts).to(device),
        length=torch.from_numpy(videos.length[cached]).to(device).repeat(len(copies)),
        label=torch.tensor([manifest.labels.index(entries[i].label) for i in usable], device=device).repeat(
            len(copies)
        ),
        num_classes=len(manifest.labels),
    )
    return VideoDataset(entries, manifest.labels, status, index, bank, folds)


def sources_sha256(ids: Iterable[str], videos: VideoIndex) -> str:
    """Return a hash of the source files of some videos, as the index of a cache records them; independent of their order."""
    known = dict(zip(videos.id, videos.source_sha256, strict=True))
    lines = sorted(f"{video_id} {known.get(video_id, '')}" for video_id in ids)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_trainable(table: FeatureTable, row: int) -> bool:
    return table.videos.status[row] in TRAINABLE_STATUSES and table.videos.length[row] > 0
