"""Results of runs side by side: a row per fold, paired differences, and encoders compared on the same folds and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .intervals import corrected_interval
from .metrics import locating_accuracy, uar, war
from .registry import HEAD_TITLES
from .run_io import Run

PROTOCOL = ("dataset", "labels", "manifest_sha256", "train", "cv", "code", "folds", "train_only")
"""Keys of run.json that are the same for all runs of one head in a comparison of encoders."""


def results_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row per run, seed and fold: head, num_clips, frames_per_clip, learning_rate, seed, fold, videos, war, uar,
    locating_accuracy and chance (0..1; NaN without an intensity map or a reachable apex), and apex_reachable, the number of
    videos that these two count (see metrics.locating_accuracy).

    Then train_videos, train_accuracy (0..1) in the last epoch, and late_loss_decrease of the whole run (see convergence.py), both
    NaN if undefined; and what this fold was trained with: tuned (the names of the settings that were chosen for it, or ''),
    used_learning_rate, used_weight_decay and used_epochs.
    """
    return pd.DataFrame([row for run in runs for row in _rows(run)])


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    fields = {"head", "num_clips", "frames_per_clip", "learning_rate"}
    settings = {(model["seed"], model["fold"]): model for model in run.settings_by_model()}
    histories, late = dict(iter(run.history().groupby(["seed", "fold"]))), run.late_loss_decrease()
    folds = run.config["folds"]
    num_videos = sum(map(len, folds.values())) + len(run.config.get("train_only", ()))
    for (seed, fold), group in run.predictions().groupby(["seed", "fold"], sort=False):
        history, used = histories.get((seed, fold)), settings[seed, fold]
        locating = locating_accuracy(group)
        yield run.train_config.model_dump(include=fields) | {
            "seed": seed,
            "fold": fold,
            "videos": len(group),
            "war": war(group.correct),
            "uar": uar(group.label, group.correct, run.labels),
            "locating_accuracy": locating["predicted_label"]["mean"] if locating and locating["reachable"] else np.nan,
            "chance": locating["chance"] if locating and locating["reachable"] else np.nan,
            "apex_reachable": locating["reachable"] if locating else 0,
            "train_videos": num_videos - len(folds[fold]),
            "train_accuracy": np.nan if history is None else float(history.train_accuracy.iloc[-1]),
            "late_loss_decrease": np.nan if late is None else late,
            "tuned": ",".join(run.cv.tune),
            **{f"used_{name}": used[name] for name in ("learning_rate", "weight_decay", "epochs")},
        }


def paired_differences(rows: pd.DataFrame, earlier: str, later: str, column: str = "head") -> dict[str, Any]:
    """Return the gain in WAR of the later value of a column over the earlier one on the same fold and seed: mean, std_ddof1, n,
    and the number of pairs in which it is better (wins) and worse (losses).

    ``low`` and ``high``: the confidence interval of the mean over folds (intervals.corrected_interval), with the seeds of a fold
    averaged first; None with one fold. ``folds``: their number.
    """
    scores = {value: rows[rows[column] == value].set_index(["seed", "fold"]) for value in (earlier, later)}
    difference = (scores[later].war - scores[earlier].war).dropna()
    pairs = scores[later].loc[difference.index]
    by_fold = difference.groupby("fold", sort=False).mean()
    interval = corrected_interval(by_fold.tolist(), float((pairs.videos / pairs.train_videos).mean()))
    return {
        "earlier": earlier,
        "later": later,
        "mean": float(difference.mean()),
        "n": len(difference),
        "std_ddof1": float(difference.std(ddof=1)) if len(difference) > 1 else None,
        "wins": int((difference > 0).sum()),
        "losses": int((difference < 0).sum()),
        "folds": len(by_fold),
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
    }


def paired_runs(earlier: Run, later: Run) -> dict[str, Any] | None:
    """Return the paired differences of two runs; None if they differ in videos, folds, seeds or features."""
    keys = ("manifest_sha256", "folds", "train_only")
    first, second = earlier.config, later.config
    if any(first.get(key) != second.get(key) for key in keys) or earlier.cv.seeds != later.cv.seeds:
        return None
    if first["features"]["sha256"] != second["features"]["sha256"]:
        return None
    parts = [results_frame([run]).assign(run=name) for name, run in (("earlier", earlier), ("later", later))]
    return paired_differences(pd.concat(parts), "earlier", "later", "run")


def verdict(difference: Mapping[str, Any]) -> str:
    """Return in words what the interval of a difference (see paired_differences) shows, and no more than that."""
    if difference["low"] is None:
        return "no interval from one fold"
    if difference["low"] <= 0 <= difference["high"]:
        return "no difference shown"
    return "higher" if difference["mean"] > 0 else "lower"


