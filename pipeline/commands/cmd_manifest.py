"""ceflpipe manifest: list the videos of a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..console import progress, say, show
from ..dataset import Source, find_source
from .options import quiet_option, source_options

if TYPE_CHECKING:
    from ...stages.manifest.scan import Scan

MOST_SHOWN = 10


@click.command(
    name="manifest",
    epilog="Examples: ceflpipe manifest --dataset mmi --probe; ceflpipe manifest --folder my_videos --out mine.csv",
    short_help="List the videos of a data set, or of a folder of your own, in a CSV.",
)
@source_options
@click.option("--folder", type=click.Path(path_type=Path), help="A folder per expression, in any usual spelling.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write; default: artifacts/manifests/NAME.csv.")
@click.option(
    "--probe", is_flag=True, help="Open videos that may lie on their side, and turn them as their face stands."
)
@quiet_option
def command(
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
    folder: Path | None,
    out: Path | None,
    probe: bool,
    quiet: bool,
) -> None:
    """Walk a data set and write its manifest: id, path, label, subject, split, fold, apex per video."""
    if manifest:
        raise CeflError(f"{manifest} is a manifest already; look at it with ceflpipe check --manifest {manifest}")
    if folder:
        found, target = _of_folder(folder, out, labels)
        named = f"--manifest {target}"
    else:
        source = find_source(dataset, None, root, labels, allow_outside=allow_outside)
        found, target = source.scan(), out or source.listing
        if probe:
            _settle_views(source, found, quiet)
        if out:
            from ...stages.manifest.manifest import write_manifest

            write_manifest(out, found.rows)
        else:
            source.write(found)
        named = f"--dataset {source.name}"
    if not quiet:
        for reason, count in Counter(reason for _, reason in found.left_out).items():
            say(f"left out {count}: {reason}")
        if found.missing:
            shown = ", ".join(found.missing[:MOST_SHOWN]) + (" …" if len(found.missing) > MOST_SHOWN else "")
            say(f"not there {len(found.missing)}: {shown}")
        for note in found.notes:
            say(note)
        say(f"{len(found.rows)} videos; look at them with ceflpipe check {named}")
    show(str(target))


def _settle_views(source: Source, found: Scan, quiet: bool) -> None:
    """Put into the rows the rotation and region that looking at the videos gives, and say where the rule was wrong."""
    from ...stages.extract.orientation import detector_of, settle
    from ...stages.manifest.manifest import Manifest

    if not found.views:
        found.notes.append("--probe: no video of this data set may lie on its side, so none was opened")
        return
    listed = Manifest(source.name, source.root, tuple(found.rows), (), source.allow_outside)
    with progress("looking at", len(found.views), quiet=quiet) as bar:
        settled = {one.id: one for one in settle(listed, found.views, detector_of(source.extract), bar)}
    best = {name: one.best for name, one in settled.items()}
    found.rows = [
        replace(row, rotation=best[row.id].rotation, region=best[row.id].region) if row.id in best else row
        for row in found.rows
    ]
    otherwise = [one for one in settled.values() if one.differs]
    troubled = [one for one in settled.values() if one.trouble]
    found.notes.append(f"looked at {len(settled)} videos: {len(otherwise)} stand otherwise than the rule says")
    found.notes += [f"  {one.id}: {one.best}; by rule {one.by_rule}" for one in otherwise[:MOST_SHOWN]]
    found.notes += [f"  {one.id}: left as by rule: {one.trouble}" for one in troubled[:MOST_SHOWN]]


def _of_folder(folder: Path, out: Path | None, labels: str | None) -> tuple[Scan, Path]:
    from ...stages.manifest.loaders import folders
    from ...stages.manifest.manifest import write_manifest

    if not folder.is_dir():
        raise CeflError(f"--folder {folder}: no such folder")
    own = tuple(word.strip() for word in labels.split(",")) if labels else ()
    found = folders.scan(folder, own)
    if not found.rows:
        raise CeflError(f"{folder}: no video below a folder that names an expression; expected\n{folders.LAYOUT}")
    target = out or folder / "videos.csv"
    home = target.resolve().parent
    if not folder.resolve().is_relative_to(home):
        raise CeflError(f"--out {out}: the list must lie in or above {folder}, since its paths start from its folder")
    prefix = folder.resolve().relative_to(home)
    found.rows = [replace(row, path=(prefix / row.path).as_posix()) for row in found.rows]
    write_manifest(target, found.rows)
    return found, target
