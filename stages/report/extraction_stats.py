"""Statistics of a feature cache: frames by status, videos with a problem, extraction settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...cache.errors import shorten_list
from ...cache.features import FeatureTable, FrameStatus, VideoStatus
from ..manifest.manifest import Manifest


@dataclass(frozen=True)
class ExtractionStats:
    """``status_fractions``: a row per label and one for all, columns label, videos, frames and a fraction (0..1) per status.

    ``failures``: id, status and reason of every video of the manifest that is not ok. ``summary``: names and values.
    """

    status_fractions: pd.DataFrame
    failures: list[tuple[str, str, str]]
    summary: list[tuple[str, str]]


def extraction_stats(manifest: Manifest, table: FeatureTable) -> ExtractionStats:
    """Compute the statistics of a manifest's videos in a cache; videos that are not cached count as failures."""
    videos = table.videos
    by_label: dict[str, list[int]] = {label: [] for label in manifest.labels}
    failures, num_notes = [], 0
    for entry in manifest.entries:
        index = table.index_of.get(entry.id)
        if index is None:
            failures.append((entry.id, VideoStatus.ABSENT, "not in the feature cache"))
            continue
        by_label[entry.label].append(index)
        if videos.status[index] != VideoStatus.OK:
            failures.append((entry.id, videos.status[index], videos.note[index]))
        elif videos.note[index]:
            num_notes += 1
    cached = [index for indices in by_label.values() for index in indices]
    rows = [
        {"label": label, **_status_fractions(table, indices)} for label, indices in (*by_label.items(), ("all", cached))
    ]
    summary = [("videos", f"{len(cached)} of {len(manifest.entries)} cached, {len(failures)} with a problem")]
    if num_notes:
        summary.append(("notes", f"on {num_notes} videos; ceflpipe inspect lists them"))
    return ExtractionStats(pd.DataFrame(rows), failures, summary + _summary(table, cached))


def _status_fractions(table: FeatureTable, indices: list[int]) -> dict[str, float]:
    parts = [table.frame_status[table.rows(table.videos.id[index])] for index in indices]
    statuses = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    fractions = {s.name.lower(): int((statuses == s).sum()) / max(1, len(statuses)) for s in FrameStatus}
    return {"videos": len(indices), "frames": len(statuses), **fractions}


def _summary(table: FeatureTable, indices: list[int]) -> list[tuple[str, str]]:
    videos, settings = table.videos, table.settings
    lengths = np.sort(videos.length[indices]) if indices else np.zeros(1, int)
    rates = sorted({f"{rate:g}" for rate in videos.fps[indices] if rate > 0}, key=float)
    sizes = sorted({f"{w} x {h}" for w, h in zip(videos.width[indices], videos.height[indices], strict=True) if w})
    scores = table.score[np.isfinite(table.score)]
    median = lengths[len(lengths) // 2]
    detector = f"{settings.detector} {settings.detector_sha256[:8]}, longest side {settings.det_size} px"
    summary = [
        ("frames", f"{int(lengths.sum()):,}; {lengths[0]} to {lengths[-1]} per video, median {median}"),
        ("frames per second", shorten_list(rates, 4)),
        ("frame size", shorten_list(sizes, 4)),
    ]
    if len(scores):
        low = np.quantile(scores, 0.1)
        summary.append(("detection score", f"median {np.median(scores):.3f}, 10th percentile {low:.3f}"))
    encoder = f"{settings.encoder} {settings.encoder_sha256[:8]}, {settings.normalization} normalization, "
    return [
        *summary,
        ("detector", detector if settings.detector else "none, the input is face crops"),
        ("alignment", f"{settings.align}, {settings.crop_size} x {settings.crop_size} px"),
        ("encoder", f"{encoder}{settings.precision}, frozen"),
    ]
