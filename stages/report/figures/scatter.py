"""Figure 7: do representations of one label lie together?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import SOFT, colour_of, marker_of, word


def scatter_figure(points: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw a panel per head, a mark per video, its colour and shape the true label; wrongly predicted ones are hollow.

    ``points``: columns head, x, y, label, right. The axes of a t-SNE mean nothing and are left out.
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
            for right in (True, False):
                some = part[part["right"] == right]
                colour = colour_of(labels, label)
                axes.scatter(
                    some["x"], some["y"], s=size, marker=marker_of(labels, label), linewidths=1,
                    facecolors=colour if right else "none", edgecolors=colour,
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
            [], [], linestyle="none", marker=marker_of(labels, label), color=colour_of(labels, label), label=word(label)
        )
        for label in labels
    ]
    hollow = Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", color=SOFT, label="predicted wrongly")
    figure.legend(handles=[*marks, hollow], loc="outside lower center", ncols=4)
    return figure
