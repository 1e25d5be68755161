"""Figure 5: which labels are taken for which? And how often is each one recognised, by which head?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import CELL_INK, MARKERS, QUALITATIVE, SHARES, short, word


def confusion_figure(counts: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Draw percent of each row and the count behind it: rows are true labels, columns predicted ones.

    ``counts`` (C, C + 1); the last column counts videos without a prediction and is shown when it is not empty.
    """
    shown = counts if counts[:, -1].any() else counts[:, :-1]
    columns = [*map(word, labels), "no face"][: shown.shape[1]]
    percent = 100 * shown / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.56 if len(labels) < 9 else 0.48
    figure = Figure(figsize=(1.25 + side * len(columns), 1.35 + side * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(percent, cmap=SHARES, vmin=0, vmax=100, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for i, j in np.ndindex(*shown.shape):
        if shown[i, j]:
            colour = "white" if percent[i, j] > 55 else CELL_INK
            text = f"{percent[i, j]:.0f} %\n{shown[i, j]}"
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize=8, linespacing=1.15)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(labels)) + 0.5, columns[: len(labels)])
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(short(title))
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
    axes.set_yticks(range(len(labels)), [word(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall %")
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower left", ncols=2)
    return figure
