"""Results of a sweep: a row per run, fold and seed, sliced along one setting at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...cache.errors import CeflError
from ...cache.ownership import write_owned
from ..heads.clip_sampling import view_starts
from ..heads.convergence import loss_state
from ..heads.run_io import Run
from ..heads.train_config import TestView
from ..plots.charts import sweep_figure
from ..plots.style import png
from ..slots import NUM_SLOTS, num_covered_slots, num_starts

SWEEP_AXES = {"num_clips": "clips per video", "frames_per_clip": "frames per clip", "learning_rate": "learning rate"}
"""Settings that a sweep varies, by column, and their names on figures."""
FIGURE_BYTES = 100_000
"""Size of a figure of a sweep, at most about."""
COLUMNS = ("head", *SWEEP_AXES, "fold", "seed", "war", "uar")
TRAINING_COLUMNS = ("train_accuracy", "late_loss_decrease")
"""Columns that sweeps of older versions do not have."""


def read_sweep(path: Path) -> pd.DataFrame:
    """Read the CSV of a sweep; raises CeflError if it is not one."""
    try:
        table = pd.read_csv(path, dtype={"head": str, "fold": str})
    except FileNotFoundError:
        raise CeflError(f"{path}: no such sweep; create it with ceflpipe sweep") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise CeflError(f"{path}: not a valid CSV file: {message}; recreate it with ceflpipe sweep") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        columns = f"column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise CeflError(f"{path}: not a sweep, it has no {columns}; recreate it with ceflpipe sweep")
    return table


@dataclass(frozen=True)
class SweepSlice:
    """The results of a sweep along one setting (``axis``, a column of slice_along's ``points``), and their caption."""

    axis: str
    axis_label: str
    points: pd.DataFrame
    caption: str


def sweep_slices(sweep: pd.DataFrame, run: Run) -> Iterator[SweepSlice]:
    """Yield the results along every setting that the sweep varies; the other settings are those of ``run``."""
    for axis, axis_label in SWEEP_AXES.items():
        points = slice_along(sweep, axis, run)
        if not len(points):
            continue
        caption = (
            f"Accuracy by {axis_label}; fixed: {_describe_fixed(sweep, axis, run)}. Error bars: one standard deviation "
            f"(ddof 0) over {points['n'].max()} folds and seeds."
        )
        if falling := int((points["loss"] == "falling").sum()):
            caption += f" The training loss of {falling} of {len(points)} points was still falling in the end."
        if axis == "num_clips":
            caption = f"{caption} {_clips_caption(points, run.train_config.test_view)}"
        yield SweepSlice(axis, axis_label, points, caption)


def slice_along(sweep: pd.DataFrame, axis: str, run: Run) -> pd.DataFrame:
    """Return the results that differ only in ``axis``, all other settings being those of ``run``.

    Columns: head, the axis, mean and std of WAR (0..1, ddof 0) over folds and seeds, their number n, train_accuracy (0..1, the
    mean), and loss, 'falling' or 'flat' in the end (see convergence.py), of sweeps that know it. Empty if the sweep does not vary
    the axis.
    """
    sweep, _ = _fix_others(sweep, axis, run)
    if sweep[axis].nunique() < 2:
        return pd.DataFrame(columns=["head", axis, "mean", "std", "n", "train_accuracy", "loss"])
    known = sweep.assign(**{column: np.nan for column in TRAINING_COLUMNS if column not in sweep})
    groups = known.groupby(["head", axis], sort=False)
    columns = {"mean": groups.war.mean(), "std": groups.war.std(ddof=0), "n": groups.size()}
    points = pd.DataFrame(columns | {"train_accuracy": groups.train_accuracy.mean()})
    points["loss"] = groups.late_loss_decrease.mean().map(loss_state)
    return points.reset_index()


def _describe_fixed(sweep: pd.DataFrame, axis: str, run: Run) -> str:
    """Return the other settings in words, e.g. 'clips per video 7, learning rate 0.0001'."""
    _, fixed = _fix_others(sweep, axis, run)
    return ", ".join(f"{SWEEP_AXES[column]} {value:g}" for column, value in fixed.items())


def _fix_others(sweep: pd.DataFrame, axis: str, run: Run) -> tuple[pd.DataFrame, dict[str, float]]:
    """Select the run's value of every setting but ``axis``, or the most common one if the sweep lacks that."""
    fixed = {}
    for column in SWEEP_AXES:
        if column != axis:
            value = getattr(run.train_config, column)
            if len(sweep) and value not in sweep[column].unique():
                value = sweep[column].mode().iloc[0]
            fixed[column], sweep = value, sweep[sweep[column] == value]
    return sweep, fixed


def _clips_caption(points: pd.DataFrame, test_view: TestView) -> str:
    """Return how numbers of clips other than the paper's 7 are sampled."""
    counts = [count for count in sorted(int(value) for value in points["num_clips"].unique()) if count != 7]
    parts = [
        f"n = {count}: {num_covered_slots(count)} slots, start slots 0 to {num_starts(count) - 1}, "
        f"{view_starts(count, 1, test_view)[0]} in testing"
        for count in counts
    ]
    rule = "uses the middle one" if test_view == "middle" else "uses the one that ends with the last slot"
    return (
        f"n clips cover 10n + 5 of the {NUM_SLOTS} slots. Training draws the start from the first "
        f"min(30, {NUM_SLOTS} - (10n + 5) + 1) slots, testing {rule} ({'; '.join(parts)}). "
        "The paper describes n = 7 only."
    )


def figure_files(folder: Path) -> list[Path]:
    """Return the paths of all figures that ``write_sweep_figures`` can write."""
    return [_figure_file(folder, axis) for axis in SWEEP_AXES]


def _figure_file(folder: Path, axis: str) -> Path:
    return folder / f"sweep_{axis}.png"


def write_sweep_figures(sweep: pd.DataFrame, run: Run, folder: Path) -> list[Path]:
    """Write sweep_<setting>.png for every setting that the sweep varies and return the paths.

    The other settings are those of ``run``.
    """
    paths = []
    for part in sweep_slices(sweep, run):
        paths.append(_figure_file(folder, part.axis))
        with write_owned(paths[-1]) as temporary:
            temporary.write_bytes(png(sweep_figure(part.points, part.axis, part.axis_label, part.caption)))
    return paths
