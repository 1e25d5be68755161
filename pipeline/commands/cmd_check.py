"""ceflpipe check: say what a data set holds, whether it is what it should be, and what is odd about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import progress, show, show_json, show_table
from ..dataset import Source, find_source
from .options import json_option, quiet_option, source_options

if TYPE_CHECKING:
    from ...stages.manifest.dataset_report import Check, Expected
    from ...stages.manifest.manifest import Manifest
    from ...stages.manifest.scan import Scan

MOST_PROBED_UNASKED = 200
MOST_SHOWN = 12
"""Lines of names shown of one kind; --json has all."""


@click.command(
    name="check",
    epilog="Examples: ceflpipe check --dataset mmi --probe; ceflpipe check --manifest mine.csv --json",
    short_help="Count videos, subjects, labels and frames against what is expected; list what is odd.",
)
@source_options
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Open every video to count its frames, and see which way up its face is; default: only where there are at most 200; "
    "otherwise the counts come from the feature cache, if there is one.",
)
@json_option
@quiet_option
def command(
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
    probe: bool | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say how many videos, subjects and labels there are and should be, and everything that is odd.

    What differs from the expected counts is a warning. Exits with 1 when files are missing or cannot be read.
    """
    from dataclasses import asdict

    from ...stages.manifest.dataset_report import check

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    found = source.scan() if source.config else None
    if found and not source.listing.is_file():
        source.write(found)
    listed = source.manifest()
    wanted = len(listed.rows) <= MOST_PROBED_UNASKED if probe is None else probe
    frames = _count_frames(listed, quiet) if wanted else _frames_from_cache(source)
    result = check(listed, frames, slots_needed=_slots(source), found=found, expected=_expected(source))
    if probe and found and found.views:
        result.odd.extend(_faces_that_stand_otherwise(source, listed, found, quiet))
    unverified = list(source.config.about.unverified) if source.config else []
    if as_json:
        show_json({**asdict(result), "unverified": unverified, "root": str(source.root)})
    else:
        _show(result, source, unverified)
    broken = any(isinstance(count, str) for count in frames.values())
    raise click.exceptions.Exit(1 if result.missing or broken else 0)


def _slots(source: Source) -> int:
    """Return how many slots of a video the clips span with the data set's settings of stage two (75 for 7 clips)."""
    from ..config import load_train

    return 10 * load_train(source.config).clips + 5


def _expected(source: Source) -> Expected:
    from ...stages.manifest.dataset_report import Expected

    return Expected(**source.config.expected.model_dump()) if source.config else Expected()


def _show(result: Check, source: Source, unverified: list[str]) -> None:
    title = f", {source.config.title}" if source.config else ""
    show(f"{result.name}{title}: {result.videos} videos, {result.subjects or 'no'} subjects, in {source.root}")
    _show_counts(result)
    if result.frames:
        lengths = sorted(result.frames.values())
        middle = lengths[len(lengths) // 2]
        show(f"frames: {sum(lengths)} in all, {lengths[0]} to {lengths[-1]} per video, median {middle}")
    else:
        show("frames: not counted; count them with --probe")
    show(f"apex known for {result.apexes} videos")
    if result.left_out:
        show(f"left out {sum(map(len, result.left_out.values()))}:")
        for reason, paths in result.left_out.items():
            show(f"  {len(paths)}: {reason} ({_some(paths, 3)})")
    if result.not_there:
        show(f"not there {len(result.not_there)}: {_some(result.not_there, MOST_SHOWN)}")
    for title, lines in (("notes", result.notes), ("not verified", unverified)):
        if lines:
            show(f"{title}:")
            for line in lines:
                show(f"  {line}")
    show("odd: nothing" if not result.odd else "odd:")
    for line in result.odd[: 4 * MOST_SHOWN]:
        show(f"  {line}")
    if len(result.odd) > 4 * MOST_SHOWN:
        show(f"  … and {len(result.odd) - 4 * MOST_SHOWN} more; all of them with --json")


def _show_counts(result: Check) -> None:
    if not any(line.expected is not None for line in result.counts):
        show_table(["label", "videos"], list(result.labels.items()))
        for title, counts in (("split", result.splits), ("fold", result.folds)):
            if counts:
                show_table([title, "videos"], list(counts.items()))
        return
    rows = [
        (
            f"{line.kind} {line.name}".strip(),
            line.found,
            "—" if line.expected is None else line.expected,
            "differs" if line.differs else "",
        )
        for line in result.counts
    ]
    show_table(["", "found", "expected", ""], rows)


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" … {len(names) - most} more" if len(names) > most else "")


def _count_frames(manifest: Manifest, quiet: bool) -> dict[str, int | str]:
    from ...cache.errors import CeflError
    from ...stages.extract.video_reader import CannotDecode, count_frames

    counted: dict[str, int | str] = {}
    with progress("counting frames", len(manifest.rows), quiet=quiet) as bar:
        for row in manifest.rows:
            try:
                file = manifest.file_of(row)
                if file.exists():
                    counted[row.id] = count_frames(file)
            except (CannotDecode, CeflError) as error:
                counted[row.id] = str(error)
            bar()
    return counted


def _faces_that_stand_otherwise(source: Source, listed: Manifest, found: Scan, quiet: bool) -> list[str]:
    """Look at the videos that may lie on their side, and say where a face stands otherwise than the manifest says."""
    from ...stages.extract.orientation import detector_of, settle
    from ...stages.manifest.scan import View

    taken = {row.id: View(row.rotation, row.region) for row in listed.rows if row.id in found.views}
    views = {name: (view, *(other for other in found.views[name] if other != view)) for name, view in taken.items()}
    with progress("looking at", len(views), quiet=quiet) as bar:
        settled = settle(listed, views, detector_of(source.extract), bar)
    otherwise = [
        f"{one.id}: in the manifest {one.by_rule}, but its face says {one.best}" for one in settled if one.differs
    ]
    if otherwise:
        otherwise.append(f"settle these with ceflpipe manifest --dataset {source.name} --probe")
    return otherwise + [
        f"{one.id}: {one.trouble}, so which way up it is was not settled" for one in settled if one.trouble
    ]


def _frames_from_cache(source: Source) -> dict[str, int | str]:
    if not source.features.exists():
        return {}
    from ...cache.hdf5 import read_index

    index = read_index(source.features)
    return {name: int(length) for name, length in zip(index.id, index.length, strict=True)}
