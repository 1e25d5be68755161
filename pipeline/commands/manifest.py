"""ceflpipe manifest: list the videos of a data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from ...cache.errors import CeflError
from ..console import say, show
from ..source import find_source
from .options import quiet_option, source_options


@click.command(
    name="manifest",
    epilog="Examples: ceflpipe manifest --dataset demo; ceflpipe manifest --folder my_videos --out mine.csv",
    short_help="List the videos of a data set, or of a folder of your own, in a CSV.",
)
@source_options
@click.option("--folder", type=click.Path(path_type=Path), help="A folder per expression, in any usual spelling.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write; default: artifacts/manifests/NAME.csv.")
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    folder: Path | None, out: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Walk a data set and write its manifest: id, path, label, subject, split, fold, apex per video."""
    if manifest:
        raise CeflError(f"{manifest} is a manifest already; look at it with ceflpipe check --manifest {manifest}")
    if folder:
        found, target = _of_folder(folder, out, labels)
    else:
        source = find_source(dataset, None, root, labels, allow_outside=allow_outside)
        found, target = source.scan_to_manifest(), source.listing
        if out:
            from ...stages.manifest.table import write_manifest

            write_manifest(out, found.rows)
            target = out
    if not quiet:
        for reason, count in Counter(reason for _, reason in found.left_out).items():
            say(f"left out {count}: {reason}")
        for note in found.notes:
            say(note)
        say(f"{len(found.rows)} videos; look at them with ceflpipe check")
    show(str(target))


def _of_folder(folder: Path, out: Path | None, labels: str | None):  # noqa: ANN202 - a Scan and a Path
    from ...stages.manifest import folders
    from ...stages.manifest.table import write_manifest

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
    from dataclasses import replace

    found.rows = [replace(row, path=(prefix / row.path).as_posix()) for row in found.rows]
    write_manifest(target, found.rows)
    return found, target
