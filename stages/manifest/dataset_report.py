"""Data-set check: counts against published ones, missing files, and warnings."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError, shorten_list
from ..slots import CLIP_LENGTH, NUM_SLOTS, num_covered_slots
from ..strict_model import StrictModel
from .leaks import leak_warnings
from .manifest import Manifest, VideoEntry
from .scan import ScanResult

MAX_IMBALANCE = 4
"""Ratio of the largest label count to the smallest above which a data set is called unbalanced."""


class ExpectedCounts(StrictModel, frozen=True, coerce_numbers_to_str=True):
    """Published counts of a data set: ``expected:`` of its configuration. Unknown ones are None or empty."""

    videos: int | None = None
    subjects: int | None = None
    labels: dict[str, int] = Field(default_factory=dict)
    splits: dict[str, int] = Field(default_factory=dict)
    folds: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class CountCheck:
    """Actual and expected count of one ``kind`` (videos, subjects, label, split, fold) and name."""

    kind: str
    name: str
    actual: int
    expected: int | None

    @property
    def differs(self) -> bool:
        return self.expected is not None and self.expected != self.actual


@dataclass(frozen=True)
class DatasetReport:
    """Counts of a manifest, and problems in it."""

    name: str
    num_videos: int
    num_subjects: int
    labels: dict[str, int]
    splits: dict[str, int]
    folds: dict[str, int]
    num_apex: int
    """Videos with a known apex."""
    frames: dict[str, int] | None
    """Number of frames by video id; None if they were not counted."""
    missing: list[str]
    """Paths of videos that do not exist."""
    warnings: list[str]
    counts: list[CountCheck]
    skipped: dict[str, list[str]]
    """Paths that the loader skipped, by reason."""
    missing_expected: list[str]
    """Names of parts that the data set should have."""
    notes: list[str]
    """Remarks of the loader."""


def check_manifest(
    manifest: Manifest,
    frames: Mapping[str, int | str] | None = None,
    *,
    num_clips: int = 7,
    scan: ScanResult | None = None,
    expected: ExpectedCounts | None = None,
) -> DatasetReport:
    """Check every entry; problems become warnings.

    ``frames`` maps ids to the number of frames, or to the reason why a video could not be read; ``num_clips`` is
    the number of clips of a head; ``scan`` is the current content of the data set's folder.
    """
    entries = manifest.entries
    present = Counter(entry.label for entry in entries)
    labels = {label: present[label] for label in manifest.labels}
    subjects = {entry.subject for entry in entries if entry.subject}
    splits = dict(Counter(entry.split for entry in entries if entry.split))
    folds = dict(Counter(sorted((entry.fold for entry in entries if entry.fold), key=lambda fold: (len(fold), fold))))
    missing, warnings = _check_paths(manifest)
    warnings += [f"no video has the label {label}" for label, count in labels.items() if not count]
    if missing:
        warnings.append(f"{len(missing)} files are missing, e.g. {missing[0]}")
    if present and max(present.values()) > MAX_IMBALANCE * min(present.values()):
        (larger, large), *_, (smaller, small) = present.most_common()
        warnings.append(f"unbalanced: {large} videos of {larger}, {small} of {smaller} (compare UAR, not only WAR)")
    no_subject = sum(not entry.subject for entry in entries)
    if no_subject and subjects:
        warnings.append(f"{no_subject} of {len(entries)} videos have no subject, so folds cannot separate subjects")
    warnings += _duplicate_files(entries)
    warnings += leak_warnings(entries, _hash_equal_sizes(manifest))
    warnings += _check_frames(frames or {}, entries, num_covered_slots(num_clips))
    if scan:
        warnings += _compare_with_scan(manifest, scan)
    expected = expected or ExpectedCounts()
    counts = [
        CountCheck("videos", "", len(entries), expected.videos),
        CountCheck("subjects", "", len(subjects), expected.subjects),
        *_compare_counts("label", labels, expected.labels),
        *_compare_counts("split", splits, expected.splits),
        *_compare_counts("fold", folds, expected.folds),
    ]
    skipped: dict[str, list[str]] = {}
    for path, reason in scan.skipped if scan else ():
        skipped.setdefault(reason, []).append(path)
    return DatasetReport(
        name=manifest.name,
        num_videos=len(entries),
        num_subjects=len(subjects),
        labels=labels,
        splits=splits,
        folds=folds,
        num_apex=sum(bool(entry.apex) for entry in entries),
        frames={name: count for name, count in frames.items() if isinstance(count, int)} if frames else None,
        missing=missing,
        warnings=warnings,
        counts=counts,
        skipped=skipped,
        missing_expected=list(scan.missing) if scan else [],
        notes=list(scan.notes) if scan else [],
    )


def _compare_counts(kind: str, actual: Mapping[str, int], expected: Mapping[str, int]) -> list[CountCheck]:
    return [CountCheck(kind, name, actual.get(name, 0), expected.get(name)) for name in {**actual, **expected}]


def _compare_with_scan(manifest: Manifest, scan: ScanResult) -> list[str]:
    listed, present = ({_without_view(entry) for entry in entries} for entries in (manifest.entries, scan.entries))
    if listed == present:
        return []
    return [
        f"the manifest differs from the folder ({len(present - listed)} videos of the folder are not in the manifest, "
        f"{len(listed - present)} of the manifest are not in the folder, or changed); "
        f"recreate it with ceflpipe manifest --dataset {manifest.name}"
    ]


def _without_view(entry: VideoEntry) -> VideoEntry:
    """Remove rotation and region, which may come from probing the video; a scan does not open it."""
    return replace(entry, rotation="", region="")


def _check_paths(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the paths that do not exist, and a warning for each that leads out of the root."""
    missing, warnings = [], []
    for entry in manifest.entries:
        try:
            if not manifest.video_path(entry).exists():
                missing.append(entry.path)
        except CeflError as error:
            warnings.append(str(error))
    return missing, warnings


