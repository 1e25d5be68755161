"""Score tables of runs, all computed from the runs' own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..heads.registry import HEAD_TITLES
from ..heads.run_io import Run


def head_title(run: Run) -> str:
    return HEAD_TITLES.get(run.train_config.head, run.train_config.head)


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return a name per run: its head's title, the run folder's name where two runs have the same head, and the mark
    "optimistic" where the epoch was chosen by the test score, so that it stands wherever a number of the run does."""
    titles = [head_title(run) for run in runs]
    names = [
        title if titles.count(title) == 1 else f"{title} ({run.path.name})"
        for title, run in zip(titles, runs, strict=True)
    ]
    return [f"{name}, optimistic" if run.metrics["optimistic"] else name for name, run in zip(names, runs, strict=True)]


def score_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a line per run; scores and deviations in percent, None where they are not defined.

    Columns: run, head, war, uar, war_std_ddof0, war_std_ddof1, locating, locating_std_ddof0, chance, videos, folds,
    seeds, scheme, learning_rate, epochs, clips, frames, parameters, optimistic."""
    return pd.DataFrame([_line(name, run) for name, run in zip(run_names(runs), runs, strict=True)])


def _line(name: str, run: Run) -> dict[str, Any]:
    war, uar, locating, config = run.metrics["war"], run.metrics["uar"], run.metrics["locating"], run.train_config
    found = locating["predicted_label"] if locating else {"mean": None, "std_ddof0": None}
    return {
        "run": name, "head": config.head,
        "war": percent(war["mean"]), "uar": percent(uar["mean"]),
        "war_std_ddof0": percent(war["std_ddof0"]), "war_std_ddof1": percent(war["std_ddof1"]),
        "locating": percent(found["mean"]), "locating_std_ddof0": percent(found["std_ddof0"]),
        "chance": percent(locating["chance"]) if locating else None,
        "videos": run.metrics["videos"], "folds": run.metrics["folds"], "seeds": run.metrics["seeds"],
        "scheme": run.cv.fold_scheme, "learning_rate": config.learning_rate, "epochs": config.epochs,
        "clips": config.num_clips, "frames": config.frames_per_clip, "parameters": run.config["parameters_per_model"],
        "optimistic": bool(run.metrics["optimistic"]),
    }  # fmt: skip


def percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def fold_scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Return columns head, seed, fold, videos, war (0..1): a line per run, seed and fold."""
    parts = []
    for name, run in zip(run_names(runs), runs, strict=True):
        groups = run.predictions().groupby(["seed", "fold"], sort=False).correct
        scores = pd.DataFrame({"videos": groups.size(), "war": groups.mean()}).reset_index()
        parts.append(scores.assign(head=name))
    return pd.concat(parts, ignore_index=True)[["head", "seed", "fold", "videos", "war"]]


def majority_baseline(run: Run) -> float:
    """Return the accuracy (0..1) of always giving the commonest label: what a head must beat."""
    counts = np.array(run.metrics["confusion"]).sum(axis=1)
    return float(counts.max() / max(1, counts.sum()))


def recall_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return columns head, label, recall (0..1, NaN for a label without videos)."""
    lines = [
        {"head": name, "label": label, "recall": np.nan if value is None else value}
        for name, run in zip(run_names(runs), runs, strict=True)
        for label, value in run.metrics["recall"].items()
    ]
    return pd.DataFrame(lines)


def most_confused(run: Run, most: int = 3) -> list[tuple[str, str, int, int]]:
    """Return (true label, predicted label, count, videos of the true label) of the mistakes, commonest first."""
    counts = np.array(run.metrics["confusion"])
    pairs = [
        (true, predicted, int(counts[i, j]), int(counts[i].sum()))
        for i, true in enumerate(run.labels)
        for j, predicted in enumerate(run.labels)
        if i != j and counts[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def error_table(run: Run) -> pd.DataFrame:
    """Return the wrongly predicted test videos, the surest first: id, subject, fold, seed, label, predicted, sureness
    (0..1)."""
    table = run.predictions()
    wrong = table[~table.correct].copy()
    shares = wrong[[f"p_{label}" for label in run.labels]] if len(wrong) else pd.DataFrame()
    wrong["sureness"] = shares.max(axis=1) if len(wrong) else 0.0
    return wrong.sort_values("sureness", ascending=False)[
        ["id", "subject", "fold", "seed", "label", "predicted", "sureness"]
    ]


def locating_by_label(run: Run) -> pd.DataFrame:
    """Return columns label, videos, apex_hit, chance (0..1) over videos with a known apex; empty without maps."""
    table = run.predictions()
    if "apex_hit" not in table:
        return pd.DataFrame(columns=["label", "videos", "apex_hit", "chance"])
    known = table[table.apex_hit.notna()].assign(apex_hit=lambda t: t.apex_hit.astype(float))
    groups = known.groupby("label")
    found = pd.DataFrame(
        {"videos": groups.size(), "apex_hit": groups.apex_hit.mean(), "chance": groups.apex_chance.mean()}
    )
    return found.reindex([label for label in run.labels if label in found.index]).reset_index()


def subject_scores(run: Run) -> pd.DataFrame:
    """Return columns subject, videos, right, accuracy (0..1); empty where the data set names no subjects."""
    table = run.predictions()
    groups = table[table.subject != ""].groupby("subject", sort=True).correct
    found = pd.DataFrame({"videos": groups.size(), "correct": groups.sum(), "accuracy": groups.mean()})
    return found.reset_index()


def learning_curves(runs: Sequence[Run]) -> pd.DataFrame:
    """Return, per run and epoch, mean and std (ddof 0, over folds and seeds) of train_accuracy, test_war and
    train_loss."""
    parts = []
    for name, run in zip(run_names(runs), runs, strict=True):
        epochs = run.history().groupby("epoch")
        columns: dict[str, pd.Series] = {}
        for column in ("train_accuracy", "test_war", "train_loss"):
            columns[f"{column}_mean"] = epochs[column].mean()
            columns[f"{column}_std"] = epochs[column].std(ddof=0)
        parts.append(pd.DataFrame(columns).reset_index().assign(head=name))
    return pd.concat(parts, ignore_index=True)
