"""Data-set check: counts against published ones, missing files, and warnings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import Field

from ...cache.errors import CeflError
from ..strict_model import StrictModel
from .manifest import Manifest, VideoEntry
from .scan import ScanResult


class ExpectedCounts(StrictModel, frozen=True, coerce_numbers_to_str=True):
    """Published counts of a data set: ``expected:`` of its configuration. Unknown ones are None or empty."""

    videos: int | None = None
    subjects: int | None = None
    labels: dict[str, int] = Field(default_factory=dict)
    splits: dict[str, int] = Field(default_factory=dict)
    folds: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class CountCheck:
    """One line of the comparison: ``kind`` (videos, subjects, label, split, fold), its name, found and expected."""

    kind: str
    name: str
    actual: int
    expected: int | None

    @property
    def differs(self) -> bool:
        return self.expected is not None and self.expected != self.actual


def check_counts(
    videos: int, subjects: int, groups: Mapping[str, Mapping[str, int]], expected: ExpectedCounts
) -> list[CountCheck]:
    """Return a line for every count found or expected; ``groups`` are the counts per label, split and fold by kind."""
    lines = [CountCheck("videos", "", videos, expected.videos), CountCheck("subjects", "", subjects, expected.subjects)]
    for kind, known in (("label", expected.labels), ("split", expected.splits), ("fold", expected.folds)):
        found = groups[kind]
        names = [*found, *(name for name in known if name not in found)]
        lines += [CountCheck(kind, name, found.get(name, 0), known.get(name)) for name in names]
    return lines


SLOTS = 105
"""Length to which stage two brings every video, by repeating frames of those that are shorter."""
MIN_FRAMES = 15
"""Frames of one sub-video; a shorter video repeats frames even within one."""


@dataclass(frozen=True)
class DatasetReport:
    """Counts over a manifest and what a user should look at.

    ``missing``: paths of files that are not on disk. ``odd``: what a user should look at, a sentence each. ``counts``:
    found against expected. ``left_out``: reason -> paths that the loader saw and did not take. ``not_there``: what the
    data set should hold and does not, by name. ``notes``: what the loader says of how it read the data set.
    """

    name: str
    num_videos: int
    num_subjects: int
    labels: dict[str, int]
    splits: dict[str, int]
    folds: dict[str, int]
    num_apex: int
    frames: dict[str, int] | None  # id -> number of frames, where they were counted
    missing: list[str]
    warnings: list[str]
    counts: list[CountCheck] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    missing_expected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_manifest(
    manifest: Manifest,
    frames: Mapping[str, int | str] | None = None,
    *,
    slots_needed: int = 75,
    scan: ScanResult | None = None,
    expected: ExpectedCounts | None = None,
) -> DatasetReport:
    """Look at every row; never stops at the first oddity.

    ``frames`` maps ids to numbers of frames, or to the reason why a video could not be read; ``slots_needed`` is how
    many of the 105 slots the clips of a head span. ``scan`` is what the loader finds in the data set's folder now.
    """
    rows = manifest.entries
    missing, outside = _files(manifest)
    labels = Counter(row.label for row in rows)
    subjects = Counter(row.subject for row in rows if row.subject)
    splits = dict(Counter(row.split for row in rows if row.split))
    folds = dict(
        sorted(Counter(row.fold for row in rows if row.fold).items(), key=lambda item: (len(item[0]), item[0]))
    )
    odd = list(outside)
    odd += [f"no video is labelled {label}" for label in manifest.labels if not labels[label]]
    if missing:
        odd.append(f"{len(missing)} files are not on disk, e.g. {missing[0]}")
    if labels and max(labels.values()) > 4 * min(labels.values()):
        (most, many), (least, few) = labels.most_common()[0], labels.most_common()[-1]
        odd.append(f"unbalanced: {many} videos of {most}, {few} of {least} (look at UAR, not only at WAR)")
    without = sum(not row.subject for row in rows)
    if without and subjects:
        odd.append(f"{without} of {len(rows)} videos have no subject, so folds cannot keep subjects apart")
    odd += _same_file_twice(rows)
    counted, problems = _frames(frames or {}, rows, slots_needed)
    odd += problems
    by_label = {label: labels[label] for label in manifest.labels}
    groups = {"label": by_label, "split": splits, "fold": folds}
    result = DatasetReport(
        manifest.name, len(rows), len(subjects), by_label, splits, folds, sum(bool(row.apex) for row in rows), counted,
        missing, odd, check_counts(len(rows), len(subjects), groups, expected or ExpectedCounts()),
    )  # fmt: skip
    return _with_scan(result, scan, rows) if scan else result


def _with_scan(result: DatasetReport, found: ScanResult, rows: tuple[VideoEntry, ...]) -> DatasetReport:
    left_out: dict[str, list[str]] = {}
    for path, reason in found.skipped:
        left_out.setdefault(reason, []).append(path)
    odd = list(result.warnings)
    listed, there = {_without_view(row) for row in rows}, {_without_view(row) for row in found.entries}
    if listed != there:
        odd.append(
            f"the manifest is not what the folder holds now ({len(there - listed)} videos of the folder are not in it, "
            f"{len(listed - there)} of its own are not in the folder, or differ); make it anew with ceflpipe manifest"
        )
    return replace(result, odd=odd, left_out=left_out, not_there=list(found.missing), notes=list(found.notes))


def _without_view(row: VideoEntry) -> VideoEntry:
    """Rotation and region may have been settled by opening the videos, which a loader does not do."""
    return replace(row, rotation="", region="")


def _files(manifest: Manifest) -> tuple[list[str], list[str]]:
    missing, outside = [], []
    for row in manifest.entries:
        try:
            if not manifest.video_path(row).exists():
                missing.append(row.path)
        except CeflError as error:
            outside.append(str(error))
    return missing, outside


def _same_file_twice(rows: tuple[VideoEntry, ...]) -> list[str]:
    by_path = defaultdict(list)
    for row in rows:
        by_path[(row.path, row.region)].append(row)
    return [
        f"{path} stands {len(same)} times (ids {', '.join(row.id for row in same[:3])})"
        + (" with different labels" if len({row.label for row in same}) > 1 else "")
        for (path, _), same in by_path.items()
        if len(same) > 1
    ]


def _frames(
    frames: Mapping[str, int | str], rows: tuple[VideoEntry, ...], slots_needed: int
) -> tuple[dict[str, int] | None, list[str]]:
    if not frames:
        return None, []
    counted = {name: count for name, count in frames.items() if isinstance(count, int)}
    odd = [f"{name}: {reason}" for name, reason in frames.items() if isinstance(reason, str)]
    short = [name for name, count in counted.items() if count < slots_needed]
    if short:
        odd.append(
            f"{len(short)} of {len(counted)} videos have fewer frames than the {slots_needed} slots the clips span; "
            f"their frames are repeated to fill {SLOTS} slots, which is the usual case"
        )
    scant = [name for name in short if counted[name] < MIN_FRAMES]
    if scant:
        odd.append(
            f"{len(scant)} videos have fewer than {MIN_FRAMES} frames, so one clip may hold a frame twice: "
            f"{', '.join(scant[:3])}{' …' if len(scant) > 3 else ''}"
        )
    odd += [
        f"{row.id}: apex {row.apex} lies past its last frame {counted[row.id] - 1}"
        for row in rows
        if row.apex and row.id in counted and int(row.apex) >= counted[row.id]
    ]
    return counted, odd
