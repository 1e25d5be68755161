"""ceflpipe extract: stage one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ...cache.atomic import write_json
from ...cache.errors import CeflError
from ...cache.ownership import check_files
from ..console import (
    echo,
    echo_json,
    kept_on_interruption,
    log,
    log_extract_plan,
    print_failures,
    print_notes,
    progress,
)
from ..dataset import DatasetOptions, DatasetSource
from ..executor import dask_executor, num_cores, process_executor
from ..paths import ADAPTED, encoder_file, is_timing_file, timing_file
from .options import (
    OUT_FILE,
    PRECISION_HELP,
    dask_options,
    dataset_options,
    decode_timeout_option,
    det_size_option,
    fps_option,
    json_option,
    quiet_option,
    warn_of_hidden_encoder,
)

if TYPE_CHECKING:
    from ...stages.callbacks import Executor
    from ...stages.extract.extract_config import ExtractConfig, ResolvedConfig
    from ...stages.extract.plan import ExtractPlan
    from ...stages.manifest.manifest import Manifest


@click.command(
    name="extract",
    epilog="Examples: ceflpipe extract --dataset mmi; ceflpipe extract --manifest my_videos.csv --encoder imagenet",
    short_help="STAGE ONE: find and align the face in every frame, keep the encoder's features.",
)
@dataset_options
@click.option(
    "--encoder",
    help="Encoder by name (of the package, or of artifacts/weights), or a file; default: the data set's, else faces.",
)
@click.option("--out", type=OUT_FILE, help="Feature cache; default: artifacts/features/NAME/ENCODER.h5.")
@click.option(
    "--crop-size",
    type=click.IntRange(32, 1024),
    help="Side of the crop in pixels instead of the one that the encoder was trained on.",
)
@fps_option
@click.option(
    "--rotation",
    type=click.Choice(["manifest", "auto"]),
    help="auto: turn videos that have no rotation in the manifest so that their faces are upright.",
)
@click.option("--input", type=click.Choice(["video", "crops"]), help="crops: the data are face crops; only resize.")
@click.option("--detector", help="retinaface, or insightface:PACK (a name, a folder or an .onnx file).")
@det_size_option
@click.option("--align", type=click.Choice(["landmarks", "box"]), help="Five-point alignment, or the plain box.")
@click.option(
    "--device",
    help="auto, cpu, cuda (every visible GPU), cuda:1, or a list as cuda:0,cuda:2; default: the data set's, else auto.",
)
@click.option(
    "--detector-device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where faces are detected; auto: on the GPU that encodes, if onnxruntime-gpu is installed.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    help=f"{PRECISION_HELP[:-1]}, but never int8, which needs an encoder of ceflpipe encoder quantize.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnxruntime", "openvino"]),
    help="Library that runs the encoder; auto: openvino on processors if it is installed, else torch; for ONNX networks "
    "onnxruntime. openvino is an extra of the package. A cache that is there goes on with its own.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per core.")
@click.option(
    "--max-failed", default=0.0, type=click.FloatRange(0, 1), help="Exit 0 if at most this fraction of videos failed."
)
@dask_options
@click.option("--shard", metavar="i/N", help="Only every N-th video from the i-th; see ceflpipe merge-shards.")
@decode_timeout_option
@click.option(
    "--verify", is_flag=True, help="Hash every source file and cached video again, and redo what has changed."
)
@click.option(
    "--retry-failed", is_flag=True, help="Try every failed video again, also if nothing that could help has changed."
)
@click.option(
    "--redo",
    is_flag=False,
    flag_value="all",
    type=click.Choice(["settings", "all"]),
    help="Extract finished videos again that have other settings; all (--redo alone): or were made by other code.",
)
@click.option(
    "--detections",
    default="auto",
    show_default=True,
    metavar="auto|none|FILE",
    help="Feature cache to take known faces from; auto: any of these videos, none: find all faces again.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done and why, do nothing.")
@json_option
@quiet_option
def command(
    data: DatasetOptions, out: Path | None, workers: int | None, max_failed: float, cluster: str | None,
    dask_resource: str, shard: str | None, decode_timeout: float, verify: bool, retry_failed: bool,
    redo: Literal["settings", "all"] | None, detections: str, dry_run: bool, as_json: bool, quiet: bool, **overrides: Any,
) -> None:  # fmt: skip
    """STAGE ONE: decode every video, find and align the face in every frame, run the encoder, fill the feature cache.

    Run it again after an interruption: finished videos are not redone, whatever has changed, unless --redo says so. Videos
    that fail are listed and do not stop the others; the exit code is then 1.
    """
    source = data.resolve().with_encoder(overrides.pop("encoder"))
    manifest = source.manifest()  # first, because without the data nothing else matters

    from ...stages.extract.extract import extract_features
    from ...stages.extract.shards import parse_shard, select_shard, shard_cache

    config = _build_config(source, overrides, on_cluster=bool(cluster))
    cache = out or source.features_path
    if shard:
        number, count = parse_shard(shard)
        manifest, cache = select_shard(manifest, number, count), shard_cache(cache, number, count)
    check_files([timing_file(cache)], "--out", is_ours=is_timing_file, force=None)
    if cluster:  # other machines have other working folders
        manifest, cache = replace(manifest, root=manifest.root.absolute()), cache.absolute()
        kind, _, pack = config.detector.partition(":")
        detector = f"{kind}:{Path(pack).absolute()}" if pack and Path(pack).exists() else config.detector
        config = config.model_copy(update={"encoder": config.encoder.absolute(), "detector": detector})
    known = _find_detections(detections, source, cache)
    executor, workers = _build_executor(cluster, dask_resource, workers)
    gpus = () if cluster else _gpus_of(config)
    config = config.model_copy(update={"device": "cuda" if len(gpus) > 1 else (*gpus, config.device)[0]})

    if not dry_run:
        source.claim_names()

    def print_plan(plan: ExtractPlan, resolved: ResolvedConfig) -> None:
        log_extract_plan(plan, str(cache), "extract")
        for file, reason in plan.skipped_caches:
            log(f"  faces of {file} not used: {reason}")
        for code, number in plan.other_code.items():
            log(f"  {number} finished videos were made by other code of stage one ({code}); --redo extracts them again")
        if plan.pending:
            settings = resolved.settings
            log(
                f"  {settings.detector or 'face crops'}, {settings.encoder} encoder, {settings.crop_size} px, "
                f"{settings.precision} by {settings.backend} on {', '.join(gpus) or resolved.config.device}, {workers} workers"
            )
            log_detector_device(config, resolved)
        if plan.pending and resolved.note:
            log(f"  {resolved.note}")

    kept = kept_on_interruption("Finished videos are kept; run the same command to go on.")
    with progress("extracting", quiet=quiet or dry_run) as on_progress, kept:
        result = extract_features(
            manifest, config, cache, executor=executor, workers=workers, gpus=gpus, resolve_on_workers=bool(cluster),
            decode_timeout=decode_timeout, verify=verify, retry_failed=retry_failed, redo=redo or "", detections=known,
            dry_run=dry_run, on_plan=None if quiet else print_plan, on_progress=on_progress,
        )  # fmt: skip
    warnings = result.restarts + ([] if dry_run else _find_leaks(manifest, result.cache))
    if result.num_extracted:
        seconds = round(result.seconds, 3)
        timing = {"frames": result.num_frames, "seconds": seconds, "device": result.device, "workers": workers}
        timing["encode_ms"] = None if result.encode_ms is None else round(result.encode_ms, 4)
        write_json(timing_file(cache), timing)
    if as_json:
        echo_json({
            "cache": str(result.cache), "videos": result.num_videos, "extracted": result.num_extracted,
            "cached": result.num_cached, "frames": result.num_frames, "seconds": round(result.seconds, 3),
            "dry_run": dry_run, "failed": [{"id": i, "status": s, "note": n} for i, s, n in result.failed],
            "notes": [{"id": i, "note": n} for i, n in result.notes], "warnings": warnings,
        })  # fmt: skip
    else:
        print_failures(result.failed, result.num_videos)
        print_notes(result.notes)
        for line in warnings:
            echo(f"warning: {line}")
        if dry_run:
            echo("dry run: nothing was done")
        else:
            if not quiet and result.num_extracted:
                speed = result.num_frames / max(1e-9, result.seconds)
                log(
                    f"{result.num_extracted} videos, {result.num_frames} frames in {result.seconds:.1f} s "
                    f"({speed:.0f} frames/s)"
                )
            echo(str(result.cache))
    raise click.exceptions.Exit(1 if result.failed_fraction > max_failed else 0)


def _find_detections(option: str, source: DatasetSource, cache: Path) -> list[Path] | None:
    """Return the other feature caches from which --detections takes faces; None if all are to be found again."""
    if option == "none":
        return None
    if option != "auto":
        if not Path(option).is_file():
            raise CeflError(f"--detections {option}: no such feature cache; give the file of one, auto or none")
        return [Path(option)]
    return [file for file in source.feature_caches if file.absolute() != cache.absolute()]


def _find_leaks(manifest: Manifest, cache: Path) -> list[str]:
    """Return a warning for each video and person that the list has under two names, from the hashes in the cache."""
    from ...cache.hdf5 import read_index
    from ...stages.manifest.leaks import leak_warnings

    if not cache.is_file():
        return []
    index = read_index(cache)
    return leak_warnings(manifest.entries, dict(zip(index.id, index.source_sha256, strict=True)))


def _build_config(source: DatasetSource, overrides: dict[str, Any], on_cluster: bool) -> ExtractConfig:
    """Return the data set's configuration of stage one, overridden by options that are not None.

    The device is resolved here unless the work is done ``on_cluster``: this machine may have no GPU.
    """
    from ...stages.encoder.weights import build_command
    from ...stages.extract.extract_config import resolve_backend, resolve_backend_device

    overrides = {key: value for key, value in overrides.items() if value is not None}
    if source.lists_crops and overrides.get("input", source.extract_config.input) != source.extract_config.input:
        raise CeflError(
            f"--input {overrides['input']}: {source.name} lists other files for it; set extract: {{input: "
            f"{overrides['input']}}} in configs/{source.name}.yaml and recreate the manifest"
        )
    config = source.extract_config.model_copy(update=overrides)
    path = encoder_file(config.encoder)
    if not path.is_file() and str(config.encoder).endswith(ADAPTED):
        raise CeflError(
            f"--encoder {config.encoder}: has an encoder for each fold, whose features ceflpipe encoder adapt makes; run that, "
            "or give the file of one of them"
        )
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder; build it with {build_command(path)}")
    warn_of_hidden_encoder(config.encoder)
    warn_of_crop_size(config.crop_size, path)
    if on_cluster and "," in config.device:
        raise CeflError(
            f"--device {config.device}: a worker of a cluster has one device; give --device cuda, and start a worker per GPU "
            "with CUDA_VISIBLE_DEVICES"
        )
    config = config.model_copy(update={"encoder": path})
    backend, device = resolve_backend(config), config.device
    if not on_cluster and "," not in device:
        device = resolve_backend_device(backend, device)
    return config.model_copy(update={"device": device})


def warn_of_crop_size(crop_size: int | None, encoder: Path) -> None:
    """Print a warning if the crops have another size than those that the encoder was trained on."""
    from ...stages.encoder.weights import read_encoder_metadata

    trained = read_encoder_metadata(encoder).crop_size if crop_size else None
    if trained and crop_size != trained:
        log(
            f"warning: crops of {crop_size} px, but {encoder.name} was trained on {trained} px; leave out the crop size to use "
            "that one"
        )


def _build_executor(cluster: str | None, dask_resource: str, workers: int | None) -> tuple[Executor, int]:
    """Return what runs the tasks, and the number of workers."""
    if cluster:
        executor, count, _ = dask_executor(cluster, resource=dask_resource)
        return executor, workers or count
    count = workers or num_cores()
    return process_executor(count), count


def _gpus_of(config: ExtractConfig) -> tuple[str, ...]:
    """Return the GPUs of this machine that encode, none if a processor does; warns of different models."""
    from ...stages.extract.extract_config import resolve_backend, resolve_backend_devices

    devices = resolve_backend_devices(resolve_backend(config), config.device)
    if devices == ("cpu",):
        return ()
    from ...stages.device import gpu_models

    models = gpu_models(devices) if len(devices) > 1 else []
    if len(models) > 1:
        log(
            f"warning: GPUs of different models ({', '.join(models)}) round differently, and the cache will have those of each; "
            "for one model give a list, as in --device cuda:0,cuda:1"
        )
    return devices


def log_detector_device(config: ExtractConfig, resolved: ResolvedConfig) -> None:
    """Print where faces are detected if a GPU encodes, and what to install if the processors do for the lack of it."""
    if resolved.settings.detector and not resolved.config.device.startswith("cpu"):
        if resolved.config.detector_device == "cuda":
            log("  faces are detected on the GPU as well")
        elif config.detector_device == "auto":
            log(
                "  faces are detected on processors: pip uninstall onnxruntime and pip install onnxruntime-gpu to detect them on "
                "the GPU"
            )
