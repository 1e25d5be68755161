"""Charts of the report: accuracy, recall, confusion matrices, t-SNE, sweeps, learning curves, subjects, frame statuses."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import (
    ACCENT,
    CELL_TEXT,
    CMAP_FRACTION,
    MARKERS,
    MUTED,
    QUALITATIVE,
    STATUS_COLORS,
    TEXT,
    abbreviate,
    color_of,
    display_label,
    marker_of,
)

MAX_NAMED_SUBJECTS = 60
"""With more subjects their names are left out of the figure; its CSV has them."""
SMALL_MARKERS_FROM = 400
"""A t-SNE of at least so many videos has small markers."""


def accuracy_figure(folds: pd.DataFrame, majority_baseline: float) -> Figure:
    """Plot a row per run: a light dot per fold and seed, a diamond at their mean, a line of one std to each side.

    ``folds``: columns run, fold, seed, war (0..1). ``majority_baseline``: accuracy of always predicting the most common label.
    """
    runs = _unique(folds["run"])
    figure = Figure(figsize=(4.7, 0.75 + 0.36 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(100 * majority_baseline, color=MUTED, linewidth=1, linestyle=":")
    axes.text(100 * majority_baseline, -0.62, " majority label", fontsize=7.5, color=MUTED, va="center")
    for row, run in enumerate(runs):
        percent = 100 * folds.loc[folds["run"] == run, "war"].to_numpy()
        _spread(axes, percent, row, QUALITATIVE[0], TEXT if row else ACCENT)
    _label_rows(axes, runs)
    axes.set_ylim(len(runs) - 0.4, -0.8)
    axes.set_xlim(min(0, 100 * folds["war"].min()), 101)
    axes.set_xlabel("accuracy (WAR) %")
    _add_grid(axes, "x")
    return figure


def encoders_figure(folds: pd.DataFrame) -> Figure:
    """Plot a row per head and encoder: left the accuracy as in accuracy_figure, right the difference to the first encoder.

    ``folds``: a row per fold and seed, columns title (of the head), encoder, war and difference (both 0..1).
    """
    titles, encoders = _unique(folds["title"]), _unique(folds["encoder"])
    height = sum(0.62 + 0.3 * len(_unique(folds.loc[folds["title"] == title, "encoder"])) for title in titles)
    figure = Figure(figsize=(9.0, 0.7 + height), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    names, row = {}, 0.0
    for title in titles:
        names[row] = abbreviate(title)
        for encoder in encoders:
            part = folds[(folds["title"] == title) & (folds["encoder"] == encoder)]
            if not len(part):
                continue
            row += 1
            names[row] = encoder
            color = QUALITATIVE[encoders.index(encoder) % len(QUALITATIVE)]
            _spread(panels[0], 100 * part["war"].to_numpy(), row, color, color)
            if encoder != encoders[0] and part["difference"].notna().any():
                _spread(panels[1], 100 * part["difference"].dropna().to_numpy(), row, color, color, ddof=1)
        row += 1.4
    panels[0].set_yticks(list(names), list(names.values()))
    for label in panels[0].get_yticklabels():
        if label.get_text() not in encoders:
            label.set_weight("bold")
    panels[0].set_ylim(row - 0.7, -0.6)
    panels[0].set_xlim(min(0, 100 * folds["war"].min()), 101)
    panels[0].set_xlabel("accuracy (WAR) %")
    panels[1].axvline(0, color=MUTED, linewidth=1, linestyle=":")
    panels[1].set_xlabel(f"difference to {abbreviate(encoders[0])}, points")
    for axes in panels:
        _add_grid(axes, "x")
    return figure


def _spread(axes: Axes, values: np.ndarray, row: float, color: str, mean_color: str, ddof: int = 0) -> None:
    """Plot a light dot per value, a diamond at their mean, and a line of one std to each side."""
    dots = {"marker": "o", "markersize": 4.5, "color": color, "alpha": 0.45, "markeredgewidth": 0}
    axes.plot(values, row + _jitter(values), linestyle="none", label="_folds", **dots)
    mean, std = values.mean(), values.std(ddof=ddof) if len(values) > ddof else 0.0
    axes.plot([mean - std, mean + std], [row, row], color=TEXT, linewidth=1.6, solid_capstyle="butt")
    axes.plot([mean], [row], marker="D", markersize=6, color=mean_color, label="_mean", zorder=5)


def _jitter(values: np.ndarray) -> np.ndarray:
    """Return a small vertical offset per value, so that equal values do not hide each other."""
    offsets = np.zeros(len(values))
    for value in np.unique(np.round(values, 6)):
        equal = np.flatnonzero(np.isclose(values, value))
        step = min(0.1, 0.5 / len(equal))
        offsets[equal] = (np.arange(len(equal)) - (len(equal) - 1) / 2) * step
    return offsets


def recall_figure(recall: pd.DataFrame) -> Figure:
    """Plot a row per label, in it a marker per run. ``recall``: columns run, label, recall (0..1 or NaN)."""
    labels, runs = _unique(recall["label"]), _unique(recall["run"])
    figure = Figure(figsize=(4.7, 0.9 + 0.34 * len(labels) + 0.17 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    for i, run in reversed(list(enumerate(runs))):  # the first run on top
        part = recall[recall["run"] == run]
        dodge = 0.7 * ((i + 0.5) / len(runs) - 0.5)  # runs with the same recall do not hide each other
        rows = [labels.index(label) + dodge for label in part["label"]]
        size, order = (6, 4) if i == 0 else (5, 3)
        style = _run_style(i) | {"markersize": size, "zorder": order, "clip_on": False, "linestyle": "none"}
        axes.plot(100 * part["recall"], rows, label=run, **style)
    _label_rows(axes, map(display_label, labels))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall %")
    _add_grid(axes, "both")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower left", ncols=2)
    return figure


def confusion_figure(counts: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Plot true labels (rows) by predicted labels (columns): percent of the row, and counts.

    ``counts`` (C, C + 1): the last column counts videos without a prediction and is left out if it is empty.
    """
    cells = counts if counts[:, -1].any() else counts[:, :-1]
    columns = [*map(display_label, labels), "no face"][: cells.shape[1]]
    percent = 100 * cells / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.56 if len(labels) < 9 else 0.48
    figure = Figure(figsize=(1.25 + side * len(columns), 1.35 + side * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(percent, cmap=CMAP_FRACTION, vmin=0, vmax=100, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for i, j in zip(*np.nonzero(cells), strict=True):
        text, color = f"{percent[i, j]:.0f} %\n{cells[i, j]}", "white" if percent[i, j] > 55 else CELL_TEXT
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=color, fontsize=8, linespacing=1.15)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(labels)) + 0.5, columns[: len(labels)])
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(abbreviate(title))
    axes.spines[:].set_visible(False)
    return figure


