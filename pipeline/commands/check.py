"""ceflpipe check: say what a data set holds and what is odd about it."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import progress, show, show_json, show_table
from ..source import Source, find_source
from .options import json_option, quiet_option, source_options

MOST_PROBED_UNASKED = 200


@click.command(
    name="check",
    epilog="Examples: ceflpipe check; ceflpipe check --manifest mine.csv --probe --json",
    short_help="Count videos, subjects, labels and frames; list what is odd.",
)
@source_options
@click.option("--probe/--no-probe", default=None, help="Decode every video to count its frames; default: up to 200 videos.")
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    probe: bool | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Say how many videos, subjects, labels and frames there are, and everything that is odd.

    Exits with 1 when files are missing or cannot be read.
    """
    from dataclasses import asdict

    from ...stages.manifest.check import check

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    listed = source.manifest()
    wanted = len(listed.rows) <= MOST_PROBED_UNASKED if probe is None else probe
    frames = _count_frames(listed, quiet) if wanted else _frames_from_cache(source)
    result = check(listed, frames)
    if as_json:
        show_json(asdict(result))
    else:
        _show(result, source)
    broken = any(isinstance(count, str) for count in frames.values())
    raise click.exceptions.Exit(1 if result.missing or broken else 0)


def _show(result, source: Source) -> None:  # noqa: ANN001 - a Check
    show(f"{result.name}: {result.videos} videos, {result.subjects or 'no'} subjects, in {source.root}")
    show_table(["label", "videos"], list(result.labels.items()))
    for title, counts in (("split", result.splits), ("fold", result.folds)):
        if counts:
            show_table([title, "videos"], list(counts.items()))
    if result.frames:
        lengths = sorted(result.frames.values())
        show(f"frames: {sum(lengths)} in all, {lengths[0]} to {lengths[-1]} per video, median {lengths[len(lengths) // 2]}")
    else:
        show("frames: not counted; count them with --probe")
    show(f"apex known for {result.apexes} videos")
    show("odd: nothing" if not result.odd else "odd:")
    for line in result.odd:
        show(f"  {line}")


def _count_frames(manifest, quiet: bool) -> dict[str, int | str]:  # noqa: ANN001 - a Manifest
    from ...cache.errors import CeflError
    from ...stages.extract.decode import CannotDecode, count_frames

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


def _frames_from_cache(source: Source) -> dict[str, int | str]:
    if not source.features.exists():
        return {}
    from ...cache.store import read_index

    index = read_index(source.features)
    return {name: int(length) for name, length in zip(index.id, index.length, strict=True)}
