"""Charts of the report: scores, recall, confusion, learning curves, sweeps, subjects, frame statuses, t-SNE."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import (
    ACCENT,
    CELL_TEXT,
    CMAP_FRACTION,
    GRID,
    MARKERS,
    MUTED,
    QUALITATIVE,
    TEXT,
    abbreviate,
    color_of,
    display_label,
    marker_of,
)


def scores_figure(folds: pd.DataFrame, chance: float) -> Figure:
    """Draw a row per head: a pale mark per fold (and seed), a dark one at their mean, a line one deviation to each
    side.

    ``folds``: columns head (in the order to be drawn), fold, seed, war (0..1). ``chance``: accuracy of guessing.
    """
    heads = list(dict.fromkeys(folds["head"]))
    figure = Figure(figsize=(4.7, 0.75 + 0.36 * len(heads)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(100 * chance, color=MUTED, linewidth=1, linestyle=":")
    axes.text(100 * chance, -0.62, " guessing", fontsize=7.5, color=MUTED, va="center")
    for row, head in enumerate(heads):
        scores = 100 * folds.loc[folds["head"] == head, "war"].to_numpy()
        # marks that fall on one spot are moved apart a little, up and down
        lift = _jitter(scores)
        axes.plot(
            scores,
            row + lift,
            linestyle="none",
            marker="o",
            markersize=4.5,
            color=QUALITATIVE[0],
            alpha=0.45,
            markeredgewidth=0,
            label="_folds",
        )
        mean, spread = scores.mean(), scores.std()
        axes.plot([mean - spread, mean + spread], [row, row], color=TEXT, linewidth=1.6, solid_capstyle="butt")
        axes.plot([mean], [row], marker="D", markersize=6, color=ACCENT if row == 0 else TEXT, label="_mean", zorder=5)
    axes.set_yticks(range(len(heads)), heads)
    axes.set_ylim(len(heads) - 0.4, -0.8)
    axes.set_xlim(min(0, 100 * folds["war"].min()), 101)
    axes.set_xlabel("accuracy (WAR) %")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    return figure


def _jitter(scores: np.ndarray) -> np.ndarray:
    """Return a small vertical shift per score, so that equal ones stand above each other around the row."""
    shift = np.zeros(len(scores))
    for value in np.unique(np.round(scores, 6)):
        same = np.flatnonzero(np.isclose(scores, value))
        step = min(0.1, 0.5 / len(same))
        shift[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * step
    return shift


def confusion_figure(counts: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Draw percent of each row and the count behind it: rows are true labels, columns predicted ones.

    ``counts`` (C, C + 1); the last column counts videos without a prediction and is shown when it is not empty.
    """
    shown = counts if counts[:, -1].any() else counts[:, :-1]
    columns = [*map(display_label, labels), "no face"][: shown.shape[1]]
    percent = 100 * shown / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.56 if len(labels) < 9 else 0.48
    figure = Figure(figsize=(1.25 + side * len(columns), 1.35 + side * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(percent, cmap=CMAP_FRACTION, vmin=0, vmax=100, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for i, j in np.ndindex(*shown.shape):
        if shown[i, j]:
            colour = "white" if percent[i, j] > 55 else CELL_TEXT
            text = f"{percent[i, j]:.0f} %\n{shown[i, j]}"
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize=8, linespacing=1.15)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(labels)) + 0.5, columns[: len(labels)])
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(abbreviate(title))
    for side_line in axes.spines.values():
        side_line.set_visible(False)
    return figure


