"""ceflpipe inspect: what a feature cache holds, whether its bytes are whole, and how its faces are aligned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError
from ..config import dataset_names
from ..console import say, show, show_json, show_table
from ..dataset import Source, find_source
from ..paths import features_file
from .options import json_option, quiet_option, source_options

if TYPE_CHECKING:
    from ...cache.features import FeatureTable

MOST_FAILURES_SHOWN = 20


@click.command(
    name="inspect",
    epilog="Examples: ceflpipe inspect; ceflpipe inspect mmi.h5 --verify; ceflpipe inspect --sheet faces.png",
    short_help="Say what a feature cache holds; draw a sheet of its aligned faces.",
)
@click.argument("cache", required=False, type=click.Path(path_type=Path))
@source_options
@click.option("--verify", is_flag=True, help="Compare every video's bytes with the checksum they were written with.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    help="Write a PNG of aligned faces with their landmarks, to look at before training.",
)
@click.option(
    "--videos", default=12, show_default=True, type=click.IntRange(1, 200), help="How many videos the sheet shows."
)
@click.option("--seed", default=3456, show_default=True, help="Another seed, other videos on the sheet.")
@json_option
@quiet_option
def command(
    cache: Path | None,
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
    verify: bool,
    sheet: Path | None,
    videos: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say how many videos and frames a cache holds, where its crops came from, what made it, and what failed.

    Exits with 1 when --verify finds videos whose bytes have changed.
    """
    from ...cache.hdf5 import damaged_videos, read_table

    source = _source(cache, dataset, manifest, root, labels, allow_outside)
    path = cache or (source.features if source else features_file("demo"))
    damaged = damaged_videos(path) if verify else None
    table = read_table(path, verify=False, features=False)
    told = _facts(path, table, damaged)
    if as_json:
        show_json(told)
    else:
        _show(told)
    if sheet:
        if source is None:
            raise CeflError(f"--sheet: where do the videos of {path} lie? Say --dataset, or --manifest and --root")
        _write_sheet(sheet, table, source, videos, seed, quiet)
        if not as_json:
            show(str(sheet))
    raise click.exceptions.Exit(1 if damaged else 0)


def _source(
    cache: Path | None,
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
) -> Source | None:
    """Return where the cache's videos come from; for a path alone the data set of that name, if there is one."""
    if cache and not dataset and not manifest:
        if cache.stem not in dataset_names():
            return None
        dataset = cache.stem
    return find_source(dataset, manifest, root, labels, allow_outside=allow_outside)


def _facts(path: Path, table: FeatureTable, damaged: list[str] | None) -> dict[str, Any]:
    """Return everything that is said, as plain values."""
    import json
    from collections import Counter

    import numpy as np

    from ...cache.features import OK, FrameStatus

    index = table.index
    counts = {status.name.lower(): int((table.frame_status == status).sum()) for status in FrameStatus}
    lengths = np.sort(index.length)
    return {
        "cache": str(path),
        "bytes": path.stat().st_size,
        "identity": table.identity,
        "videos": len(index),
        "video_statuses": dict(Counter(index.status)),
        "frames": int(index.length.sum()),
        "frames_per_video": [int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])]
        if len(lengths)
        else [],
        "frame_statuses": counts,
        "fps": sorted({float(fps) for fps in index.fps if fps > 0}),
        "settings": json.loads(table.settings),
        "failed": [
            {"id": name, "status": status, "note": note}
            for name, status, note in zip(index.id, index.status, index.note, strict=True)
            if status != OK
        ],
        "damaged": damaged,
    }


def _show(told: dict[str, Any]) -> None:
    least, median, most = told["frames_per_video"] or (0, 0, 0)
    show(
        f"{told['cache']}: {told['videos']} videos, {told['frames']:,} frames "
        f"({least} to {most} per video, median {median}), {told['bytes'] / 1e6:.1f} MB"
    )
    show_table(["videos", "count"], list(told["video_statuses"].items()))
    total = max(1, told["frames"])
    show_table(
        ["frames", "count", "share %"],
        [(name, f"{count:,}", f"{100 * count / total:.2f}") for name, count in told["frame_statuses"].items()],
    )
    made = {key: value[:12] if key.endswith("sha256") else value for key, value in told["settings"].items()}
    show_table(["made by", ""], [(key.replace("_", " "), value) for key, value in made.items() if value != ""])
    show(
        f"identity {told['identity'][:12]}; "
        f"frames per second {', '.join(f'{fps:g}' for fps in told['fps'][:6]) or 'not known'}"
    )
    if told["failed"]:
        shown = told["failed"][:MOST_FAILURES_SHOWN]
        show_table(
            ["video", "status", "what happened"],
            [(one["id"], one["status"], one["note"]) for one in shown],
            title=f"{len(told['failed'])} videos with a problem",
        )
        if len(shown) < len(told["failed"]):
            show(f"… and {len(told['failed']) - len(shown)} more; all of them with --json")
    if told["damaged"] is None:
        show("bytes not compared; compare them with --verify")
    elif told["damaged"]:
        some = ", ".join(told["damaged"][:5])
        show(
            f"damaged: {len(told['damaged'])} of {told['videos']} videos have changed on disk ({some}); "
            "ceflpipe extract --verify redoes them"
        )
    else:
        show(f"verified: all {told['videos']} videos are as they were written")


def _write_sheet(path: Path, table: FeatureTable, source: Source, videos: int, seed: int, quiet: bool) -> None:
    from ...cache.atomic import replacing
    from ...stages.plots.strips import sheet_figure
    from ...stages.plots.style import png
    from ...stages.report.contact_sheet import contact_sheet

    rows = contact_sheet(source.manifest(), table, videos, seed)
    if not rows:
        raise CeflError(
            f"--sheet: none of the videos in {source.root} is in the cache; say which with --dataset or --manifest"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(png(sheet_figure(rows), dpi=110))
    if not quiet:
        say(f"{len(rows)} videos by chance (--seed {seed}); orange frames mark crops without a face of their own")
