"""ceflpipe crops: the crop cache of a data set."""

from __future__ import annotations

from typing import Literal

import click

from ..console import echo, echo_json, kept_on_interruption, log, print_failures, progress
from ..dataset import DatasetOptions
from .options import dataset_options, json_option, quiet_option


@click.command(
    name="crops",
    epilog="Examples: ceflpipe crops --dataset mmi; ceflpipe crops --dataset mmi --encoder imagenet --dry-run",
    short_help="Keep the aligned faces of a data set, to train encoders on them; nothing else needs them.",
)
@dataset_options
@click.option("--encoder", help="Encoder whose crop size is used, by name or file; default: the data set's.")
@click.option("--crop-size", type=click.IntRange(32, 1024), help="Side of the crops in pixels instead of that.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per core.")
@click.option(
    "--verify", is_flag=True, help="Hash every source file and cached video again, and redo what has changed."
)
@click.option("--retry-failed", is_flag=True, help="Try every failed video again.")
@click.option(
    "--redo",
    is_flag=False,
    flag_value="all",
    type=click.Choice(["settings", "all"]),
    help="Make finished crops again that have other settings; all (--redo alone): or were made by other code.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done and why, do nothing.")
@json_option
@quiet_option
def command(
    data: DatasetOptions, encoder: str | None, crop_size: int | None, workers: int | None, verify: bool,
    retry_failed: bool, redo: Literal["settings", "all"] | None, dry_run: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Keep the aligned face of every frame, uint8 (S, S, 3), in artifacts/crops: what encoder adapt and train-end-to-end read.

    Faces are those of the data set's feature caches where these still hold, else they are found as extract does. The crops are
    the bytes that an encoder of this crop size gets. Finished videos are not redone. A frame of 96 pixels takes 28 kB.
    """
    from ..crops import CropsOptions, make_crops, print_crops_plan

    source = data.resolve().with_encoder(encoder)
    options = CropsOptions(crop_size, workers, verify, retry_failed, redo or "", dry_run)
    kept = kept_on_interruption("Finished videos are kept; run the same command to go on.")
    with progress("cropping", quiet=quiet or dry_run) as on_progress, kept:
        result = make_crops(source, options, on_plan=None if quiet else print_crops_plan, on_progress=on_progress)
    if as_json:
        echo_json({
            "cache": str(result.cache), "videos": result.num_videos, "made": result.num_extracted,
            "cached": result.num_cached, "frames": result.num_frames, "seconds": round(result.seconds, 3),
            "dry_run": dry_run, "failed": [{"id": i, "status": s, "note": n} for i, s, n in result.failed],
        })  # fmt: skip
    else:
        print_failures(result.failed, result.num_videos)
        if dry_run:
            echo("dry run: nothing was done")
        else:
            if not quiet and result.num_extracted:
                log(f"{result.num_extracted} videos, {result.num_frames} frames in {result.seconds:.1f} s")
            echo(str(result.cache))
    raise click.exceptions.Exit(1 if result.failed else 0)
