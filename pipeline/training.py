"""Training orchestration: run specifications from options, and sweeps of runs."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..cache.errors import CeflError
from ..cache.fingerprint import ExtractionSettings
from ..cache.hdf5 import read_index, read_settings
from ..cache.ownership import RUN_FOLDER, check_disk_space, check_folder
from ..stages.callbacks import Executor, ProgressCallback, ignore_progress
from ..stages.device import resolve_device, resolve_precision
from ..stages.encoder.model_card import model_card
from ..stages.encoder.weights import read_encoder_metadata
from ..stages.fold_encoder import FoldEncoder
from ..stages.heads.clip_sampling import check_sampling
from ..stages.heads.data_checks import check_training_data
from ..stages.heads.feature_bank import load_table
from ..stages.heads.final_model import final_config
from ..stages.heads.folds import make_folds
from ..stages.heads.registry import resolve_head
from ..stages.heads.run_card import CardTexts
from ..stages.heads.run_io import Run, heads_code, read_run
from ..stages.heads.run_size import estimate_run_size
from ..stages.heads.sweep import RunSpec, reason_to_train, train_run
from ..stages.heads.train_config import CVConfig, TrainConfig
from ..stages.manifest.manifest import Manifest
from .config import DatasetConfig, TrainOptions, load_cv_config, load_train_config
from .console import log
from .dataset import DatasetSource
from .executor import num_cores, process_executor
from .paths import encoder_file

THREADS_PER_RUN = 1
"""Steps are short, and half of one is memory traffic: two runs of one thread each finish sooner than one run of two
threads after the other (tests/bench/stage_two.py has the figures)."""


def resolve_train_config(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with aliases of heads and precision ``auto`` resolved."""
    precision = resolve_precision(config.precision, device)
    if precision == "fp16":  # its range is too small for gradients without scaling
        precision = "fp32"
    return config.model_copy(update={"head": resolve_head(config.head), "precision": precision})


def make_run_spec(source: DatasetSource, options: TrainOptions) -> RunSpec:
    """Return the specification of one run, without its output folder (``out``).

    Prints what check_training_data warns of. Raises CeflError if it refuses the data, or the cache was extracted with another
    encoder than the data set is configured for now.
    """
    manifest = source.manifest()  # first, because a problem in it affects everything after
    device = resolve_device(options.device)
    config = resolve_train_config(load_train_config(source.config, **options.train), device)
    cv = load_cv_config(source.config, **options.cv)
    _check_tuning(options, cv)
    cache = source.find_features(options.features)
    settings = read_settings(cache)
    if source.is_own_cache(cache):
        _check_encoder_hash(source, cache, settings)
    source.claim_names(cache)
    check_sampling(config.num_clips, config.frames_per_clip)
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    for line in check_training_data(manifest.entries, read_index(cache), folds, cv, trains=config.epochs > 0):
        log(f"warning: {line}")
    return _spec(source, options, manifest, cache, config, cv, device)


def _check_tuning(options: TrainOptions, cv: CVConfig) -> None:
    """Raise CeflError if an option is of no effect beside ``cv.tune``."""
    if "learning_rate" in cv.tune and options.train.get("learning_rate") is not None:
        raise CeflError(
            "--lr: the learning rate is chosen for each fold (--tune); leave out one of the two, or give the rates to choose "
            "from with --tune-lr"
        )
    if "learning_rate" not in cv.tune and options.cv.get("tune_learning_rates") is not None:
        raise CeflError("--tune-lr: nothing is chosen from these rates; add --tune lr")
    if "weight_decay" not in cv.tune and options.cv.get("tune_weight_decays") is not None:
        raise CeflError("--tune-weight-decays: nothing is chosen from these; add --tune weight_decay")


def make_final_spec(source: DatasetSource, options: TrainOptions, reference: Run) -> RunSpec:
    """Return the specification of the final model of a cross-validated run, without its output folder (``out``).

    Raises CeflError as ``make_run_spec``, if the options ask for other training than the run's, and if the run is not a whole
    cross-validation of the videos, features and code that are there now.
    """
    manifest = source.manifest()
    device = resolve_device(options.device)
    config, cv = final_config(reference), reference.cv.without_tuning()
    now = reference.train_config.model_dump() | reference.cv.model_dump()
    for key, value in {**options.train, **options.cv}.items():
        value = resolve_head(value) if key == "head" and value else value
        if value not in (None, now[key]):
            raise CeflError(
                f"{reference.path}: was cross-validated with {key} {now[key]}, so {key} {value} has no score to expect; leave it "
                "out, or cross-validate with it first"
            )
    cache = source.find_features(options.features)
    settings = read_settings(cache)
    if source.is_own_cache(cache):
        _check_encoder_hash(source, cache, settings)
    source.claim_names(cache)
    return _spec(source, options, manifest, cache, config, cv, device)


def _spec(
    source: DatasetSource, options: TrainOptions, manifest: Manifest, cache: Path, config: TrainConfig, cv: CVConfig,
    device: torch.device,
) -> RunSpec:  # fmt: skip
    command = shlex.join(["ceflpipe", *sys.argv[1:]])
    texts = CardTexts(describe_dataset(source.config, manifest), encoder_card(read_settings(cache)))
    encoders = tuple(map(read_fold_encoder, source.fold_encoder_files)) if cache.is_dir() else ()
    return RunSpec(
        manifest,
        cache,
        config,
        cv,
        Path(),
        str(device),
        command,
        memory=options.memory,
        card_texts=texts,
        fold_encoders=encoders,
    )


