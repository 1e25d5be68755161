"""Size of a run on disk, estimated before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..manifest.manifest import Manifest
from .folds import Fold, make_folds
from .registry import build_head
from .train_config import CVConfig, TrainConfig
from .tuning import candidate_grid

NUMBER_BYTES = 12
"""A number of six digits in a CSV."""
EXACT_NUMBER_BYTES = 22
"""A number with all its digits in a JSON file."""
OTHER_COLUMNS = 10
"""Columns of the predictions that are neither text, a probability nor an intensity; also those of the history."""
TUNING_BYTES = 100
"""A row of a candidate: in tuning.csv, and per epoch while it trains."""
FILE_BYTES = 1 << 14
"""All files of a run with little in them together."""


@dataclass(frozen=True)
class RunSize:
    """Bytes of a run: of its finished folder, and of what lies beside that while it trains."""

    finished: int
    unfinished: int


def estimate_run_size(
    manifest: Manifest, config: TrainConfig, cv: CVConfig, dim: int, folds: Sequence[Fold] | None = None
) -> RunSize:
    """Return about how large a run will be on features of ``dim`` numbers; raises CeflError if there can be no such folds.

    ``folds``: None for those of ``cv``.
    """
    folds = folds or make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    num_models, tested = len(folds) * len(cv.seeds), [manifest.entries[i] for fold in folds for i in fold.test]
    weights = 4 * num_models * parameters_per_model(config.head, dim, len(manifest.labels))
    names = sum(len(entry.id.encode("utf-8", "surrogateescape")) for entry in manifest.entries)
    texts = sum(
        len(" ".join((entry.id, entry.subject, *2 * [entry.label])).encode("utf-8", "surrogateescape")) + 2 * OTHER_COLUMNS
        for entry in tested
    )  # fmt: skip
    numbers = len(tested) * (len(manifest.labels) + config.num_clips + OTHER_COLUMNS)
    per_seed, history = len(cv.seeds), num_models * config.epochs * OTHER_COLUMNS
    tables, exact_tables = (
        per_seed * (texts + size * numbers) + size * history for size in (NUMBER_BYTES, EXACT_NUMBER_BYTES)
    )
    candidates = num_models * len(candidate_grid(config, cv)) if cv.tune else 0
    tuning, exact_tuning = (TUNING_BYTES * candidates * rows for rows in (1, cv.tune_splits * config.epochs))
    return RunSize(
        weights + tables + tuning + 2 * names + FILE_BYTES, weights + exact_tables + exact_tuning + FILE_BYTES
    )


def parameters_per_model(head: str, dim: int, num_classes: int) -> int:
    """Return the number of parameters of one model."""
    with torch.device("meta"):
        model = build_head(head, 1, dim, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())
