"""ceflpipe check: contents of a data set against published counts, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ...cache.errors import shorten_list
from ..console import echo, echo_json, echo_table, progress
from ..dataset import DatasetOptions, DatasetSource
from .options import dataset_options, json_option, quiet_option

if TYPE_CHECKING:
    from ...stages.manifest.dataset_report import DatasetReport
    from ...stages.manifest.manifest import Manifest
    from ...stages.manifest.scan import ViewTransform

MAX_AUTO_PROBE = 200
"""Frames are counted by default in data sets of at most this many videos."""
MAX_NAMES = 12
"""Names printed in one list; --json has all."""
MAX_WARNINGS = 48


@click.command(
    name="check",
    epilog="Examples: ceflpipe check --dataset mmi --probe; ceflpipe check --manifest my_videos.csv --json",
    short_help="Count videos, subjects, labels and frames against what is expected; list warnings.",
)
@dataset_options
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Open every video to count its frames, and check that its faces are upright. Default: "
    "only count frames, for at most 200 videos; otherwise frame counts come from the feature cache, if there is one.",
)
@json_option
@quiet_option
def command(data: DatasetOptions, probe: bool | None, as_json: bool, quiet: bool) -> None:
    """Count the videos, subjects and labels of a data set, compare with published counts, and list warnings.

    Counts that differ are marked in the table and do not change the exit code. Exits with 1 if files are missing or cannot
    be read.
    """
    from dataclasses import asdict

    from ...stages.manifest.dataset_report import check_manifest
    from ..config import load_train_config

    source = data.resolve()
    scan = source.scan() if source.config else None
    if scan and not source.manifest_path.is_file():
        source.create_manifest(scan)
    manifest = source.manifest()
    count = len(manifest.entries) <= MAX_AUTO_PROBE if probe is None else probe
    frames = _count_frames(manifest, quiet) if count else _read_frame_counts(source)
    num_clips = load_train_config(source.config).num_clips
    expected = source.config.expected if source.config else None
    report = check_manifest(manifest, frames, num_clips=num_clips, scan=scan, expected=expected)
    if probe and source.extract_config.input == "video":
        report.warnings.extend(_orientation_mismatches(source, manifest, scan.views if scan else {}, quiet))
    unverified = list(source.config.card.unverified) if source.config else []
    if as_json:
        echo_json({**asdict(report), "unverified": unverified, "root": str(source.root)})
    else:
        _print_report(report, source, unverified)
    unreadable = any(isinstance(value, str) for value in frames.values())
    raise click.exceptions.Exit(1 if report.missing or unreadable else 0)


def _print_report(report: DatasetReport, source: DatasetSource, unverified: list[str]) -> None:
    title = f", {source.config.title}" if source.config else ""
    echo(f"{report.name}{title}: {report.num_videos} videos, {report.num_subjects or 'no'} subjects, in {source.root}")
    _print_counts(report)
    if report.frames:
        lengths = sorted(report.frames.values())
        median = lengths[len(lengths) // 2]
        echo(f"frames: {sum(lengths)} in all, {lengths[0]} to {lengths[-1]} per video, median {median}")
    else:
        echo("frames: not counted; count them with --probe")
    echo(f"apex known for {report.num_apex} videos")
    if report.skipped:
        echo(f"skipped {sum(map(len, report.skipped.values()))}:")
        for reason, paths in report.skipped.items():
            echo(f"  {len(paths)}: {reason} ({shorten_list(paths, 3)})")
    if report.missing_expected:
        echo(f"missing {len(report.missing_expected)}: {shorten_list(report.missing_expected, MAX_NAMES)}")
    for heading, lines in (("notes", report.notes), ("not verified", unverified)):
        if lines:
            echo(f"{heading}:")
            for line in lines:
                echo(f"  {line}")
    echo("warnings:" if report.warnings else "no warnings")
    for line in report.warnings[:MAX_WARNINGS]:
        echo(f"  {line}")
    if len(report.warnings) > MAX_WARNINGS:
        echo(f"  … and {len(report.warnings) - MAX_WARNINGS} more; all of them with --json")


def _print_counts(report: DatasetReport) -> None:
    if not any(count.expected is not None for count in report.counts):
        echo_table(["label", "videos"], list(report.labels.items()))
        for heading, counts in (("split", report.splits), ("fold", report.folds)):
            if counts:
                echo_table([heading, "videos"], list(counts.items()))
        return
    rows = [
        (
            f"{count.kind} {count.name}".strip(),
            count.actual,
            "—" if count.expected is None else count.expected,
            "differs" if count.differs else "",
        )
        for count in report.counts
    ]
    echo_table(["", "actual", "expected", ""], rows)


def _count_frames(manifest: Manifest, quiet: bool) -> dict[str, int | str]:
    from ...stages.extract.frame_counts import count_manifest_frames

    with progress("counting frames", quiet=quiet) as on_progress:
        return count_manifest_frames(manifest, on_progress)


def _read_frame_counts(source: DatasetSource) -> dict[str, int | str]:
    """Return the number of frames of each video in a feature cache by id, which no encoder changes; none without a cache."""
    cache = next((cache for cache in (source.features_path, *source.feature_caches) if cache.exists()), None)
    if cache is None:
        return {}
    from ...cache.hdf5 import read_index

    index = read_index(cache)
    return {video_id: int(length) for video_id, length in zip(index.id, index.length, strict=True)}


def _orientation_mismatches(
    source: DatasetSource, manifest: Manifest, candidates: Mapping[str, Sequence[ViewTransform]], quiet: bool
) -> list[str]:
    """Probe all videos, and return a warning for each whose face disagrees with the manifest.

    ``candidates``: the views of videos that may be rotated or show a face twice; the others may have any rotation.
    """
    from ...stages.extract.orientation import all_rotations, build_probe_detector, estimate_orientations

    views = {}
    for entry in manifest.entries:
        view, *rotated = all_rotations(entry.rotation, entry.region)
        others = [other for other in candidates[entry.id] if other != view] if entry.id in candidates else rotated
        views[entry.id] = (view, *others)
    with progress("probing", quiet=quiet) as on_progress:
        results = estimate_orientations(manifest, views, build_probe_detector(source.extract_config), on_progress)
    changed = [f"{r.id}: in the manifest {r.default}, detected orientation: {r.best}" for r in results if r.changed]
    if any(r.changed and r.id in candidates for r in results):
        changed.append(f"fix with ceflpipe manifest --dataset {source.name} --probe")
    if any(r.changed and r.id not in candidates for r in results):
        changed.append("fix with the column rotation of the manifest, or with ceflpipe extract --rotation auto")
    return changed + [f"{r.id}: orientation unknown: {r.error}" for r in results if r.error and r.id in candidates]