def describe_tuned(run: Run) -> str:
    """Return what was chosen for the folds and seeds of a run, e.g. 'learning rate 0.001 (7 of 10), 0.003 (3 of 10); epochs 41 to
    112, median 96'; '' if nothing was tuned."""
    models, parts = run.settings_by_model(), []
    for name in run.cv.tune:
        values = [model[name] for model in models]
        if name == "epochs":
            low, high = min(values), max(values)
            parts.append(f"epochs {low}" + (f" to {high}, median {np.median(values):g}" if high > low else ""))
        else:
            counts = ", ".join(
                f"{value:g} ({count} of {len(values)})" for value, count in sorted(Counter(values).items())
            )
            parts.append(f"{name.replace('_', ' ')} {counts}")
    return "; ".join(parts)


def values_at_an_edge(run: Run) -> list[str]:
    """Return a sentence for each tuned setting of which more than half of the models chose the lowest or highest there was."""
    models, notes = run.settings_by_model(), []
    grids = {
        "learning_rate": (run.cv.tune_learning_rates, "--tune-lr"),
        "weight_decay": (run.cv.tune_weight_decays, "--tune-weight-decays"),
        "epochs": ((0, run.train_config.epochs), "--epochs"),
    }
    for name in run.cv.tune:
        grid, option = grids[name]
        for edge, end in ((min(grid), "lowest"), (max(grid), "highest")):
            count = sum(model[name] == edge for model in models)
            if len(grid) > 1 and 2 * count > len(models):
                notes.append(
                    f"{name.replace('_', ' ')} {edge:g}, the {end} to choose from, was chosen {count} of {len(models)} times; "
                    f"look further with {option}"
                )
    return notes


@dataclass(frozen=True)
class EncoderRuns:
    """The runs of the heads on the features of one encoder; ``encode_ms``: what its network takes for a crop, in milliseconds of
    processor time; ``hours``: what making the features took, or training end to end; None if that is not known."""

    encoder: str
    runs: tuple[Run, ...]
    encode_ms: float | None = None
    hours: float | None = None


def protocol_differences(run: Run, other: Run) -> list[str]:
    """Return in what two runs differ that are to be compared: keys of PROTOCOL, and the source files of their videos."""
    names = []
    for key in PROTOCOL:
        first, second = run.config.get(key), other.config.get(key)
        if key in ("train", "cv") and first and second:
            names += [f"{key}.{name}" for name in first if first[name] != second.get(name)]
        elif first != second:
            names.append(key)
    sources = [each.config["features"].get("sources_sha256") for each in (run, other)]
    return names if sources[0] == sources[1] else [*names, "source files"]


def encoder_folds(encoders: Sequence[EncoderRuns]) -> pd.DataFrame:
    """Return a row per encoder, head, seed and fold: encoder, width, the columns of results_frame, and difference, the WAR minus
    that of the first encoder with the same head, seed and fold."""
    parts = [
        results_frame([run]).assign(encoder=each.encoder, width=run.config["dim"])
        for each in encoders
        for run in each.runs
    ]
    table = pd.concat(parts, ignore_index=True)
    keys = ["head", "seed", "fold"]
    first = table[table.encoder == encoders[0].encoder].set_index(keys).war
    table["difference"] = table.war - first.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    return table[["encoder", "width", *(name for name in table if name not in ("encoder", "width"))]]


def encoder_rows(encoders: Sequence[EncoderRuns]) -> list[dict[str, Any]]:
    """Return a row per head and encoder, in the order of the first encoder's heads. All fractions are in 0..1.

    Keys: encoder, width, head, title, videos, folds, seeds, war (see metrics.mean_std), uar, train_accuracy,
    late_loss_decrease (see convergence.py), locating_accuracy, encode_ms, hours, is_per_fold (has each fold an
    encoder of its own), optimistic, run (its folder), and ``difference`` to
    the first encoder (see paired_differences; None for itself).
    """
    table = encoder_folds(encoders)
    heads = dict.fromkeys(run.train_config.head for each in encoders for run in each.runs)
    return [
        _encoder_row(run, each, encoders[0].encoder, table[table["head"] == head])
        for head in heads
        for each in encoders
        for run in each.runs
        if run.train_config.head == head
    ]


def _encoder_row(run: Run, runs: EncoderRuns, first: str, folds: pd.DataFrame) -> dict[str, Any]:
    metrics, head = run.metrics, run.train_config.head
    is_paired = runs.encoder != first and (folds.encoder == first).any()
    return {
        "encoder": runs.encoder,
        "width": run.config["dim"],
        "head": head,
        "title": HEAD_TITLES[head],
        **{key: metrics[key] for key in ("videos", "folds", "seeds", "war")},
        "uar": metrics["uar"]["mean"],
        "train_accuracy": run.train_accuracy(),
        "late_loss_decrease": run.late_loss_decrease(),
        "locating_accuracy": (metrics["locating_accuracy"] or {}).get("predicted_label", {}).get("mean"),
        "difference": paired_differences(folds, first, runs.encoder, "encoder") if is_paired else None,
        "encode_ms": runs.encode_ms,
        "hours": runs.hours,
        "is_per_fold": "folds" in run.config["features"],
        "optimistic": bool(metrics["optimistic"]),
        "run": str(run.path),
    }
