"""Stage two: features and a manifest become a cross-validated run folder."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ..manifest.manifest import Manifest
from ..progress import ProgressCallback, ignore_progress
from .ceflnet_released import CEFLNetReleased, load_released_state
from .clip_sampling import check_sampling
from .evaluate import evaluate
from .feature_bank import VideoDataset, join_features
from .folds import Fold, make_folds
from .metrics import compute_metrics
from .predictions import predictions_frame
from .registry import resolve_head
from .run_io import Run, read_state_dict, run_config, write_run
from .train import EpochStats, ModelSpec, train
from .train_config import CVConfig, TrainConfig

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
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train one head per fold and seed, test each on its fold, and write the run folder.

    ``init``: a released CEFLNet checkpoint to start the head ``released`` from; with 0 epochs it is only tested.
    ``on_progress`` counts epochs. Raises CeflError if the data cannot be split this way, the clips do not fit, or a fold
    has nothing to train on.
    """
    config = config.model_copy(update={"head": resolve_head(config.head)})
    check_sampling(config.num_clips, config.frames_per_clip)
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    dataset = join_features(manifest, table, device or torch.device("cpu"))
    models = _model_specs(dataset, folds, cv.seeds)
    tests = [fold.test for _ in cv.seeds for fold in folds]
    callback = _EvalCallback(dataset, models, tests, config, cv, on_progress)
    head = train(dataset.bank, models, config, callback.on_epoch_end, _initializer(init, config))
    if cv.checkpoint == "best-test":
        callback.restore_best(head)
    predictions = _predict(head, dataset, models, tests, config, cv.tta_views)
    metrics = compute_metrics(predictions, dataset.labels) | {"optimistic": cv.checkpoint == "best-test"}
    description = run_config(manifest, config, cv) | {
        "command": command,
        "dim": int(table.features.shape[1]),
        "models": [{"seed": model.seed, "fold": model.fold} for model in models],
        "folds": {fold.name: [manifest.entries[i].id for i in fold.test] for fold in folds},
        "features": {"identity": table.identity, "settings": asdict(table.settings)},
        "parameters_per_model": sum(parameter[0].numel() for parameter in head.parameters()),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
    }
    return write_run(out, description, metrics, predictions, callback.history(), head)


def _initializer(init: Path | None, config: TrainConfig) -> Callable[[nn.Module], None] | None:
    """Return the function that loads a released checkpoint into the head, if there is one."""
    if init is None:
        if not config.epochs:
            raise CeflError("--epochs 0: nothing would be trained; give at least 1, or a checkpoint with --init")
        return None
    if config.head != "released":
        raise CeflError(f"--init {init}: only --head released can start from a released checkpoint, not {config.head}")
    state = read_state_dict(init)
    return lambda head: load_released_state(cast(CEFLNetReleased, head), state, str(init))


def _model_specs(dataset: VideoDataset, folds: Sequence[Fold], seeds: Sequence[int]) -> list[ModelSpec]:
    specs = []
    for seed in seeds:
        for fold in folds:
            indices = dataset.indices_of(fold.train)
            if not len(indices):
                raise CeflError(f"fold {fold.name}: no training video has features; run ceflpipe inspect")
            specs.append(ModelSpec(seed, fold.name, indices))
    return specs


def _predict(
    head: nn.Module,
    dataset: VideoDataset,
    models: list[ModelSpec],
    tests: list[np.ndarray],
    config: TrainConfig,
    tta_views: int,
) -> pd.DataFrame:
    """Test every model on its own fold. Folds differ in size; padding repeats a video and is dropped."""
    videos = _pad_stack([dataset.indices_of(test) for test in tests]).to(dataset.bank.features.device)
    outputs = evaluate(head, dataset.bank, videos, config, tta_views)
    frames = [predictions_frame(dataset, model, m, tests[m], outputs, config) for m, model in enumerate(models)]
    return pd.concat(frames, ignore_index=True)


def _pad_stack(rows: list[Tensor]) -> Tensor:
    """Stack index vectors of different length into (rows, longest), padded with 0."""
    longest = max([1, *(len(row) for row in rows)])
    padded = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


class _EvalCallback:
    """Tests every model after every epoch for the learning curves, and keeps the weights of its best epoch if asked."""

    def __init__(
        self,
        dataset: VideoDataset,
        models: list[ModelSpec],
        tests: list[np.ndarray],
        config: TrainConfig,
        cv: CVConfig,
        on_progress: ProgressCallback,
    ) -> None:
        self._bank, self._models, self._config = dataset.bank, models, config
        indices = [dataset.indices_of(test) for test in tests]
        self._counts = [len(row) for row in indices]
        self._videos = _pad_stack(indices).to(dataset.bank.features.device)
        self._usable = [dataset.index[test] >= 0 for test in tests]
        codes = np.array([dataset.labels.index(entry.label) for entry in dataset.entries])
        self._labels = [codes[test] for test in tests]
        self._keep_best, self._on_progress = cv.checkpoint == "best-test", on_progress
        self._rows: list[dict[str, Any]] = []
        self._best_war = np.full(len(models), -1.0)
        self._best_state: dict[str, Tensor] = {}

    def on_epoch_end(self, stats: EpochStats, head: nn.Module) -> None:
        head.eval()
        outputs = evaluate(head, self._bank, self._videos, self._config)
        head.train()
        predicted = outputs.probabilities.argmax(dim=-1).numpy()
        for m, model in enumerate(self._models):
            labels, usable = self._labels[m], self._usable[m]
            correct = np.zeros(len(labels), bool)  # a video without features counts as an error
            correct[usable] = predicted[m, : self._counts[m]] == labels[usable]
            war = float(correct.mean())
            uar = float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))
            loss, accuracy = float(stats.loss[m]), float(stats.accuracy[m])
            values = (model.seed, model.fold, stats.epoch + 1, stats.learning_rate, loss, accuracy, war, uar)
            self._rows.append(dict(zip(HISTORY_COLUMNS, values, strict=True)))
            if self._keep_best and war > self._best_war[m]:
                self._best_war[m] = war
                self._keep_weights(head, m)
        self._on_progress(stats.epoch + 1, self._config.epochs, f"loss {float(stats.loss.mean()):.3f}")

    def _keep_weights(self, head: nn.Module, m: int) -> None:
        for key, value in head.state_dict().items():
            if key not in self._best_state:
                self._best_state[key] = copy.deepcopy(value)
            self._best_state[key][m] = value[m]

    def restore_best(self, head: nn.Module) -> None:
        if self._best_state:  # without an epoch there is none to choose
            head.load_state_dict(self._best_state)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=list(HISTORY_COLUMNS))
