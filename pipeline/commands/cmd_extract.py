"""ceflpipe extract: stage one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ...cache.atomic import write_json
from ...cache.errors import CeflError
from ..console import progress, say, show, show_failures, show_json
from ..dataset import Source, find_source
from ..executor import Mapper, cores, processes
from ..paths import timing_file
from .options import cluster_options, device_options, json_option, quiet_option, source_options

MOST_ON_A_GPU = 12
"""Workers that share a GPU by default: each takes about half a gigabyte of it for CUDA itself and the network."""


@click.command(
    name="extract",
    epilog="Examples: ceflpipe extract --dataset mmi; ceflpipe extract --manifest mine.csv --encoder imagenet --out mine.h5",
    short_help="STAGE ONE: find and align the face in every frame, keep ResNet-18's 512 numbers.",
)
@source_options
@click.option(
    "--encoder", help="A weights file by name in artifacts/weights, or a path; default: encoder: of the configuration."
)
@click.option("--out", type=click.Path(path_type=Path), help="Feature cache; default: artifacts/features/NAME.h5.")
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    help="Side of the crop in pixels; default: the data set's, else 224; the encoder actors knows 112.",
)
@click.option("--faces", type=click.Choice(["detect", "given"]), help="given: the data are face crops; only resize.")
@click.option("--detector", help="retinaface, or insightface:PACK (a name, a folder or an .onnx file).")
@click.option("--align", type=click.Choice(["landmarks", "box"]), help="Five-point alignment, or the plain box.")
@device_options
@click.option(
    "--backend",
    type=click.Choice(["torch", "openvino"]),
    help="What runs the encoder; openvino is faster on processors and an extra of the package.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per core, at most 12 on a GPU.")
@click.option(
    "--tolerate", default=0.0, type=click.FloatRange(0, 1), help="Exit 0 when no more than this share of videos failed."
)
@cluster_options
@click.option("--shard", metavar="i/N", help="Only every N-th video from the i-th; see ceflpipe merge.")
@click.option(
    "--patience",
    default=120.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds without a frame before a video is given up as stalled.",
)
@click.option(
    "--verify", is_flag=True, help="Read every source file and every cached number again, and redo what has changed."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and why, do nothing.")
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    encoder: str | None, out: Path | None, size: int | None, faces: str | None, detector: str | None, align: str | None,
    device: str, precision: str | None, backend: str | None, workers: int | None, tolerate: float, cluster: str | None,
    resource: str, shard: str | None, patience: float, verify: bool, dry_run: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """STAGE ONE: decode every video, find and align the face in every frame, run ResNet-18, fill the feature cache.

    Run it again after an interruption: finished videos are not redone. Videos that fail are listed and do not stop the
    others; the exit code is then 1.
    """
    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    listed = source.manifest()  # first of all: where the data are not there, nothing else matters

    from ...stages.extract.extract import extract
    from ...stages.extract.shards import parse_shard, shard_cache, shard_of

    wishes = wishes_of(
        source,
        encoder,
        device,
        precision=precision,
        backend=backend,
        size=size,
        faces=faces,
        detector=detector,
        align=align,
    )
    cache = out or source.features
    if shard:
        listed, cache = shard_of(listed, *parse_shard(shard)), shard_cache(cache, *parse_shard(shard))
    if cluster:  # other machines have other working folders
        listed, cache = replace(listed, root=listed.root.absolute()), cache.absolute()
        wishes = replace(wishes, weights=wishes.weights.absolute())
    mapper, count = _who_works(cluster, resource, workers, wishes.device)

    def on_plan(plan, settings) -> None:
        if quiet:
            return
        say(f"{cache}: {len(plan.kept)} videos finished, {len(plan.jobs)} to do")
        for reason, number in plan.reasons.items():
            say(f"  {number} {reason}")
        if plan.jobs:
            say(f"  {settings.detector or 'faces given'}, {settings.encoder} encoder, {settings.size} px, "
                f"{settings.precision} by {settings.backend} on {wishes.device}, {count} workers")  # fmt: skip

    with progress("extracting", 0 if dry_run else len(listed.rows), quiet=quiet) as bar:
        meter = _Meter(bar)
        result = extract(
            listed, wishes, cache, mapper=mapper, workers=count, patience=patience, verify=verify,
            dry_run=dry_run, on_plan=lambda plan, settings: (on_plan(plan, settings), bar(len(plan.kept)))[0],
            on_video=meter.video,
        )  # fmt: skip
    if result.finished:
        timing = {
            "frames": result.frames,
            "seconds": round(result.seconds, 3),
            "device": wishes.device,
            "workers": count,
        }
        write_json(timing_file(cache), timing)
    if as_json:
        show_json({
            "cache": str(result.cache), "videos": result.videos, "finished": result.finished, "kept": result.kept,
            "frames": result.frames, "seconds": round(result.seconds, 3), "dry_run": dry_run,
            "failed": [{"id": i, "status": s, "note": n} for i, s, n in result.failed],
        })  # fmt: skip
    else:
        _show(result, quiet, dry_run)
    raise click.exceptions.Exit(1 if result.failed_share > tolerate else 0)


def _who_works(cluster: str | None, resource: str, workers: int | None, device: str) -> tuple[Mapper, int]:
    """Return what runs the tasks, and how many of them at a time."""
    if cluster:
        from ..executor import on_cluster

        mapper, count = on_cluster(cluster, tag=resource)
        return mapper, workers or count
    # a worker decodes, detects and encodes; on a GPU each holds its own small network, whose memory bounds their number
    count = workers or (cores() if device == "cpu" else min(MOST_ON_A_GPU, cores()))
    return processes(count), count


def wishes_of(source: Source, encoder: str | None, device: str, **typed: str | int | None):
    """Return stage one's settings: the data set's configuration, over it what was typed."""
    from ...stages.extract.extract_config import Wishes, place_of
    from ..paths import weights_file

    name = encoder or (source.config.encoder if source.config else None)
    if not name:
        raise CeflError(
            "--encoder is needed with --manifest: actors (no download), imagenet, or the name of one you made "
            "with ceflpipe encoder"
        )
    weights = Path(name) if name.endswith(".safetensors") else weights_file(name)
    if not weights.is_file():
        raise CeflError(f"{weights}: no such encoder weights; make them with ceflpipe encoder {Path(name).stem}")
    base = Wishes(weights, device=device, **source.extract.model_dump())
    wishes = replace(base, **{key: value for key, value in typed.items() if value is not None})
    return replace(wishes, device=place_of(wishes.backend, device))


class _Meter:
    """Keeps the words after the progress bar: frames per second and failures so far."""

    def __init__(self, bar) -> None:
        import time

        self._bar, self._clock, self._started, self._frames, self._failures = (
            bar,
            time.monotonic,
            time.monotonic(),
            0,
            0,
        )

    def video(self, done) -> None:
        self._frames += done.frames
        self._failures += done.status != "ok"
        speed = self._frames / max(1e-9, self._clock() - self._started)
        self._bar(1, f"{speed:.0f} frames/s, {self._failures} failed")


def _show(result, quiet: bool, dry_run: bool) -> None:
    show_failures(result.failed, result.videos)
    if dry_run:
        show("dry run: nothing was done")
        return
    if not quiet and result.finished:
        speed = result.frames / max(1e-9, result.seconds)
        say(f"{result.finished} videos, {result.frames} frames in {result.seconds:.1f} s ({speed:.0f} frames/s)")
    show(str(result.cache))