def read_fold_encoder(path: Path) -> FoldEncoder:
    """Read what the encoder of a fold has seen; raises CeflError if the file does not record that."""
    encoder = read_encoder_metadata(path)
    return FoldEncoder.from_metadata(encoder.metadata, encoder.sha256, str(path))


def encoder_card(settings: ExtractionSettings) -> str:
    """Return the model card of the encoder of features; '' if its file is not there, or is another one by now."""
    try:
        encoder = read_encoder_metadata(encoder_file(settings.encoder))
    except CeflError:
        return ""
    return model_card(encoder) if encoder.sha256 == settings.encoder_sha256 else ""


def describe_dataset(config: DatasetConfig | None, manifest: Manifest) -> str:
    """Return what is known of a data set, for a model card."""
    if config is None:
        return f"Videos of the list `{manifest.name}`; its author knows where they come from, and their terms."
    card = config.card
    parts = [card.description, card.reference, f"To be had: {card.access}" if card.access else ""]
    return " ".join([f"{config.title}.", *filter(None, parts)])


def inputs_of(spec: RunSpec) -> list[Path]:
    """Return what a run is made of and must not be replaced by it."""
    return [spec.manifest.root, spec.features]


def run_sweep(
    specs: Sequence[RunSpec],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    processes: int = 1,
    on_plan: Callable[[int, Mapping[str, int]], None] = lambda cached, reasons: None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Run]:
    """Train the runs that are not complete yet and return all runs in the order of ``specs``.

    A single run trains in this process; several (``workers``; default: one per core, one on a GPU) train in processes that
    share the cores and one copy of the features in memory. On an ``executor`` of other machines each worker reads the
    feature cache itself, and refuses if that, or its code, is not what this process has; so many ``processes`` share the
    memory of a machine. ``on_plan`` gets the number of cached runs, and of others by the reason
    why they are trained; ``on_progress`` counts runs, cached ones included.
    """
    table = load_table(specs[0].features)
    features_sha256 = table.features_sha256
    reasons = {spec.out: reason_to_train(spec, features_sha256) for spec in specs}
    pending = [spec for spec in specs if reasons[spec.out]]
    completed = len(specs) - len(pending)
    on_plan(completed, Counter(filter(None, reasons.values())))
    on_progress(completed, len(specs), f"{completed} cached")
    for spec in pending:
        check_folder(spec.out, "--out", RUN_FOLDER, inputs=inputs_of(spec), force=spec.force)
    on_gpu = specs[0].device != "cpu"
    count = workers or (1 if on_gpu else max(1, num_cores() // THREADS_PER_RUN))
    _check_disk_space(pending, table.features.shape[1], len(pending) if executor else count)
    if executor is None and (count == 1 or len(pending) <= 1):
        for number, spec in enumerate(pending, start=completed + 1):
            train_run(replace(spec, table=table))
            on_progress(number, len(specs), spec.out.name)
    else:
        # the longest first, so that no core idles at the end while another core is still at a long run
        pending.sort(key=lambda spec: spec.config.num_clips * spec.config.frames_per_clip, reverse=True)
        if executor is None:
            executor = process_executor(count, threads=max(1, num_cores() // count))
            shared = {"processes": min(count, len(pending)), "features_sha256": features_sha256}
            # a memory map is of one process, but the file behind it is in memory once; it was verified above
            shared |= {"verify": False} if isinstance(table.features, np.memmap) else {"table": table}
            pending = [replace(spec, **shared) for spec in pending]
        else:
            needed = {"features_sha256": features_sha256, "code": heads_code(), "processes": processes}
            pending = [replace(spec, **needed) for spec in pending]
        for number, outcome in enumerate(executor(train_run, pending), start=completed + 1):
            if isinstance(outcome, tuple):
                raise CeflError(f"{outcome[0].out}: {outcome[1]}; run the same command to resume")
            on_progress(number, len(specs), outcome.name)
    return [read_run(spec.out) for spec in specs]


def _check_disk_space(specs: Sequence[RunSpec], dim: int, count: int) -> None:
    """Raise CeflError if the disk has no room for all runs on features of ``dim`` numbers, ``count`` of which train at a time."""
    if specs:
        sizes = [estimate_run_size(spec.manifest, spec.config, spec.cv, dim) for spec in specs]
        unfinished = sorted((size.unfinished for size in sizes), reverse=True)
        check_disk_space(specs[0].out.parent, "--out", sum(size.finished for size in sizes) + sum(unfinished[:count]))


def _check_encoder_hash(source: DatasetSource, cache: Path, settings: ExtractionSettings) -> None:
    """Raise CeflError if the cache was extracted with other encoder weights than the data set is configured for."""
    path = encoder_file(source.extract_config.encoder)
    if not path.is_file():
        return
    encoder = read_encoder_metadata(path)
    if settings.encoder_sha256 != encoder.sha256:
        raise CeflError(
            f"{cache}: extracted with other encoder weights ({settings.encoder} {settings.encoder_sha256[:8]}…, "
            f"now {encoder.name} {encoder.sha256[:8]}…); redo it with ceflpipe extract {source.option} --redo settings, "
            "or extract it to another cache (extract --out FILE) and train on that (train-heads --features FILE): its runs have "
            "a folder of their own"
        )
