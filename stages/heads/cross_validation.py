"""STAGE TWO as a whole: features and a manifest become a run folder."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ..manifest.manifest import Manifest
from .ceflnet_released import Released, load_released
from .clip_sampling import check_sampling
from .evaluate import evaluate
from .feature_bank import Videos, join
from .folds import Fold, make_folds
from .metrics import summarise
from .predictions import predictions_of, tidy
from .registry import resolve_head
from .run_io import Run, describe, read_state_dict, write_run
from .train import Epoch, Model, Recipe, fit

HISTORY = ("seed", "fold", "epoch", "learning_rate", "train_loss", "train_accuracy", "test_war", "test_uar")
"""What history.csv says of every epoch."""


@dataclass(frozen=True)
class Protocol:
    """How a run is scored: fold scheme and number of folds, seeds, which epoch is kept, how many test views."""

    scheme: str
    folds: int
    seeds: tuple[int, ...]
    select: str = "last"
    views: int = 1


def train_heads(
    manifest: Manifest,
    table: FeatureTable,
    recipe: Recipe,
    protocol: Protocol,
    out: Path,
    *,
    device: torch.device | None = None,
    init: Path | None = None,
    command: str = "",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Run:
    """Train one head per fold and seed, test each on its fold, and write the run folder.

    ``init``: a released CEFLNet checkpoint that the released head starts from; with epochs 0 it is only tested.
    Raises CeflError when the data cannot be split so, the sampling does not fit, or a fold has nothing to train on.
    """
    recipe = Recipe(**{**asdict(recipe), "head": resolve_head(recipe.head)})
    check_sampling(recipe.clips, recipe.frames)
    folds = make_folds(manifest.rows, protocol.scheme, protocol.folds, protocol.seeds[0])
    videos = join(manifest, table, device or torch.device("cpu"))
    models = _models(videos, folds, protocol.seeds)
    tested = [fold.test for _ in protocol.seeds for fold in folds]
    watcher = _Watcher(videos, models, tested, recipe, protocol, on_epoch)
    head = fit(videos.data, models, recipe, watcher.look, start=_starter(init, recipe))
    if protocol.select == "best-test":
        watcher.restore_best(head)
    predictions = _predict(head, videos, models, tested, recipe, protocol.views)
    metrics = summarise(predictions, videos.labels) | {"optimistic": protocol.select == "best-test"}
    about = describe(manifest, recipe, protocol) | {
        "command": command,
        "width": int(table.features.shape[1]),
        "models": [{"seed": model.seed, "fold": model.fold} for model in models],
        "folds": {fold.name: [manifest.rows[i].id for i in fold.test] for fold in folds},
        "features": {"identity": table.identity, "settings": table.settings},
        "parameters_per_model": sum(p[0].numel() for p in head.parameters()),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
    }
    return write_run(out, about, metrics, predictions, watcher.history(), head)


def _starter(init: Path | None, recipe: Recipe) -> Callable[[nn.Module], None]:
    if init is None:
        if not recipe.epochs:
            raise CeflError("--epochs 0: nothing would be trained; give at least 1, or a checkpoint with --init")
        return lambda head: None
    if recipe.head != "released":
        raise CeflError(f"--init {init}: only --head released can start from a released checkpoint, not {recipe.head}")
    state = read_state_dict(init)
    return lambda head: load_released(cast(Released, head), state, str(init))


def _models(videos: Videos, folds: Sequence[Fold], seeds: Sequence[int]) -> list[Model]:
    models = []
    for seed in seeds:
        for fold in folds:
            train = videos.positions(fold.train)
            if not len(train):
                raise CeflError(f"fold {fold.name}: no video to train on has features; look at ceflpipe inspect")
            models.append(Model(seed, fold.name, train))
    return models


def _predict(
    head: nn.Module, videos: Videos, models: list[Model], tested: list[np.ndarray], recipe: Recipe, views: int
) -> pd.DataFrame:
    """Test every model on its own fold; folds differ in size, so the places left over repeat a video and are dropped."""
    places = [videos.positions(test) for test in tested]
    said = evaluate(head, videos.data, _rectangle(places).to(videos.data.features.device), recipe, views)
    return tidy([predictions_of(videos, model, m, tested[m], said, recipe) for m, model in enumerate(models)])


def _rectangle(rows: list[torch.Tensor]) -> torch.Tensor:
    longest = max(1, *(len(row) for row in rows)) if rows else 1
    filled = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled


class _Watcher:
    """Follows the training: tests every epoch for the learning curves, and keeps the best epoch where that is asked."""

    def __init__(
        self, videos: Videos, models: list[Model], tested: list[np.ndarray], recipe: Recipe, protocol: Protocol,
        on_epoch: Callable[[Epoch], None],
    ) -> None:  # fmt: skip
        self._videos, self._models, self._recipe = videos, models, recipe
        places = [videos.positions(test) for test in tested]
        self._judged = [len(place) for place in places]
        self._places = _rectangle(places).to(videos.data.features.device)
        self._usable = [videos.place[test] >= 0 for test in tested]
        codes = np.array([videos.labels.index(row.label) for row in videos.rows])
        self._labels = [codes[test] for test in tested]
        self._keep_best, self._on_epoch = protocol.select == "best-test", on_epoch
        self._lines: list[dict[str, Any]] = []
        self._best = np.full(len(models), -1.0)
        self._state: dict[str, torch.Tensor] = {}

    def look(self, epoch: Epoch, head: nn.Module) -> None:
        head.eval()
        said = evaluate(head, self._videos.data, self._places, self._recipe)
        head.train()
        predicted = said.probabilities.argmax(dim=-1).numpy()
        for m, model in enumerate(self._models):
            labels, judged = self._labels[m], predicted[m, : self._judged[m]]
            right = np.zeros(len(labels), bool)
            right[self._usable[m]] = judged == labels[self._usable[m]]
            score = float(right.mean())
            self._lines.append(
                {
                    "seed": model.seed,
                    "fold": model.fold,
                    "epoch": epoch.number + 1,
                    "learning_rate": epoch.learning_rate,
                    "train_loss": float(epoch.loss[m]),
                    "train_accuracy": float(epoch.accuracy[m]),
                    "test_war": score,
                    "test_uar": float(np.mean([right[labels == label].mean() for label in np.unique(labels)])),
                }
            )
            if self._keep_best and score > self._best[m]:
                self._best[m] = score
                self._remember(head, m)
        self._on_epoch(epoch)

    def _remember(self, head: nn.Module, m: int) -> None:
        for key, value in head.state_dict().items():
            if key not in self._state:
                self._state[key] = copy.deepcopy(value)
            self._state[key][m] = value[m]

    def restore_best(self, head: nn.Module) -> None:
        if self._state:  # without an epoch there is none to choose
            head.load_state_dict(self._state)

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self._lines, columns=list(HISTORY))
