"""Statistics of a feature cache: frames by status, failed videos, and how the features were made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...cache.features import FeatureTable, FrameStatus, VideoStatus
from ..manifest.manifest import Manifest


@dataclass(frozen=True)
class ExtractionStats:
    """``shares``: a line per label (and all together) with frames and the share of each status. ``failures``: (id,
    status, note) of every video of the manifest that is not ok. ``facts``: (what, value) for a small table."""

    status_fractions: pd.DataFrame
    failures: list[tuple[str, str, str]]
    summary: list[tuple[str, str]]


def extraction_stats(manifest: Manifest, table: FeatureTable) -> ExtractionStats:
    """Summarise what a cache holds of a manifest's videos; videos that are not in it count as failures."""
    index = table.videos
    lines, failures, rows_seen = [], [], []
    for label in manifest.labels:
        rows = [table.index_of[row.id] for row in manifest.entries if row.label == label and row.id in table.index_of]
        rows_seen += rows
        lines.append({"label": label, **_status_fractions(table, rows)})
    lines.append({"label": "all", **_status_fractions(table, rows_seen)})
    for row in manifest.entries:
        place = table.index_of.get(row.id)
        if place is None:
            failures.append((row.id, VideoStatus.ABSENT, "not in the feature cache"))
        elif index.status[place] != VideoStatus.OK:
            failures.append((row.id, index.status[place], index.note[place]))
    return ExtractionStats(
        pd.DataFrame(lines), failures, _summary_rows(table, rows_seen, len(manifest.entries), len(failures))
    )


def _status_fractions(table: FeatureTable, rows: list[int]) -> dict[str, float]:
    index = table.videos
    pieces = [table.frame_status[index.start[row] : index.start[row] + index.length[row]] for row in rows]
    statuses = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
    counts = {status.name.lower(): int((statuses == status).sum()) for status in FrameStatus}
    total = max(1, len(statuses))
    return {"videos": len(rows), "frames": len(statuses), **{name: count / total for name, count in counts.items()}}


def _summary_rows(table: FeatureTable, rows: list[int], listed: int, failed: int) -> list[tuple[str, str]]:
    index, settings = table.videos, table.settings
    lengths = np.sort(index.length[rows]) if rows else np.zeros(1, int)
    rates = sorted({f"{rate:g}" for rate in index.fps[rows] if rate > 0}, key=float)
    sizes = sorted({f"{w} x {h}" for w, h in zip(index.width[rows], index.height[rows], strict=True) if w})
    scores = table.score[np.isfinite(table.score)]
    facts = [
        ("videos", f"{len(rows)} of {listed} listed, {failed} with a problem"),
        (
            "frames",
            f"{int(lengths.sum()):,}; {lengths[0]} to {lengths[-1]} per video, median {lengths[len(lengths) // 2]}",
        ),
        ("frames per second", _some(rates)),
        ("picture", _some(sizes)),
    ]
    if len(scores):
        facts.append(
            ("detection score", f"median {np.median(scores):.3f}, lowest tenth below {np.quantile(scores, 0.1):.3f}")
        )
    detector = (
        f"{settings.detector} {settings.detector_sha256[:8]}, longest side {settings.det_size}"
        if settings.detector
        else "faces were given"
    )
    facts += [
        ("detector", detector),
        ("alignment", f"{settings.align}, {settings.crop_size} x {settings.crop_size} px"),
        (
            "encoder",
            f"{settings.encoder} {settings.encoder_sha256[:8]}, {settings.normalization} normalization, "
            f"{settings.precision}, frozen",
        ),
    ]
    return facts


def _some(values: list[str], most: int = 4) -> str:
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")
