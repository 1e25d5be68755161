"""How did training go, over the folds? And figure 8: how does accuracy move with a setting?"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import ACCENT, INK, MARKERS, QUALITATIVE, SOFT

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
    figure.supxlabel("epoch", fontsize=9, color=INK)
    figure.supylabel("accuracy %", fontsize=9, color=INK)
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
            yerr=_bars(part),
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
    axes.tick_params(colors=SOFT, labelcolor=INK)
    if note:
        figure.supxlabel("\n".join(textwrap.wrap(note, 96)), fontsize=6, color=SOFT, x=0.02, ha="left")
    return figure


def _bars(points: pd.DataFrame) -> np.ndarray:
    """Return lengths (2, points) of the bars down and up in percent; no accuracy is above 100 %."""
    down, up = 100 * points["std"], np.minimum(100 * points["std"], 100 - 100 * points["mean"])
    return np.array([down, up])
