"""Stage two: from features and a manifest to a cross-validated run folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.features import FeatureTable, FoldFeatures
from ...cache.lock import writer_lock
from ...cache.ownership import RUN_FOLDER, check_disk_space, check_folder
from ..callbacks import ProgressCallback, ignore_progress
from ..device import deterministic_algorithms
from ..fold_encoder import FoldEncoder
from ..manifest.manifest import Manifest
from ..state_dict import read_state_dict
from .calibration import calibration_metrics
from .ceflnet_released import CEFLNetReleased, load_released_state, unused_keys
from .chunks import FinishedChunks, Tables, bytes_per_model, chunk_sizes, unfinished_folder
from .clip_sampling import check_sampling
from .data_checks import check_fold_encoders, check_training_data
from .evaluate import evaluate, pad_stack
from .feature_bank import VideoDataset, join_features, sources_sha256
from .final_model import all_videos, check_reference, describe_reference, expected_metrics
from .folds import make_folds
from .free_memory import available_bytes
from .metrics import compute_metrics, uar, war
from .predictions import predictions_frame
from .registry import resolve_head
from .run_card import NO_TEXTS, CardTexts, run_card
from .run_io import Run, run_config, write_run
from .run_size import estimate_run_size, parameters_per_model
from .train import EpochStats, ModelSpec, train
from .train_config import TUNED_SETTINGS, CVConfig, TrainConfig
from .tuning import Candidate, choose, make_candidates, no_tuning, train_candidates, tuned_models

HISTORY_COLUMNS = ("seed", "fold", "epoch", "learning_rate", "train_loss", "train_accuracy", "test_war", "test_uar")
"""Columns of history.csv."""


def cross_validate(
    manifest: Manifest,
    table: FeatureTable,
    config: TrainConfig,
    cv: CVConfig,
    out: Path,
    *,
    device: torch.device | None = None,
    init: Path | None = None,
    command: str = "",
    force: bool = False,
    memory: int | None = None,
    processes: int = 1,
    final_of: Run | None = None,
    card_texts: CardTexts = NO_TEXTS,
    fold_encoders: Sequence[FoldEncoder] = (),
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train one head per fold and seed, test each on its fold, and write the run folder.

    ``final_of``: train the final model of this run instead, one head per seed on all its videos, and test none; ``config`` and
    ``cv`` are then final_config and that of the run without_tuning. ``card_texts``: what the model card says of data and encoder.

    ``init``: a released CEFLNet checkpoint to start the head ``released`` from; with 0 epochs it is only tested.
    ``force``: write the run into a folder that holds other files, which are kept. ``memory``: bytes that training may
    take, shared by so many ``processes``; default: half of what is free. If not all models fit, they train in chunks, with the
    same results up to rounding; an interrupted run goes on after its last finished chunk. ``fold_encoders``: records of the
    encoders of a table of FoldFeatures. ``on_progress`` counts epochs, those of the tuning included. ``cv.tune``: settings that
    are chosen for each fold and seed first, see tuning.py.
    Raises CeflError if ``out`` may not or cannot be written or another process writes it, the data cannot be split this way,
    the clips do not fit into 105 slots, a fold has nothing to train on, or check_training_data or check_fold_encoders refuses the
    data.
    """
    check_folder(out, "--out", RUN_FOLDER, force=force)
    config = config.model_copy(update={"head": resolve_head(config.head)})
    check_sampling(config.num_clips, config.frames_per_clip)
    if cv.tune and not config.epochs:
        raise CeflError("--tune: with 0 epochs there is nothing to choose from; use at least 1, or leave out --tune")
    init_fn, notes = _initializer(init, config)
    init_sha256 = sha256_of(init) if init else ""
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    if final_of and isinstance(table, FoldFeatures):
        raise CeflError(
            "--final: each fold has an encoder of its own, and none is for all videos; give --encoder another, whose features "
            "are the same for all folds"
        )
    if final_of:
        check_reference(final_of, manifest, config, table.features_sha256, init_sha256)
        folds = [all_videos(folds)]
    size, folder = estimate_run_size(manifest, config, cv, table.features.shape[1], folds), unfinished_folder(out)
    existing = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    check_disk_space(folder.parent, "--out", size.finished + size.unfinished - existing)
    dataset = join_features(manifest, table, device or torch.device("cpu"))
    if final_of:
        notes = final_of.config.get("notes", [])
    else:
        notes += check_training_data(manifest.entries, table.videos, folds, cv, trains=config.epochs > 0)
    if isinstance(table, FoldFeatures):
        check_fold_encoders(manifest.entries, folds, table, fold_encoders)
    pairs = [(seed, fold) for seed in cv.seeds for fold in folds]
    models = [ModelSpec(seed, fold.name, dataset.indices_of(fold.train, fold.name)) for seed, fold in pairs]
    for model in models:
        if not len(model.train):
            raise CeflError(f"fold {model.fold}: no training video has features; run ceflpipe inspect to see why")
    candidates = make_candidates(dataset, models, [fold.train for _, fold in pairs], config, cv) if cv.tune else []
    trained, tested = ({int(i) for fold in folds for i in getattr(fold, part)} for part in ("train", "test"))
    description = run_config(manifest, config, cv)
    if final_of:
        description["final"] = describe_reference(final_of)
    num_parameters = parameters_per_model(config.head, dataset.bank.features.shape[1], dataset.bank.num_classes)
    memory_per_model = bytes_per_model(num_parameters, dataset.bank.features.shape[1], len(dataset.entries), config)
    bound = memory or available_bytes(dataset.bank.device) // 2
    sizes = chunk_sizes(len(models), memory_per_model, bound // processes)
    with writer_lock(Path(os.path.realpath(out))) as lock:
        key = description | {
            "features": table.features_sha256, "init": init_sha256, "torch": version("torch"),
            "device": dataset.bank.device.type,
        }  # fmt: skip
        chunks = FinishedChunks(out, key, sizes, max(sizes) if memory else len(models))
        tests = [fold.test for _, fold in pairs]
        trainer = _ChunkTrainer(dataset, models, tests, config, cv, candidates, init_fn, on_progress)
        with chunks.note_what_is_kept():
            tuning = _tune(chunks, trainer)
            trainer = replace(trainer, models=tuned_models(models, tuning))
            tables = _train_chunks(chunks, trainer)
            predictions = pd.concat([part.predictions for part in tables], ignore_index=True)
            history = pd.concat([part.history for part in tables], ignore_index=True)
            history = history.sort_values("epoch", kind="stable", ignore_index=True)
            if final_of:
                metrics = expected_metrics(final_of, len(trained))
            else:
                metrics = compute_metrics(predictions, dataset.labels) | {
                    "optimistic": cv.checkpoint == "best-test",
                    "calibration": calibration_metrics(predictions, dataset.labels),
                }
            description |= {
                "command": command,
                "notes": notes,
                "dim": int(table.features.shape[1]),
                "models": [
                    {"seed": model.seed, "fold": model.fold}
                    | model.config(config).model_dump(include=set(TUNED_SETTINGS))
                    for model in trainer.models
                ],
                "folds": {fold.name: [manifest.entries[i].id for i in fold.test] for fold in folds if len(fold.test)},
                "train_only": [manifest.entries[i].id for i in sorted(trained - tested)],
                "features": {
                    "sha256": table.features_sha256,
                    "sources_sha256": sources_sha256((manifest.entries[i].id for i in trained | tested), table.videos),
                    "settings": asdict(table.settings),
                    **_describe_folds(table),
                },
                "init_sha256": init_sha256,
                "parameters_per_model": num_parameters,
                "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
                | {"python": platform.python_version()},
            }
            lock.check()
            card = run_card(
                description, final_of.metrics if final_of else metrics, final_of.predictions() if final_of else predictions,
                history, card_texts,
            )  # fmt: skip
            run = write_run(
                out, description, metrics, predictions, history, chunks.weights(), card, tuning, force=force
            )
            chunks.remove()
    return run


def _describe_folds(table: FeatureTable) -> dict[str, Any]:
    """Return the encoder and the features of each fold, if each has its own."""
    if not isinstance(table, FoldFeatures):
        return {}
    columns = zip(table.folds, table.encoders, table.hashes, strict=True)
    return {"folds": {fold: {"encoder_sha256": encoder, "sha256": digest} for fold, encoder, digest in columns}}


def _tune(chunks: FinishedChunks, trainer: _ChunkTrainer) -> pd.DataFrame:
    """Return the table of tuning.csv, empty without candidates; as many of these train together as models in a chunk."""
    tables, first = [], 0
    for number, size in enumerate(chunk_sizes(len(trainer.candidates), 1, max(chunks.sizes))):
        table = chunks.read_tuning(number)
        if table is None:
            table = trainer.tune(first, size)
            chunks.write_tuning(number, table)
        tables.append(table)
        first += size
    return choose(pd.concat(tables, ignore_index=True), trainer.config, trainer.cv) if tables else no_tuning()


def _train_chunks(chunks: FinishedChunks, trainer: _ChunkTrainer) -> list[Tables]:
    """Return the tables of all chunks; those that are not finished are trained first."""
    tables, first = [], 0
    for number, size in enumerate(chunks.sizes):
        part = chunks.read(number)
        if part is None:
            head, part = trainer.train(first, size)
            chunks.write(number, head, part)
        tables.append(part)
        first += size
    return tables


@dataclass(frozen=True)
class _ChunkTrainer:
    """Trains and tests some of the models together; ``tests``: entries (indices) each is tested on.

    ``candidates``: of the tuning, which comes first and is part of the progress.
    """

    dataset: VideoDataset
    models: list[ModelSpec]
    tests: list[np.ndarray]
    config: TrainConfig
    cv: CVConfig
    candidates: list[Candidate]
    init_fn: Callable[[nn.Module], None] | None
    on_progress: ProgressCallback

    def train(self, first: int, size: int) -> tuple[nn.Module, Tables]:
        """Return ``size`` trained models from the ``first`` as one batched head, and their tables.

        Raises CeflError if the memory is not enough for them.
        """
        part = slice(first, first + size)
        models, bank = self.models[part], self.dataset.bank
        most = max(model.config(self.config).epochs for model in models)

        def on_epoch(stats: EpochStats) -> None:
            self._report(len(self.candidates) + first, size, (stats.epoch + 1) / most, stats)

        evaluator = _FoldEvaluator(self.dataset, models, self.tests[part], self.config, self.cv, on_epoch)
        with self._reported_memory(size):
            head = train(bank, models, self.config, evaluator.on_epoch_end, self.init_fn)
            evaluator.restore_best(head)
            return head, Tables(evaluator.predict(head), evaluator.history())

    def tune(self, first: int, size: int) -> pd.DataFrame:
        """Return the table of train_candidates of ``size`` candidates from the ``first``; raises CeflError as ``train`` does."""

        def on_epoch(stats: EpochStats) -> None:
            self._report(first, size, (stats.epoch + 1) / self.config.epochs, stats, "tuning: ")

        with self._reported_memory(size):
            candidates = self.candidates[first : first + size]
            return train_candidates(self.dataset, candidates, self.config, self.init_fn, on_epoch)

    def _report(self, finished: int, size: int, fraction: float, stats: EpochStats, prefix: str = "") -> None:
        """Report progress in epochs of all models: ``finished`` trainings, and a ``fraction`` of ``size`` more."""
        epochs, count = self.config.epochs, len(self.models)
        total = epochs * (len(self.candidates) + count) // count
        completed = int(epochs * finished + round(epochs * fraction) * size) // count
        self.on_progress(completed, total, f"{prefix}loss {float(stats.loss.mean()):.3f}")

    @contextmanager
    def _reported_memory(self, size: int) -> Iterator[None]:
        try:
            with deterministic_algorithms(self.config.deterministic):
                yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise CeflError(
                f"out of memory with {size} models at a time; use fewer --workers, or --memory to train fewer at a time"
            ) from None


def _initializer(init: Path | None, config: TrainConfig) -> tuple[Callable[[nn.Module], None] | None, list[str]]:
    """Return the function that loads a released checkpoint into the head, if there is one, and notes on it."""
    if init is None:
        if not config.epochs:
            raise CeflError("--epochs 0: nothing would be trained; use at least 1, or pass a checkpoint with --init")
        return None, []
    if config.head != "released":
        raise CeflError(f"--init {init}: a released checkpoint does not fit head {config.head}; use --head released")
    state = read_state_dict(init, f"--init {init}")
    unused = ", ".join(unused_keys(state))
    notes = [f"{init}: passed over {unused}, a layer that the authors' model has and never uses"] if unused else []
    return lambda head: load_released_state(cast(CEFLNetReleased, head), state, str(init)), notes


class _FoldEvaluator:
    """Tests every model on its own fold: after each epoch for the history, and at the end for the predictions.

    With checkpoint ``best-test`` it also saves the weights of each model's best epoch. Folds differ in size: ``videos``
    (m, b) is padded with video 0, whose output is ignored.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        models: list[ModelSpec],
        tests: list[np.ndarray],
        config: TrainConfig,
        cv: CVConfig,
        on_epoch: Callable[[EpochStats], None],
    ) -> None:
        self._dataset, self._models, self._tests = dataset, models, tests
        self._config, self._cv, self._on_epoch = config, cv, on_epoch
        videos = [dataset.indices_of(test, model.fold) for test, model in zip(tests, models, strict=True)]
        self._videos = pad_stack(videos).to(dataset.bank.device)
        self._labels = np.array([dataset.labels.index(entry.label) for entry in dataset.entries])
        self._history: list[tuple[Any, ...]] = []
        self._best_war = np.full(len(models), -1.0)
        self._best_state: dict[str, Tensor] = {}

    def on_epoch_end(self, stats: EpochStats, head: nn.Module) -> None:
        for m, (model, (test_war, test_uar)) in enumerate(zip(self._models, self._score(head), strict=True)):
            if not stats.is_trained[m]:
                continue
            rate, loss, accuracy = stats.learning_rate[m], float(stats.loss[m]), float(stats.accuracy[m])
            self._history.append((model.seed, model.fold, stats.epoch + 1, rate, loss, accuracy, test_war, test_uar))
            if self._cv.checkpoint == "best-test" and test_war > self._best_war[m]:
                self._best_war[m] = test_war
                for key, value in head.state_dict().items():
                    if key not in self._best_state:
                        self._best_state[key] = value.clone()
                    self._best_state[key][m] = value[m]
        self._on_epoch(stats)

    def _score(self, head: nn.Module) -> list[tuple[float, float]]:
        """Return WAR and UAR of each model on its test videos, NaN for a final model, which has none."""
        if not any(map(len, self._tests)):
            return [(np.nan, np.nan)] * len(self._models)
        head.eval()
        outputs = evaluate(head, self._dataset.bank, self._videos, self._config)
        head.train()
        predicted, scores = outputs.probabilities.argmax(dim=-1).numpy(), []
        for m, test in enumerate(self._tests):
            labels, has_features = self._labels[test], self._dataset.index[test] >= 0
            correct = np.zeros(len(test), bool)  # a video without features counts as an error
            correct[has_features] = predicted[m, : has_features.sum()] == labels[has_features]
            scores.append((war(correct), uar(labels, correct, range(len(self._dataset.labels)))))
        return scores

    def restore_best(self, head: nn.Module) -> None:
        if self._best_state:  # empty after 0 epochs, and with checkpoint ``last``
            head.load_state_dict(self._best_state)

    def predict(self, head: nn.Module) -> pd.DataFrame:
        """Return the predictions table, from all test-time views."""
        outputs = evaluate(head, self._dataset.bank, self._videos, self._config, self._cv.tta_views)
        tests = enumerate(zip(self._models, self._tests, strict=True))
        views = self._cv.tta_views
        frames = [
            predictions_frame(self._dataset, model, m, test, outputs, self._config, views) for m, (model, test) in tests
        ]
        return pd.concat(frames, ignore_index=True)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self._history, columns=list(HISTORY_COLUMNS))
