"""Metrics of a run, computed from its predictions table alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

Values = pd.Series | np.ndarray
Label = TypeVar("Label")


def war(correct: Values) -> float:
    """Weighted average recall: accuracy over all videos; those without features count as errors."""
    return float(correct.mean())


def per_class_recall(true: Values, correct: Values, labels: Iterable[Label]) -> dict[Label, float]:
    """Recall of each label, given every video's true label and whether its prediction is correct.

    NaN (undefined, not zero) for a label that no video has.
    """
    true, correct = np.asarray(true), np.asarray(correct, bool)
    return {label: float(correct[true == label].mean()) if (true == label).any() else np.nan for label in labels}


def uar(true: Values, correct: Values, labels: Iterable[Any]) -> float:
    """Unweighted average recall: the mean of the recalls of the labels that occur."""
    return float(np.nanmean(list(per_class_recall(true, correct, labels).values())))


def confusion_matrix(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return counts (C, C + 1): true label by predicted label; the last column counts videos without a prediction."""
    columns = [*labels, ""]
    counts = np.zeros((len(labels), len(columns)), int)
    for true, predicted in zip(table.label, table.predicted, strict=True):
        counts[labels.index(true), columns.index(predicted)] += 1
    return counts


def mean_std(values: Sequence[float]) -> dict[str, Any]:
    """Mean of the values that are not NaN, with both standard deviations: ddof 0 (the paper's), ddof 1 (unbiased)."""
    numbers = np.array([value for value in values if not np.isnan(value)], float)
    if not len(numbers):
        return {"mean": None, "std_ddof0": None, "std_ddof1": None, "n": 0}
    return {
        "mean": float(numbers.mean()),
        "std_ddof0": float(numbers.std()),
        "std_ddof1": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "n": len(numbers),
    }


def compute_metrics(predictions: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Return a run's metrics from its predictions (see predictions.py for the columns). All fractions are in 0..1.

    ``war`` and ``uar`` are means over folds and seeds, all folds with the same weight; ``pooled`` counts all videos together;
    ``war_with_face`` is WAR over the videos that have features. See locating_accuracy for
    the key of that name.
    """
    groups = _folds(predictions)
    with_face = [group[group.predicted != ""] for group in groups]
    recall = per_class_recall(predictions.label, predictions.correct, labels)
    return {
        "videos": int(predictions.id.nunique()),
        "folds": int(predictions.fold.nunique()),
        "seeds": int(predictions.seed.nunique()),
        "war": mean_std([war(group.correct) for group in groups]),
        "uar": mean_std([uar(group.label, group.correct, labels) for group in groups]),
        "war_with_face": mean_std([war(group.correct) for group in with_face if len(group)]),
        "videos_without_prediction": int(predictions[predictions.predicted == ""].id.nunique()),
        "pooled": {"war": war(predictions.correct), "uar": uar(predictions.label, predictions.correct, labels)},
        "recall": {label: None if np.isnan(value) else value for label, value in recall.items()},
        "confusion": confusion_matrix(predictions, list(labels)).tolist(),
        "locating_accuracy": locating_accuracy(predictions),
    }


def locating_accuracy(predictions: pd.DataFrame) -> dict[str, Any] | None:
    """Return the fraction of test videos whose located clip contains the apex; None if no apex is known.

    Only videos whose apex is reachable count: at least one clip of the test view contains it. ``predicted_label`` and
    ``true_label``: located in the map of that label, mean over folds and seeds. ``chance``: the fraction of clips that contain
    the apex, None if none is reachable. ``videos``: those with a known apex; ``reachable``: those of them that count.
    """
    if "apex_hit" not in predictions or not predictions.apex_hit.notna().any():
        return None
    known = predictions[predictions.apex_hit.notna()]
    reachable = known[known.apex_chance > 0]
    return {
        "predicted_label": mean_std([float(fold.apex_hit.astype(float).mean()) for fold in _folds(reachable)]),
        "true_label": mean_std([float(fold.apex_hit_true.astype(float).mean()) for fold in _folds(reachable)]),
        "chance": float(reachable.apex_chance.mean()) if len(reachable) else None,
        "videos": int(known.id.nunique()),
        "reachable": int(reachable.id.nunique()),
    }


def _folds(predictions: pd.DataFrame) -> list[pd.DataFrame]:
    return [group for _, group in predictions.groupby(["seed", "fold"], sort=False)]
