"""Tuning: learning rate, weight decay and epochs of each fold and seed, chosen on held-out videos of its training set.

This is nested cross-validation: a model's candidates train on a part of its own training videos (folds.inner_folds) and are
scored on the rest of them; no test video is looked at. The rule:

- The score of a candidate after an epoch is its accuracy on the held-out videos, the mean over that epoch and the
  SMOOTHED_EPOCHS - 1 before it, over all videos of all splits.
- If ``epochs`` is tuned, the best epoch of each candidate counts, else its last one. Epochs cost no training of their own: they
  are read from the candidates' history. The learning rate follows the schedule of TrainConfig up to there.
- The highest score wins. Of equal ones, the lowest mean cross-entropy of the held-out videos over the same epochs; then the
  fewest epochs, then the candidate that comes first in the grid.

The candidates of a model start from its own initial parameters, and all draw from its generators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from .evaluate import evaluate, pad_stack
from .feature_bank import VideoDataset
from .folds import inner_folds
from .train import EpochStats, ModelSpec, train
from .train_config import CVConfig, TrainConfig

SMOOTHED_EPOCHS = 5
TUNING_COLUMNS = (
    "seed", "fold", "learning_rate", "weight_decay", "epochs", "held_out_war", "held_out_loss", "held_out_videos", "is_chosen",
)  # fmt: skip
"""Columns of tuning.csv: a row per model and candidate, at its best epoch."""
_KEYS = ["seed", "fold", "candidate"]


@dataclass(frozen=True)
class Candidate:
    """Values of one candidate, trained without the videos ``held_out`` (entries); ``number`` is its place in the grid."""

    model: ModelSpec
    number: int
    held_out: np.ndarray


def candidate_grid(config: TrainConfig, cv: CVConfig) -> list[tuple[float, float]]:
    """Return (learning rate, weight decay) of the candidates; a setting that is not tuned is that of ``config``."""
    rates = cv.tune_learning_rates if "learning_rate" in cv.tune else (config.learning_rate,)
    decays = cv.tune_weight_decays if "weight_decay" in cv.tune else (config.weight_decay,)
    return list(itertools.product(rates, decays))


def make_candidates(
    dataset: VideoDataset, models: Sequence[ModelSpec], trains: Sequence[np.ndarray], config: TrainConfig, cv: CVConfig
) -> list[Candidate]:
    """Return the candidates of all models, one after the other; ``trains``: the entries that each model trains on.

    Entries without features are left out. Raises CeflError if the training videos of a fold cannot be divided.
    """
    grid, candidates = candidate_grid(config, cv), []
    for model, entries in zip(models, trains, strict=True):
        usable = entries[dataset.index[entries] >= 0]
        for fold in inner_folds(dataset.entries, usable, cv, model.seed):
            inner = dataset.indices_of(fold.train, model.fold)
            for number, (rate, decay) in enumerate(grid):
                spec = replace(model, train=inner, learning_rate=rate, weight_decay=decay)
                candidates.append(Candidate(spec, number, fold.test))
    return candidates


def train_candidates(
    dataset: VideoDataset,
    candidates: Sequence[Candidate],
    config: TrainConfig,
    init_fn: Callable[[nn.Module], None] | None = None,
    on_epoch: Callable[[EpochStats], None] = lambda stats: None,
) -> pd.DataFrame:
    """Train candidates together and return a row per candidate and epoch.

    Columns: seed, fold, candidate, epoch (from 1), videos (held out), correct (of them), loss (the sum of their cross-entropies).
    A candidate whose numbers become NaN or infinite names no video right, with an infinite loss.
    """
    evaluator = _HeldOutEvaluator(dataset, candidates, config, on_epoch)
    models = [candidate.model for candidate in candidates]
    train(dataset.bank, models, config, evaluator.on_epoch_end, init_fn, allow_infinite=True)
    return evaluator.table()


class _HeldOutEvaluator:
    def __init__(
        self,
        dataset: VideoDataset,
        candidates: Sequence[Candidate],
        config: TrainConfig,
        on_epoch: Callable[[EpochStats], None],
    ) -> None:
        self._bank, self._candidates, self._config, self._on_epoch = dataset.bank, candidates, config, on_epoch
        videos = [dataset.indices_of(candidate.held_out, candidate.model.fold) for candidate in candidates]
        self._counts = torch.tensor([len(each) for each in videos])
        self._videos = pad_stack(videos).to(dataset.bank.device)
        self._labels = dataset.bank.label[self._videos].cpu()
        self._is_video = torch.arange(self._videos.shape[1]) < self._counts[:, None]
        self._correct: list[np.ndarray] = []
        self._loss: list[np.ndarray] = []

    def on_epoch_end(self, stats: EpochStats, head: nn.Module) -> None:
        head.eval()
        probabilities = evaluate(head, self._bank, self._videos, self._config).probabilities
        head.train()
        of_label = probabilities.gather(-1, self._labels[..., None]).squeeze(-1).double()
        is_correct = (probabilities.argmax(dim=-1) == self._labels) & self._is_video & of_label.isfinite()
        losses = torch.where(of_label.isfinite(), -of_label.clamp(min=1e-12).log(), torch.inf)
        losses = torch.where(self._is_video, losses, 0.0)
        self._correct.append(is_correct.sum(dim=1).numpy())
        self._loss.append(losses.sum(dim=1).numpy())
        self._on_epoch(stats)

    def table(self) -> pd.DataFrame:
        rows = [
            (
                each.model.seed,
                each.model.fold,
                each.number,
                epoch,
                int(self._counts[m]),
                int(correct[m]),
                float(loss[m]),
            )
            for m, each in enumerate(self._candidates)
            for epoch, (correct, loss) in enumerate(zip(self._correct, self._loss, strict=True), start=1)
        ]
        return pd.DataFrame(rows, columns=[*_KEYS, "epoch", "videos", "correct", "loss"])


def choose(table: pd.DataFrame, config: TrainConfig, cv: CVConfig) -> pd.DataFrame:
    """Return the table of TUNING_COLUMNS for the rows of train_candidates, by the rule of this module.

    Models are in the order of the rows. Exactly one row of each seed and fold ``is_chosen``.
    """
    grid, rows = candidate_grid(config, cv), []
    for (seed, fold), model in table.groupby(["seed", "fold"], sort=False):
        best = [_best_epoch(curves, "epochs" in cv.tune) for _, curves in model.groupby("candidate")]
        chosen = min(range(len(best)), key=lambda c: (-best[c][0], best[c][1], best[c][2], c))
        for number, (score, loss, epochs, videos) in enumerate(best):
            rows.append((seed, fold, *grid[number], epochs, score, loss, videos, number == chosen))
    return pd.DataFrame(rows, columns=list(TUNING_COLUMNS))


def _best_epoch(curves: pd.DataFrame, any_epoch: bool) -> tuple[float, float, int, int]:
    """Return score, loss, epoch and number of held-out videos of a candidate at its best or last epoch."""
    sums = curves.groupby("epoch")[["videos", "correct", "loss"]].sum()
    window = min(SMOOTHED_EPOCHS, len(sums))
    correct, losses, videos = (
        sliding_window_view(sums[name].to_numpy(float), window).sum(axis=1) for name in ("correct", "loss", "videos")
    )
    ends = range(len(correct)) if any_epoch else range(len(correct) - 1, len(correct))
    end = min(ends, key=lambda e: (-correct[e], losses[e], e))
    return float(correct[end] / videos[end]), float(losses[end] / videos[end]), end + window, int(sums.videos.iloc[0])


def no_tuning() -> pd.DataFrame:
    """Return the empty table of TUNING_COLUMNS."""
    return pd.DataFrame(columns=list(TUNING_COLUMNS))


def tuned_models(models: Sequence[ModelSpec], tuning: pd.DataFrame) -> list[ModelSpec]:
    """Return the models with the values that ``choose`` chose for them; of an empty table as they are."""
    if tuning.empty:
        return list(models)
    chosen = tuning[tuning.is_chosen]
    values = zip(chosen.learning_rate.tolist(), chosen.weight_decay.tolist(), chosen.epochs.tolist(), strict=True)
    settings = dict(zip(zip(chosen.seed, chosen.fold, strict=True), values, strict=True))
    tuned = []
    for model in models:
        rate, decay, epochs = settings[model.seed, model.fold]
        tuned.append(replace(model, learning_rate=rate, weight_decay=decay, epochs=epochs))
    return tuned
