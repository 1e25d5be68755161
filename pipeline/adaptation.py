"""Encoders fine-tuned on the folds of a data set: crops, an encoder per fold, and the features of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..cache.atomic import write_json
from ..cache.errors import CeflError
from ..cache.hdf5 import fold_cache, is_cache_file, read_index, read_settings
from ..cache.ownership import check_disk_space, check_files
from ..stages.callbacks import ProgressCallback, ignore_progress
from ..stages.encoder.adapt import Adaptation, AdaptFold, FoldOutcome, adapt_encoders, trunk_bytes
from ..stages.encoder.encoder_config import AdaptConfig
from ..stages.extract.encode_crops import encode_crops
from ..stages.extract.extract_config import ExtractConfig, resolve_backend, resolve_backend_device, resolve_settings
from ..stages.heads.folds import Fold, make_folds
from ..stages.heads.run_io import run_config
from ..stages.heads.train_config import CVConfig, TrainConfig
from ..stages.manifest.manifest import VideoEntry
from .crops import crops_config, crops_path
from .dataset import DatasetSource
from .executor import num_cores, process_executor
from .names import encoder_key
from .paths import ADAPTED, encoder_file, features_folder, fold_encoders_folder, is_timing_file, timing_file

ENCODER_BYTES = 45_000_000


def make_adaptation(
    source: DatasetSource, config: AdaptConfig, cv: CVConfig, device: str, only: Sequence[str] = ()
) -> Adaptation:
    """Return what is fine-tuned: the folds of the data set, and in each the videos that say when to stop.

    ``only``: names of folds; empty for all. Raises CeflError for other names, and where the data cannot be split.
    """
    manifest = source.manifest()
    crops = crops_path(source, crops_config(source))
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    names = [fold.name for fold in folds]
    for name in only:
        if name not in names:
            raise CeflError(f"--only-folds {name}: no such fold; there are {', '.join(names)}")
    chosen = [fold for fold in folds if not only or fold.name in only]
    parts = tuple(split_training(manifest.entries, fold, config) for fold in chosen)
    digest = run_config(manifest, TrainConfig(), cv)["manifest_sha256"]
    return Adaptation(manifest, digest, crops, encoder_file(source.extract_config.encoder), parts, device)


def split_training(entries: Sequence[VideoEntry], fold: Fold, config: AdaptConfig) -> AdaptFold:
    """Return a fold whose training videos are split by subject, or by video where subjects are unknown; raises CeflError if they
    cannot be."""
    train = [entries[i] for i in fold.train]
    labels = [entry.label for entry in train]
    count = min([config.validation_parts, *(labels.count(label) for label in set(labels))])
    scheme = "subject" if all(entry.subject for entry in train) else "stratified"
    if scheme == "subject":
        count = min(count, len({entry.subject for entry in train}))
    if count < 2:
        raise CeflError(
            f"fold {fold.name}: its {len(train)} training videos cannot be split into a part to train and a part that says when "
            "to stop; each needs a subject and each label more than once; use --folds to make larger folds"
        )
    inner = make_folds(train, scheme, count, config.seed)[0]
    train_part, validation = (tuple(int(fold.train[i]) for i in part) for part in (inner.train, inner.test))
    return AdaptFold(fold.name, train_part, validation, tuple(map(int, fold.test)))


@dataclass(frozen=True)
class AdaptResult:
    """``outcomes`` of the folds; ``features``: folder of their feature caches; ``seconds`` that making these took."""

    encoder: str
    outcomes: list[FoldOutcome]
    features: Path
    seconds: float


@dataclass(frozen=True)
class AdaptFiles:
    """Where encoders and features of the folds are written."""

    encoder: str
    weights: Path
    features: Path


def adapted_files(source: DatasetSource) -> AdaptFiles:
    """Return the files of the adapted encoders of a data set; raises CeflError if its encoder is an adapted one itself."""
    base = encoder_key(source.extract_config.encoder)
    if base.endswith(ADAPTED):
        raise CeflError(
            f"--encoder {base}: is adapted already; give the one it started from, {base.removesuffix(ADAPTED)}"
        )
    cache = source.features_path
    if cache.is_file() and read_settings(cache).precision == "int8":
        raise CeflError(
            f"{cache}: has features in int8, which encoders of folds cannot compute; extract with another --precision to compare"
        )
    name = base + ADAPTED
    return AdaptFiles(name, fold_encoders_folder(source.name, name), features_folder(source.name) / name)


def describe_adaptation(source: DatasetSource, adaptation: Adaptation, config: AdaptConfig) -> list[str]:
    """Return what an adaptation would do, and what that takes, in lines."""
    folds, size = adaptation.folds, crops_config(source).crop_size or 0
    used = {i for fold in folds for i in (*fold.train, *fold.validation)}
    first = folds[0]
    memory = len(used) * config.frames_per_video * 3 * size**2
    disk = trunk_bytes(len(used), config, size) + len(folds) * ENCODER_BYTES
    return [
        f"{len(folds)} folds of {len(adaptation.manifest.entries)} videos; of fold {first.name}: {len(first.train)} to train, "
        f"{len(first.validation)} that say when to stop, {len(first.test)} of the test, which are not used",
        f"{config.frames_per_video} frames of a video, {config.variants} images of each; {config.layers} layers; at most "
        f"{config.epochs} epochs of {-(-len(first.train) // config.batch_size)} steps",
        f"memory for frames {memory / 1e6:,.0f} MB; disk {disk / 1e6:,.0f} MB while it runs, "
        f"{len(folds) * ENCODER_BYTES / 1e6:,.0f} MB of encoders after that, and the features of each fold",
    ]


def adapt(
    source: DatasetSource,
    adaptation: Adaptation,
    config: AdaptConfig,
    *,
    workers: int | None = None,
    force: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> AdaptResult:
    """Fine-tune an encoder per fold and write the feature cache of each; what is finished is kept.

    Features are made of the crop cache: the bytes are those of extract, and no video is read again. ``on_progress`` counts
    videos and epochs. Raises CeflError as adapt_encoders and encode_crops.
    """
    files = adapted_files(source)
    base_cache = source.features_path
    names = {fold.name: fold_cache(files.features, fold.name) for fold in adaptation.folds}
    check_files([*names.values()], "--encoder", is_ours=is_cache_file, force=None)
    check_files([timing_file(files.features)], "--encoder", is_ours=is_timing_file, force=None)
    outcomes = adapt_encoders(adaptation, config, files.weights, force=force, on_progress=on_progress)
    cached = read_settings(base_cache) if base_cache.is_file() else None
    index = read_index(adaptation.crops)
    frames = int(index.length.sum())
    check_disk_space(files.features, "--encoder", len(outcomes) * frames * (2 * 512 + 78))
    started, made, count = time.monotonic(), 0, 1
    for number, outcome in enumerate(outcomes):
        extract = source.extract_config.model_copy(
            update={
                "encoder": outcome.path, "crop_size": read_settings(adaptation.crops).crop_size,
                "precision": cached.precision if cached else "auto", "backend": cached.backend if cached else "auto",
            }
        )  # fmt: skip
        extract = _resolve_device(extract, adaptation.device)
        count = (workers or num_cores()) if extract.device == "cpu" else 1
        settings = resolve_settings(extract)
        extract = extract.model_copy(update={"precision": settings.precision})
        report = partial(_report_features, on_progress, number, len(outcomes), len(index))
        made += encode_crops(
            adaptation.manifest, adaptation.crops, extract, settings, names[outcome.fold],
            executor=process_executor(count) if count > 1 else map, on_progress=report,
        )  # fmt: skip
    seconds = time.monotonic() - started
    if made:
        timing = {"frames": made * frames, "seconds": round(seconds, 3), "device": adaptation.device, "workers": count}
        write_json(timing_file(files.features), timing | {"encode_ms": None})
    return AdaptResult(files.encoder, outcomes, files.features, seconds)


def _report_features(
    on_progress: ProgressCallback, number: int, folds: int, videos: int, completed: int, total: int, note: str = ""
) -> None:
    on_progress(number * videos + completed, folds * videos, f"features of {note}")


def _resolve_device(config: ExtractConfig, device: str) -> ExtractConfig:
    backend = resolve_backend(config)
    return config.model_copy(update={"backend": backend, "device": resolve_backend_device(backend, device)})