def recall_figure(recall: pd.DataFrame) -> Figure:
    """Draw recall by label: a row per label, a mark per head. ``recall``: columns label, head, recall (0..1 or NaN)."""
    labels, heads = list(dict.fromkeys(recall["label"])), list(dict.fromkeys(recall["head"]))
    figure = Figure(figsize=(4.7, 0.9 + 0.34 * len(labels) + 0.17 * len(heads)), layout="constrained")
    axes = figure.add_subplot()
    places = {label: row for row, label in enumerate(labels)}
    for number, head in reversed(list(enumerate(heads))):
        part = recall[recall["head"] == head]
        axes.plot(
            100 * part["recall"], [places[label] for label in part["label"]], linestyle="none",
            marker=MARKERS[number % len(MARKERS)], color=QUALITATIVE[number % len(QUALITATIVE)],
            markersize=8 if number == 0 else 6, label=head, clip_on=False, zorder=4 if number == 0 else 3,
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), [display_label(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall %")
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower left", ncols=2)
    return figure


CURVES = (("train_accuracy", "train", QUALITATIVE[0], "--"), ("test_war", "test", ACCENT, "-"))


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Draw a panel per head: mean over folds as a line, one deviation as a band, for train and test accuracy.

    ``curves``: columns head, epoch, and mean and std (0..1, ddof 0) of train_accuracy and test_war.
    """
    heads = list(dict.fromkeys(curves["head"]))
    columns = min(2, len(heads))
    rows = -(-len(heads) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.4, 1.75 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(heads) :]:
        axes.axis("off")
    for axes, head in zip(grid, heads, strict=False):
        part = curves[curves["head"] == head]
        for column, name, colour, dash in CURVES:
            mean, spread = 100 * part[f"{column}_mean"], 100 * part[f"{column}_std"]
            axes.fill_between(
                part["epoch"], mean - spread, np.minimum(mean + spread, 100), color=colour, alpha=0.2, linewidth=0
            )
            axes.plot(part["epoch"], mean, color=colour, linestyle=dash, linewidth=1.6, label=name)
        axes.set_title(head, fontsize=9)
        axes.set_ylim(0, 102)
        axes.set_xlim(0, part["epoch"].max() + 1)
        axes.grid(axis="y")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower right", ncols=2)
    figure.supxlabel("epoch", fontsize=9, color=TEXT)
    figure.supylabel("accuracy %", fontsize=9, color=TEXT)
    return figure


def sweep_figure(points: pd.DataFrame, axis: str, said: str, note: str = "") -> Figure:
    """Draw accuracy against one setting: a line per head through the means, bars of one deviation over folds and seeds.

    ``points``: columns head, the ``axis``, mean and std (0..1, ddof 0). ``said``: how the axis is called. ``note``
    stands in small letters below, for a picture that travels without its page. Learning rates stand on a logarithmic axis.
    """
    heads = list(dict.fromkeys(points["head"]))
    figure = Figure(figsize=(4.7, 2.7 + 0.16 * (len(heads) > 1)), layout="constrained")
    axes = figure.add_subplot()
    for number, head in enumerate(heads):
        part = points[points["head"] == head].sort_values(axis)
        axes.errorbar(
            part[axis],
            100 * part["mean"],
            yerr=_error_bars(part),
            color=QUALITATIVE[number % len(QUALITATIVE)],
            linewidth=1.6,
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            capsize=3,
            elinewidth=1,
            label=head,
        )
        if len(heads) == 1 and len(part):
            best = part.loc[part["mean"].idxmax()]
            axes.annotate(
                f"{100 * best['mean']:.1f}",
                (best[axis], 100 * best["mean"]),
                (6, 5),
                textcoords="offset points",
                fontsize=8.5,
                weight="bold",
            )
    if axis == "learning_rate":
        axes.set_xscale("log")
    else:
        axes.set_xticks(sorted(points[axis].unique()))
        axes.xaxis.set_minor_locator(MaxNLocator(1))
    axes.set_xlabel(said)
    axes.set_ylabel("accuracy (WAR) %")
    axes.grid(axis="y")
    low = float((points["mean"] - points["std"]).min())
    axes.set_ylim(bottom=max(0, 100 * low - 4), top=min(104, 100 * float((points["mean"] + points["std"]).max()) + 6))
    if len(heads) > 1:
        figure.legend(loc="outside upper left", ncols=min(3, len(heads)))
    axes.tick_params(colors=MUTED, labelcolor=TEXT)
    if note:
        figure.supxlabel("\n".join(textwrap.wrap(note, 96)), fontsize=6, color=MUTED, x=0.02, ha="left")
    return figure


def _error_bars(points: pd.DataFrame) -> np.ndarray:
    """Return lengths (2, points) of the bars down and up in percent; no accuracy is above 100 %."""
    down, up = 100 * points["std"], np.minimum(100 * points["std"], 100 - 100 * points["mean"])
    return np.array([down, up])


MAX_NAMED_SUBJECTS = 60
"""With more subjects than this their names are left out; the CSV has them."""


def subjects_figure(subjects: pd.DataFrame, head: str) -> Figure:
    """Draw a column per subject from 0 to its accuracy, best first; a line at the mean over subjects.

    ``subjects``: columns subject, videos, correct (both counts over all seeds), accuracy (0..1).
    """
    ordered = subjects.sort_values(["accuracy", "subject"], ascending=[False, True])
    named = len(ordered) <= MAX_NAMED_SUBJECTS
    figure = Figure(figsize=(max(4.7, min(10.0, 0.9 + 0.19 * len(ordered))), 2.5), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * ordered["accuracy"].to_numpy()
    axes.bar(range(len(ordered)), percent, width=0.78, color="#b4b8c2")
    below = percent < percent.mean() - percent.std()
    for bar, low in zip(axes.patches, below, strict=True):
        if low:
            bar.set_color(ACCENT)
    axes.axhline(percent.mean(), color=TEXT, linewidth=1.1, linestyle="--")
    axes.set_xticks(range(len(ordered)) if named else [], ordered["subject"] if named else [], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(ordered) - 0.3)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy %")
    axes.set_title(head, fontsize=9)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    return figure


STATUS_COLORS = {"detected": QUALITATIVE[0], "interpolated": QUALITATIVE[4], "given": MUTED, "missing": ACCENT}
"""Frame statuses in the order of the bars, and their colours."""


def extraction_figure(shares: pd.DataFrame) -> Figure:
    """Draw a bar per label, cut by frame status. ``shares``: columns label, frames, and a share (0..1) per status."""
    figure = Figure(figsize=(4.7, 0.95 + 0.3 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    left = pd.Series(0.0, index=shares.index)
    for status, colour in STATUS_COLORS.items():
        if shares[status].any():
            axes.barh(
                range(len(shares)), 100 * shares[status], left=100 * left, height=0.72, color=colour, label=status
            )
            left += shares[status]
    axes.set_yticks(
        range(len(shares)),
        [
            f"{display_label(label)} ({frames:,})"
            for label, frames in zip(shares["label"], shares["frames"], strict=True)
        ],
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("frames %")
    axes.tick_params(length=0)
    figure.legend(loc="outside upper right", ncols=4)
    return figure


def scatter_figure(points: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw a panel per head, a mark per video, its colour and shape the true label; wrongly predicted ones are hollow.

    ``points``: columns head, x, y, label, correct. The axes of a t-SNE mean nothing and are left out.
    """
    heads = list(dict.fromkeys(points["head"]))
    columns = min(2, len(heads))
    rows = -(-len(heads) // columns)
    figure = Figure(figsize=(2.85 * columns, 2.75 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(heads) :]:
        axes.axis("off")
    size = 22 if len(points) / len(heads) < 400 else 9
    for axes, head in zip(grid, heads, strict=False):
        for label in labels:
            part = points[(points["head"] == head) & (points["label"] == label)]
            for correct in (True, False):
                some = part[part["correct"] == correct]
                colour = color_of(labels, label)
                axes.scatter(
                    some["x"], some["y"], s=size, marker=marker_of(labels, label), linewidths=1,
                    facecolors=colour if correct else "none", edgecolors=colour,
                )  # fmt: skip
        axes.set_title(head, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.06)
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_linewidth(0.6)
    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker_of(labels, label),
            color=color_of(labels, label),
            label=display_label(label),
        )
        for label in labels
    ]
    hollow = Line2D(
        [], [], linestyle="none", marker="o", markerfacecolor="none", color=MUTED, label="predicted wrongly"
    )
    figure.legend(handles=[*marks, hollow], loc="outside lower center", ncols=4)
    return figure