def tsne_figure(points: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Plot a panel per run and a marker per video: color and shape are its true label, hollow means a wrong prediction.

    ``points``: columns run, x, y, label, correct. The marker of row i has the gid ``point-<i>``. Axes of a t-SNE have no
    meaning and are left out.
    """
    runs = _unique(points["run"])
    figure, panels = _panels(runs, width=2.85, height=2.75, margins=(0.0, 0.5))
    size = 4.7 if len(points) / len(runs) < SMALL_MARKERS_FROM else 3.0
    for axes, run in zip(panels, runs, strict=False):
        for i, point in points[points["run"] == run].iterrows():
            color = color_of(labels, point["label"])
            fill = color if point["correct"] else "none"
            marker = {"marker": marker_of(labels, point["label"]), "markersize": size, "linestyle": "none"}
            marker["zorder"] = 2 if point["correct"] else 3  # hollow markers stay visible
            axes.plot(
                point["x"], point["y"], color=color, markerfacecolor=fill, gid=f"point-{i}", label="_video", **marker
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.06)
        axes.spines[:].set(visible=True, linewidth=0.6)
    style = {"xdata": [], "ydata": [], "linestyle": "none"}
    legend = [
        Line2D(marker=marker_of(labels, label), color=color_of(labels, label), label=display_label(label), **style)
        for label in labels
    ]
    legend.append(Line2D(marker="o", markerfacecolor="none", color=MUTED, label="wrong prediction", **style))
    figure.legend(handles=legend, loc="outside lower center", ncols=4)
    return figure


CURVES = (("train_accuracy", "train", QUALITATIVE[0], "--"), ("test_war", "test", ACCENT, "-"))


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Plot a panel per run: accuracy on train and test by epoch, the mean as a line and one std as a band.

    ``curves``: columns run, epoch, and mean and std (0..1, ddof 0) of train_accuracy and test_war.
    """
    runs = _unique(curves["run"])
    figure, panels = _panels(runs, width=2.6, height=1.75, margins=(0.4, 0.4), share_axes=True)
    for axes, run in zip(panels, runs, strict=False):
        part = curves[curves["run"] == run]
        epoch = part["epoch"]
        for column, name, color, dash in CURVES:
            mean, std = 100 * part[f"{column}_mean"], 100 * part[f"{column}_std"]
            axes.fill_between(epoch, mean - std, np.minimum(mean + std, 100), color=color, alpha=0.2, linewidth=0)
            axes.plot(epoch, mean, color=color, linestyle=dash, linewidth=1.6, label=name)
        axes.set_ylim(0, 102)
        axes.set_xlim(0, epoch.max() + 1)
        axes.grid(axis="y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    figure.supxlabel("epoch", fontsize=9, color=TEXT)
    figure.supylabel("accuracy %", fontsize=9, color=TEXT)
    return figure


def sweep_figure(points: pd.DataFrame, axis: str, axis_label: str, note: str = "") -> Figure:
    """Plot accuracy against a setting: a line per head through the means, error bars of one std over folds and seeds.

    ``points``: columns head, the ``axis``, mean and std (0..1, ddof 0). ``note``: small print for a figure without a
    caption. The axis of the learning rate is logarithmic.
    """
    heads = _unique(points["head"])
    figure = Figure(figsize=(4.7, 2.7 + 0.16 * (len(heads) > 1)), layout="constrained")
    axes = figure.add_subplot()
    mean, std = 100 * points["mean"], 100 * points["std"]
    for i, head in enumerate(heads):
        part = points[points["head"] == head].sort_values(axis)
        x, y, bar = part[axis], 100 * part["mean"], 100 * part["std"]
        style = _run_style(i) | {"markersize": 6, "linewidth": 1.6, "capsize": 3, "elinewidth": 1}
        axes.errorbar(x, y, yerr=[bar, np.minimum(bar, 100 - y)], label=head, **style)  # accuracy ends at 100 %
        if len(heads) == 1:
            best = (x[y.idxmax()], y.max())
            axes.annotate(f"{y.max():.1f}", best, (6, 5), textcoords="offset points", fontsize=8.5, weight="bold")
    if axis == "learning_rate":
        axes.set_xscale("log")
    else:
        axes.set_xticks(sorted(points[axis].unique()))
        axes.xaxis.set_minor_locator(MaxNLocator(1))
    axes.set_xlabel(axis_label)
    axes.set_ylabel("accuracy (WAR) %")
    axes.grid(axis="y")
    axes.set_ylim(max(0, float((mean - std).min()) - 4), min(104, float((mean + std).max()) + 6))
    axes.tick_params(colors=MUTED, labelcolor=TEXT)
    if len(heads) > 1:
        figure.legend(loc="outside upper left", ncols=min(3, len(heads)))
    if note:
        figure.supxlabel("\n".join(textwrap.wrap(note, 96)), fontsize=6, color=MUTED, x=0.02, ha="left")
    return figure


def subjects_figure(subjects: pd.DataFrame, title: str) -> Figure:
    """Plot a bar per subject, highest accuracy first, and a line at their mean.

    ``subjects``: columns subject, videos, correct (counts over all seeds) and accuracy (0..1).
    """
    ordered = subjects.sort_values(["accuracy", "subject"], ascending=[False, True])
    percent = 100 * ordered["accuracy"].to_numpy()
    figure = Figure(figsize=(max(4.7, min(10.0, 0.9 + 0.19 * len(ordered))), 2.5), layout="constrained")
    axes = figure.add_subplot()
    colors = np.where(percent < percent.mean() - percent.std(), ACCENT, "#b4b8c2")
    axes.bar(range(len(ordered)), percent, width=0.78, color=colors)
    axes.axhline(percent.mean(), color=TEXT, linewidth=1.1, linestyle="--")
    if len(ordered) <= MAX_NAMED_SUBJECTS:
        axes.set_xticks(range(len(ordered)), ordered["subject"], rotation=90, fontsize=7)
    else:
        axes.set_xticks([])
    axes.set_xlim(-0.7, len(ordered) - 0.3)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy %")
    axes.set_title(title, fontsize=9)
    _add_grid(axes, "y")
    return figure


def reliability_figure(bins: pd.DataFrame, few: int) -> Figure:
    """Plot accuracy against confidence before and after calibration, and below each how many predictions have which confidence.

    ``bins``: a row per bin, columns calibration (before or after), low, high, n, confidence and accuracy (0..1, NaN in an empty
    bin). Bins of fewer than ``few`` predictions are hollow. The dashed line is perfect calibration.
    """
    figure = Figure(figsize=(4.7, 3.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1), gridspec_kw={"wspace": 0.12})
    for axes, counts, when in zip(*panels, ("before", "after"), strict=True):
        part = bins[bins["calibration"] == when]
        known = part[part["n"] > 0]
        is_few = known["n"].to_numpy() < few
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
        for rows, fill in ((known[~is_few], QUALITATIVE[0]), (known[is_few], "none")):
            axes.plot(
                100 * rows["confidence"], 100 * rows["accuracy"], "o", color=QUALITATIVE[0], markerfacecolor=fill, markersize=5.5,
                clip_on=False, zorder=3,
            )  # fmt: skip
        axes.set_title(f"{when} calibration", fontsize=9)
        axes.set_ylim(0, 100)
        _add_grid(axes, "both")
        width = 100 * (part["high"] - part["low"])
        counts.bar(100 * part["low"], part["n"], width=0.92 * width, align="edge", color="#b4b8c2")
        counts.set_xlim(0, 100)
        counts.set_xticks([0, 50, 100])
        _add_grid(counts, "y")
    panels[0, 0].set_ylabel("accuracy %")
    panels[1, 0].set_ylabel("predictions")
    figure.supxlabel("confidence %", fontsize=9, color=TEXT)
    return figure


def extraction_figure(fractions: pd.DataFrame) -> Figure:
    """Plot a bar per label, divided by frame status. ``fractions``: columns label, frames, and a fraction per status."""
    figure = Figure(figsize=(4.7, 0.95 + 0.3 * len(fractions)), layout="constrained")
    axes = figure.add_subplot()
    rows, left = range(len(fractions)), pd.Series(0.0, index=fractions.index)
    for status, color in STATUS_COLORS.items():
        name = status.name.lower()
        if fractions[name].any():
            axes.barh(rows, 100 * fractions[name], left=100 * left, height=0.72, color=color, label=name)
            left += fractions[name]
    labels = zip(fractions["label"], fractions["frames"], strict=True)
    _label_rows(axes, (f"{display_label(label)} ({frames:,})" for label, frames in labels))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("frames %")
    figure.legend(loc="outside upper right", ncols=4)
    return figure


def _unique(values: pd.Series) -> list[str]:
    return list(dict.fromkeys(values))


def _run_style(i: int) -> dict[str, Any]:
    return {"color": QUALITATIVE[i % len(QUALITATIVE)], "marker": MARKERS[i % len(MARKERS)]}


def _label_rows(axes: Axes, names: Iterable[str]) -> None:
    names = list(names)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)


def _add_grid(axes: Axes, axis: Literal["x", "y", "both"]) -> None:
    axes.grid(axis=axis)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _panels(
    titles: Sequence[str], width: float, height: float, margins: tuple[float, float], *, share_axes: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel of that size (inches) per title, two in a row; ``margins`` are for all of it."""
    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(width * columns + margins[0], height * rows + margins[1]), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=share_axes, sharey=share_axes).ravel().tolist()
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=9)
    for axes in panels[len(titles) :]:
        axes.axis("off")
    return figure, panels
