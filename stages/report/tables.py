"""Score tables of runs, computed from the files of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..heads.comparison import describe_tuned
from ..heads.convergence import describe_shortfall, loss_state
from ..heads.metrics import war
from ..heads.registry import HEAD_TITLES
from ..heads.run_io import Run


def head_title(run: Run) -> str:
    return HEAD_TITLES.get(run.train_config.head, run.train_config.head)


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return the title of each run's head; of several runs of one head also the encoder's name, or else the folder's.

    "optimistic" is added to runs whose epoch was selected by the test score, so that all their numbers carry the mark.
    """
    titles = [head_title(run) for run in runs]
    names = []
    for title, run in zip(titles, runs, strict=True):
        same = [other for other, other_title in zip(runs, titles, strict=True) if other_title == title]
        name = title if len(same) == 1 else f"{title} ({_what_differs(run, same)})"
        names.append(f"{name}, optimistic" if run.metrics["optimistic"] else name)
    return names


def _what_differs(run: Run, runs: Sequence[Run]) -> str:
    """Return what tells a run from the others of its head: its encoder, its folder's name, or its path."""
    for name_of in (lambda each: each.extraction_settings.encoder, lambda each: each.path.name):
        if len({name_of(each) for each in runs}) == len(runs):
            return name_of(run)
    return str(run.path)


def score_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row per run: WAR, UAR, locating accuracy, their std and chance in percent (None if undefined), n, settings."""
    return [_score_row(name, run) for name, run in zip(run_names(runs), runs, strict=True)]


def _score_row(name: str, run: Run) -> dict[str, Any]:
    metrics, config = run.metrics, run.train_config
    accuracy, locating = metrics["war"], metrics["locating_accuracy"] or {}
    by_predicted = locating.get("predicted_label", {})
    percents = {
        "war": accuracy["mean"],
        "uar": metrics["uar"]["mean"],
        "war_std_ddof0": accuracy["std_ddof0"],
        "war_std_ddof1": accuracy["std_ddof1"],
        "locating_accuracy": by_predicted.get("mean"),
        "locating_accuracy_std_ddof0": by_predicted.get("std_ddof0"),
        "chance": locating.get("chance"),
    }
    return {
        "run": name,
        "head": config.head,
        **{key: None if value is None else round(100 * value, 4) for key, value in percents.items()},
        **{key: metrics[key] for key in ("videos", "folds", "seeds")},
        "apex_known": locating.get("videos", 0),
        "apex_reachable": locating.get("reachable", 0),
        "fold_scheme": run.cv.fold_scheme,
        **config.model_dump(include={"learning_rate", "epochs", "num_clips", "frames_per_clip"}),
        **{f"used_{name}": used_values(run, name) for name in ("learning_rate", "epochs")},
        "tuned": describe_tuned(run),
        "train_accuracy": run.train_accuracy(),
        "loss": loss_state(run.late_loss_decrease()),
        "shortfall": describe_shortfall(run.train_accuracy(), run.late_loss_decrease()),
        "parameters": run.config["parameters_per_model"],
        "optimistic": bool(metrics["optimistic"]),
    }


def used_values(run: Run, setting: str) -> str:
    """Return what the models of a run were trained with, e.g. '0.0001', or '0.001 to 0.003' if it was tuned."""
    values = [model[setting] for model in run.settings_by_model()]
    low, high = min(values), max(values)
    return f"{low:g}" + (f" to {high:g}" if high > low else "")


def fold_scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Return columns run, seed, fold, videos, war (0..1): a row per run, seed and fold."""
    parts = []
    for name, run in zip(run_names(runs), runs, strict=True):
        groups = run.predictions().groupby(["seed", "fold"], sort=False).correct
        scores = pd.DataFrame({"videos": groups.size(), "war": groups.agg(war)}).reset_index()
        parts.append(scores.assign(run=name))
    return pd.concat(parts, ignore_index=True)[["run", "seed", "fold", "videos", "war"]]


def majority_baseline(run: Run) -> float:
    """Return the accuracy (0..1) of always predicting the most common label."""
    counts = np.array(run.metrics["confusion"]).sum(axis=1)
    return float(counts.max() / max(1, counts.sum()))


def recall_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return columns run, label, recall (0..1, NaN for a label without videos)."""
    rows = [
        {"run": name, "label": label, "recall": np.nan if value is None else value}
        for name, run in zip(run_names(runs), runs, strict=True)
        for label, value in run.metrics["recall"].items()
    ]
    return pd.DataFrame(rows)


def top_confusions(run: Run, limit: int = 3) -> list[tuple[str, str, int, int]]:
    """Return (true label, predicted label, count, videos of the true label) of the most common errors."""
    counts = np.array(run.metrics["confusion"])
    pairs = [
        (true, predicted, int(counts[i, j]), int(counts[i].sum()))
        for i, true in enumerate(run.labels)
        for j, predicted in enumerate(run.labels)
        if i != j and counts[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:limit]


def error_table(run: Run) -> pd.DataFrame:
    """Return the wrong predictions in decreasing order of confidence (0..1, the probability of the predicted label)."""
    table = run.predictions()
    errors = table[~table.correct]
    confidence = errors[[f"p_{label}" for label in run.labels]].max(axis=1) if len(errors) else 0.0
    errors = errors.assign(confidence=confidence).sort_values("confidence", ascending=False)
    return errors[["id", "subject", "fold", "seed", "label", "predicted", "confidence"]]


def locating_by_label(run: Run) -> pd.DataFrame:
    """Return columns label, videos, apex_hit, chance (0..1) over videos with a reachable apex; empty without a map."""
    table = run.predictions()
    if "apex_hit" not in table:
        return pd.DataFrame(columns=["label", "videos", "apex_hit", "chance"])
    groups = table[table.apex_chance > 0].astype({"apex_hit": float}).groupby("label")
    columns = {"videos": groups.size(), "apex_hit": groups.apex_hit.mean(), "chance": groups.apex_chance.mean()}
    present = [label for label in run.labels if label in groups.groups]
    return pd.DataFrame(columns).reindex(present).reset_index()


def subject_scores(run: Run) -> pd.DataFrame:
    """Return columns subject, videos, correct, accuracy (0..1); empty if the data set has no subjects."""
    table = run.predictions()
    groups = table[table.subject != ""].groupby("subject", sort=True).correct
    columns = {"videos": groups.size(), "correct": groups.sum(), "accuracy": groups.mean()}
    return pd.DataFrame(columns).reset_index()


def learning_curves(runs: Sequence[Run]) -> pd.DataFrame:
    """Return mean and std (ddof 0, over folds and seeds) of train_accuracy, test_war and train_loss per run and epoch."""
    parts = []
    for name, run in zip(run_names(runs), runs, strict=True):
        epochs = run.history().groupby("epoch")
        columns: dict[str, pd.Series] = {}
        for column in ("train_accuracy", "test_war", "train_loss"):
            columns[f"{column}_mean"] = epochs[column].mean()
            columns[f"{column}_std"] = epochs[column].std(ddof=0)
        parts.append(pd.DataFrame(columns).reset_index().assign(run=name))
    return pd.concat(parts, ignore_index=True)