def _duplicate_files(entries: Iterable[VideoEntry]) -> list[str]:
    by_file: dict[tuple[str, str], list[VideoEntry]] = {}
    for entry in entries:
        by_file.setdefault((entry.path, entry.region), []).append(entry)
    return [
        f"{path} is listed {len(same)} times (ids {shorten_list([entry.id for entry in same])})"
        + (" with different labels" if len({entry.label for entry in same}) > 1 else "")
        for (path, _), same in by_file.items()
        if len(same) > 1
    ]


def _hash_equal_sizes(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of files by id, of those that share their size with a file of another path."""
    by_size: dict[int, dict[Path, VideoEntry]] = {}
    for entry in manifest.entries:
        try:
            path = manifest.video_path(entry)
            status = path.stat()
        except (CeflError, OSError):  # ``_check_paths`` has named it
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            by_size.setdefault(status.st_size, {})[path] = entry
    return {entry.id: sha256_of(path) for files in by_size.values() for path, entry in files.items() if len(files) > 1}


def _check_frames(frames: Mapping[str, int | str], entries: Iterable[VideoEntry], covered_slots: int) -> list[str]:
    counts = {name: count for name, count in frames.items() if isinstance(count, int)}
    warnings = [f"{name}: {reason}" for name, reason in frames.items() if isinstance(reason, str)]
    short = [name for name, count in counts.items() if count < covered_slots]
    if short:
        warnings.append(
            f"{len(short)} of {len(counts)} videos have fewer frames than the {covered_slots} slots that the clips cover; "
            f"their frames are repeated to fill {NUM_SLOTS} slots, which is common"
        )
    very_short = [name for name in short if counts[name] < CLIP_LENGTH]
    if very_short:
        warnings.append(
            f"{len(very_short)} videos have fewer than {CLIP_LENGTH} frames, so a clip may contain a frame twice: "
            f"{shorten_list(very_short)}"
        )
    warnings += [
        f"{entry.id}: apex {entry.apex} is after the last frame, {counts[entry.id] - 1}"
        for entry in entries
        if entry.apex and entry.id in counts and int(entry.apex) >= counts[entry.id]
    ]
    return warnings
