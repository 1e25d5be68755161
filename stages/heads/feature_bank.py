"""Features on the device, joined with a manifest: what heads are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...cache.errors import CeflError
from ...cache.features import TRAINABLE_STATUSES, FeatureTable, VideoStatus
from ..manifest.manifest import Manifest, VideoEntry


@dataclass(frozen=True)
class FeatureBank:
    """Features of all usable videos on the device: rows (N, 512), and per video its first row, length and label."""

    features: Tensor
    start: Tensor
    length: Tensor
    label: Tensor
    num_classes: int


def gather_frames(data: FeatureBank, videos: Tensor, frames: Tensor) -> Tensor:
    """Return features (m, b, ..., 512) float32 of videos (m, b) by frame indices (m, b, ...) into each."""
    rows = data.start[videos].view(*videos.shape, *[1] * (frames.ndim - videos.ndim)) + frames
    # index_select copies whole rows; an index in brackets goes number by number, and takes eight times as long
    return data.features.index_select(0, rows.flatten()).float().view(*rows.shape, -1)


MAX_MISSING_FRACTION = 0.05
"""Up to this share of a manifest's videos may be missing from the cache (they count as errors); more is a mistake."""


@dataclass(frozen=True)
class VideoDataset:
    """The manifest's rows with what stage one made of them.

    ``usable[i]``: row i has features to train on; ``place[i]``: its position in ``data``, or -1. ``status[i]`` is the
    video's status in the cache, or 'absent'.
    """

    entries: tuple[VideoEntry, ...]
    labels: tuple[str, ...]
    status: list[str]
    index: np.ndarray
    bank: FeatureBank

    def indices_of(self, rows: np.ndarray) -> torch.Tensor:
        """Return positions in ``data`` of those of the given rows that are usable."""
        places = self.index[rows]
        return torch.from_numpy(places[places >= 0])


def join_features(manifest: Manifest, table: FeatureTable, device: torch.device) -> VideoDataset:
    """Look up every row of the manifest in the table; raises CeflError when too many are not there, or none is usable."""
    status = [
        table.videos.status[table.index_of[row.id]] if row.id in table.index_of else VideoStatus.ABSENT
        for row in manifest.entries
    ]
    absent = [row.id for row, state in zip(manifest.entries, status, strict=True) if state == VideoStatus.ABSENT]
    if len(absent) > MAX_MISSING_FRACTION * len(manifest.entries):
        raise CeflError(
            f"{len(absent)} of {len(manifest.entries)} videos of {manifest.name} are not in the feature cache "
            f"(e.g. {absent[0]}); run ceflpipe extract first"
        )
    usable = [
        i
        for i, state in enumerate(status)
        if state in TRAINABLE_STATUSES and table.videos.length[table.index_of[manifest.entries[i].id]] > 0
    ]
    if not usable:
        raise CeflError(f"not one video of {manifest.name} has features; look at ceflpipe inspect")
    place = np.full(len(manifest.entries), -1)
    place[usable] = np.arange(len(usable))
    cached = np.array([table.index_of[manifest.entries[i].id] for i in usable])
    _check_finite(table, manifest.entries, usable)
    data = FeatureBank(
        features=torch.from_numpy(table.features).to(device),
        start=torch.from_numpy(table.videos.start[cached]).to(device),
        length=torch.from_numpy(table.videos.length[cached]).to(device),
        label=torch.tensor([manifest.labels.index(manifest.entries[i].label) for i in usable], device=device),
        num_classes=len(manifest.labels),
    )
    return VideoDataset(manifest.entries, manifest.labels, status, place, data)


def _check_finite(table: FeatureTable, rows: Sequence[VideoEntry], usable: Sequence[int]) -> None:
    for i in usable:
        if not np.isfinite(table.features[table.rows(rows[i].id)]).all():
            raise CeflError(f"video {rows[i].id}: its cached features are not finite; redo it with ceflpipe extract")
