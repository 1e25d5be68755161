"""What is in a manifest, and what is odd about it?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ...cache.errors import CeflError
from .table import Manifest, Row


@dataclass(frozen=True)
class Check:
    """Counts over a manifest and what a user should look at; ``missing`` are the files that are not on disk."""

    name: str
    videos: int
    subjects: int
    labels: dict[str, int]
    splits: dict[str, int]
    folds: dict[str, int]
    apexes: int
    frames: dict[str, int] | None  # id -> number of frames, where they were counted
    missing: list[str]
    odd: list[str]


def check(manifest: Manifest, frames: Mapping[str, int | str] | None = None, *, slots_needed: int = 75) -> Check:
    """Look at every row; never stops at the first oddity.

    ``frames`` maps ids to numbers of frames, or to the reason why a video could not be read.
    """
    rows = manifest.rows
    missing, outside = _files(manifest)
    labels = Counter(row.label for row in rows)
    subjects = Counter(row.subject for row in rows if row.subject)
    odd = list(outside)
    odd += [f"no video is labelled {label}" for label in manifest.labels if not labels[label]]
    if missing:
        odd.append(f"{len(missing)} files are not on disk, e.g. {missing[0]}")
    if labels and max(labels.values()) > 4 * min(labels.values()):
        most, least = labels.most_common()[0], labels.most_common()[-1]
        odd.append(f"unbalanced: {most[1]} videos of {most[0]}, {least[1]} of {least[0]} (look at UAR, not only at WAR)")
    without = sum(not row.subject for row in rows)
    if without and subjects:
        odd.append(f"{without} of {len(rows)} videos have no subject, so folds cannot keep subjects apart")
    odd += _same_file_twice(rows)
    counted, problems = _frames(frames or {}, rows, slots_needed)
    odd += problems
    return Check(
        manifest.name, len(rows), len(subjects), {label: labels[label] for label in manifest.labels},
        dict(Counter(row.split for row in rows if row.split)), dict(sorted(Counter(row.fold for row in rows if row.fold).items())),
        sum(bool(row.apex) for row in rows), counted, missing, odd,
    )  # fmt: skip


def _files(manifest: Manifest) -> tuple[list[str], list[str]]:
    missing, outside = [], []
    for row in manifest.rows:
        try:
            if not manifest.file_of(row).exists():
                missing.append(row.path)
        except CeflError as error:
            outside.append(str(error))
    return missing, outside


def _same_file_twice(rows: tuple[Row, ...]) -> list[str]:
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
    frames: Mapping[str, int | str], rows: tuple[Row, ...], slots_needed: int
) -> tuple[dict[str, int] | None, list[str]]:
    if not frames:
        return None, []
    counted = {name: count for name, count in frames.items() if isinstance(count, int)}
    odd = [f"{name}: {reason}" for name, reason in frames.items() if isinstance(reason, str)]
    short = [name for name, count in counted.items() if count < slots_needed]
    if short:
        odd.append(
            f"{len(short)} of {len(counted)} videos have fewer than {slots_needed} frames; "
            "their frames are repeated to fill 105 slots, which is the usual case"
        )
    odd += [
        f"{row.id}: apex {row.apex} lies past its last frame {counted[row.id] - 1}"
        for row in rows
        if row.apex and row.id in counted and int(row.apex) >= counted[row.id]
    ]
    return counted, odd
