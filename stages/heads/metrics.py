"""Metrics of a run, computed from its predictions table alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def war(correct: pd.Series) -> float:
    """Weighted average recall: plain accuracy over all videos, those that failed in stage one included (as errors)."""
    return float(correct.mean())


def per_class_recall(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, float]:
    """Recall of each label; NaN (undefined, not zero) for a label no video of the table has."""
    return {
        label: float((table.loc[table.label == label, "predicted"] == label).mean())
        if (table.label == label).any() else float("nan")
        for label in labels
    }  # fmt: skip


def uar(table: pd.DataFrame, labels: Sequence[str]) -> float:
    """Unweighted average recall: the mean of the recalls of the labels that occur."""
    return float(np.nanmean(list(per_class_recall(table, labels).values())))


def confusion_matrix(table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return counts (C, C + 1): true label by predicted label; the last column counts videos without a prediction."""
    columns = [*labels, ""]
    counts = np.zeros((len(labels), len(columns)), int)
    for true, predicted in zip(table.label, table.predicted, strict=True):
        counts[labels.index(true), columns.index(predicted)] += 1
    return counts


def mean_std(values: Sequence[float]) -> dict[str, Any]:
    """Mean with both standard deviations: ddof 0 as the paper's figures come out, ddof 1 as statistics asks for."""
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
    """Return a run's metrics from its predictions (see results.py for the columns).

    ``war`` and ``uar`` are spreads over folds and seeds, each fold weighing the same; ``pooled`` counts all videos
    together; ``faces_found`` is WAR over the videos in which stage one found a face. Locating accuracy is the share of
    test videos with a known apex whose located clip holds it, beside ``chance``: the share of clips that hold it.
    """
    groups = [group for _, group in predictions.groupby(["seed", "fold"], sort=False)]
    found = [group[group.predicted != ""] for group in groups]
    metrics: dict[str, Any] = {
        "videos": int(predictions.id.nunique()),
        "folds": int(predictions.fold.nunique()),
        "seeds": int(predictions.seed.nunique()),
        "war": mean_std([war(g.correct) for g in groups]),
        "uar": mean_std([uar(g, labels) for g in groups]),
        "war_with_face": mean_std([war(g.correct) for g in found if len(g)]),
        "videos_without_prediction": int(predictions[predictions.predicted == ""].id.nunique()),
        "pooled": {"war": war(predictions.correct), "uar": uar(predictions, labels)},
        "recall": {label: _none_if_nan(value) for label, value in per_class_recall(predictions, labels).items()},
        "confusion": confusion_matrix(predictions, list(labels)).tolist(),
    }
    metrics["locating"] = locating_accuracy(predictions)
    return metrics


def locating_accuracy(predictions: pd.DataFrame) -> dict[str, Any] | None:
    if "apex_hit" not in predictions or not predictions.apex_hit.notna().any():
        return None
    known = predictions[predictions.apex_hit.notna()]
    groups = [group for _, group in known.groupby(["seed", "fold"], sort=False)]
    return {
        "predicted_label": mean_std([float(g.apex_hit.astype(float).mean()) for g in groups]),
        "true_label": mean_std([float(g.apex_hit_true.astype(float).mean()) for g in groups]),
        "chance": float(known.apex_chance.mean()),
        "videos": int(known.id.nunique()),
    }


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
