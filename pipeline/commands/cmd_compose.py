"""ceflpipe compose: videos of features, composed of labelled face photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ..config import load_pipeline_config
from ..console import echo, log, progress
from ..names import encoder_key
from ..paths import encoder_file, features_file, manifest_file
from .options import CommaList, announce, device_option, force_option, quiet_option

PHOTOGRAPHS = "photographs:"
LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
FRAME_BYTES = 1200
"""Of a frame in the cache, about."""
MEAN_FRAMES = 50


@click.command(
    name="compose",
    epilog="Example: ceflpipe compose photographs:ferplus/ --encoder faces --name composed; then "
    "ceflpipe train-heads --manifest artifacts/manifests/composed.csv --fold-scheme split --clips 9 --out runs/faces",
    short_help="Compose videos of features from photographs, to train heads for real faces on.",
)
@click.argument("source", metavar="photographs:FOLDER")
@click.option("--encoder", help="Encoder by name, or a file; default: that of the data set of configs/pipeline.yaml.")
@click.option("--name", default="composed", show_default=True, help="Name of the list and of the feature cache.")
@click.option("--labels", type=CommaList(), metavar="A,B,…", help="Labels of the videos; default: six and neutral.")
@click.option("--videos", "num_videos", type=click.IntRange(2), help="How many; default: 6000.")
@click.option("--min-agreement", type=click.FloatRange(0, 1), help="Share of votes that a label needs; default: 0.5.")
@click.option("--seed", type=int, help="Random seed; default: 3456.")
@force_option
@device_option
@quiet_option
def command(
    source: str, encoder: str | None, name: str, labels: tuple[str, ...] | None, force: bool, device: str, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Compose videos of features from labelled photographs: FER+, a folder per expression, or a CSV.

    A video walks between the features of augmented photographs: neutral faces, and an expression that rises, stays and
    fades, or is in every frame. The list and the cache are those of an extracted data set, so heads train on them as on any.
    The validation split is composed of validation photographs only.
    """
    from ...cache.hdf5 import write_videos
    from ...cache.lock import writer_lock
    from ...cache.ownership import check_disk_space, check_files, claim_work_folder, remove_work_folder
    from ...stages.encoder.photograph_crops import CROPS_FILE, RECORD_FILE, crops_bytes, prepare_crops
    from ...stages.encoder.photographs import LAYOUTS, read_photographs
    from ...stages.extract.compose import ComposeConfig, LabelledCrops, compose_videos
    from ...stages.extract.extract_config import (
        ExtractConfig,
        build_encoder,
        resolve_config,
        resolve_crop_size,
    )
    from ...stages.extract.find_face import find_landmarks
    from ...stages.manifest.manifest import write_manifest
    from ..config import load_dataset_config
    from ..executor import num_cores, process_executor

    if not source.startswith(PHOTOGRAPHS):
        raise CeflError(f"{source}: not photographs; write photographs:FOLDER, where FOLDER is {LAYOUTS}")
    config = ComposeConfig(**{key: value for key, value in options.items() if value is not None})
    chosen = encoder or load_dataset_config(load_pipeline_config().dataset).extract.encoder
    extract_config = ExtractConfig(encoder=encoder_file(chosen), precision="fp32", device=device)
    folder, cache, manifest = (
        Path(source.removeprefix(PHOTOGRAPHS)).expanduser(),
        features_file(name, encoder_key(chosen)),
        manifest_file(name),
    )
    announce(check_files([manifest], "--name", force=force))
    announce(check_files([cache], "--name", is_ours=_is_composed, force=force))
    photographs = read_photographs(folder)
    labels = labels or tuple(label for label in LABELS if label in photographs.labels)
    work = cache.with_name(f"{cache.name}.photographs")
    required = config.num_videos * MEAN_FRAMES * FRAME_BYTES
    check_disk_space(cache.parent, "", required + crops_bytes(photographs, resolve_crop_size(extract_config), work))
    claim_work_folder(work)
    resolved = resolve_config(extract_config)
    with progress("photographs", quiet=quiet) as on_progress:
        crops = prepare_crops(
            photographs, resolved.settings.crop_size, work, find_landmarks, executor=process_executor(num_cores()),
            on_progress=on_progress,
        )  # fmt: skip
        names = [photographs.paths[row].name for row in crops.rows]
        data = LabelledCrops(
            crops.crops, photographs.targets[crops.rows], photographs.splits[crops.rows], names, photographs.labels
        )
        composed = list(
            compose_videos(data, labels, build_encoder(resolved.config), resolved.settings, config, on_progress)
        )
    with writer_lock(cache):
        write_videos(cache, [video for _, video in composed], resolved.settings)
    write_manifest(manifest, [entry for entry, _ in composed])
    remove_work_folder(work, lambda name: name in (CROPS_FILE, RECORD_FILE))
    if not quiet:
        log(f"{len(composed)} videos of {', '.join(labels)}; {crops.describe()}")
        log(f"next: ceflpipe train-heads --manifest {manifest} --fold-scheme split --clips 9")
    echo(str(cache))


def _is_composed(cache: Path) -> bool:
    """Return whether a file is a feature cache of this command, and not one that stage one has extracted."""
    from ...cache.hdf5 import is_cache_file, read_index

    return is_cache_file(cache) and set(read_index(cache).decoder) <= {"photographs"}
