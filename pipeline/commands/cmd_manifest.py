"""ceflpipe manifest: list the videos of a data set or a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError, shorten_list
from ..console import echo, log, progress
from ..dataset import DatasetOptions, DatasetSource
from ..paths import manifest_settings_file
from .options import OUT_FILE, PATH, announce, dataset_options, force_option, quiet_option

if TYPE_CHECKING:
    from ...stages.manifest.scan import ScanResult

MAX_NAMES = 10
ROW_BYTES = 300
"""Size of a video in the list, at most about."""


@click.command(
    name="manifest",
    epilog="Examples: ceflpipe manifest --dataset mmi --probe; ceflpipe manifest --folder my_videos --out my_videos.csv",
    short_help="List the videos of a data set, or of a folder of your own, in a CSV.",
)
@dataset_options
@click.option("--folder", type=PATH, help="A folder per expression, in any usual spelling.")
@click.option(
    "--out",
    type=OUT_FILE,
    help="CSV to write; default: artifacts/manifests/NAME.csv, or FOLDER/videos.csv with --folder.",
)
@click.option(
    "--probe", is_flag=True, help="Open videos that may be rotated, and turn them so that the face is upright."
)
@force_option
@quiet_option
def command(
    data: DatasetOptions, folder: Path | None, out: Path | None, probe: bool, force: bool, quiet: bool
) -> None:  # fmt: skip
    """Scan a data set or a folder and write its manifest: a CSV with a row per video."""
    from ...cache.ownership import check_files
    from ...stages.manifest.files import describe_skipped
    from ...stages.manifest.manifest import write_manifest

    if data.manifest:
        raise CeflError(
            f"{data.manifest}: is a manifest already; check it with ceflpipe check --manifest {data.manifest}"
        )
    if folder:
        path = out or folder / "videos.csv"
        replaced = check_files([path], "--out", force=force)
        result = _scan_folder(folder, path, data.labels)
        announce(replaced)
        size = ROW_BYTES * len(result.entries)
        videos = [path.parent / entry.path for entry in result.entries]
        check_files([path], "--out", inputs=videos, force=force, required_bytes=size)
        write_manifest(path, result.entries)
        option = f"--manifest {path}"
    else:
        source = data.resolve()
        path = out or source.manifest_path
        paths = [path] if out else [path, manifest_settings_file(path)]
        replaced = check_files(paths, "--out", force=force)
        result = source.scan()
        announce(replaced)
        size = ROW_BYTES * len(result.entries)
        videos = [source.root / entry.path for entry in result.entries]
        check_files(paths, "--out", inputs=videos, force=force, required_bytes=size)
        if probe:
            _probe_views(source, result, quiet)
        if out:
            write_manifest(out, result.entries)
        else:
            source.write(result)
        option = f"--dataset {source.name}"
    if not quiet:
        for line in describe_skipped(result.skipped):
            log(line)
        if result.missing:
            log(f"missing {len(result.missing)}: {shorten_list(result.missing, MAX_NAMES)}")
        for note in result.notes:
            log(note)
        log(f"{len(result.entries)} videos; check them with ceflpipe check {option}")
    echo(str(path))


def _probe_views(source: DatasetSource, result: ScanResult, quiet: bool) -> None:
    """Set rotation and region of entries to those in which the face is upright and frontal."""
    from ...stages.extract.orientation import build_probe_detector, estimate_orientations
    from ...stages.manifest.manifest import Manifest

    if not result.views:
        result.notes.append("--probe: the orientation is certain for all videos of this data set, so none was opened")
        return
    manifest = Manifest(source.name, source.root, tuple(result.entries), (), source.allow_external_paths)
    with progress("probing", quiet=quiet) as on_progress:
        detector = build_probe_detector(source.extract_config)
        orientations = estimate_orientations(manifest, result.views, detector, on_progress)
    best = {orientation.id: orientation.best for orientation in orientations}
    result.entries = [
        replace(entry, rotation=best[entry.id].rotation, region=best[entry.id].region) if entry.id in best else entry
        for entry in result.entries
    ]
    changed = [orientation for orientation in orientations if orientation.changed]
    unknown = [orientation for orientation in orientations if orientation.error]
    result.notes.append(f"probed {len(orientations)} videos: {len(changed)} differ from the default")
    result.notes += [f"  {o.id}: {o.best}; default {o.default}" for o in changed[:MAX_NAMES]]
    result.notes += [f"  {o.id}: default kept: {o.error}" for o in unknown[:MAX_NAMES]]


def _scan_folder(folder: Path, path: Path, labels: tuple[str, ...] | None) -> ScanResult:
    """Scan a folder per expression for the list ``path``.

    Paths of the entries are relative to the folder of the list; absolute if that is neither ``folder`` nor above it.
    """
    from ...stages.manifest.files import describe_skipped
    from ...stages.manifest.loaders import folders

    if not folder.is_dir():
        raise CeflError(f"--folder {folder}: no such folder; give the folder that holds a folder per expression")
    result = folders.scan(folder, labels or ())
    if not result.entries:
        lines = "".join(f"\n  {line}" for line in describe_skipped(result.skipped))
        raise CeflError(
            f"{folder}: no video below a folder that names an expression; expected\n{folders.LAYOUT}{lines}"
        )
    home, parent = folder.resolve(), path.resolve().parent
    prefix = home.relative_to(parent) if home.is_relative_to(parent) else home
    result.entries = [replace(entry, path=(prefix / entry.path).as_posix()) for entry in result.entries]
    return result
