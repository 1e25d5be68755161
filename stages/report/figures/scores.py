"""How good is each head, and how much do its folds differ?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import ACCENT, INK, QUALITATIVE, SOFT


def scores_figure(folds: pd.DataFrame, chance: float) -> Figure:
    """Draw a row per head: a pale mark per fold (and seed), a dark one at their mean, a line one deviation to each
    side.

    ``folds``: columns head (in the order to be drawn), fold, seed, war (0..1). ``chance``: accuracy of guessing.
    """
    heads = list(dict.fromkeys(folds["head"]))
    figure = Figure(figsize=(4.7, 0.75 + 0.36 * len(heads)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(100 * chance, color=SOFT, linewidth=1, linestyle=":")
    axes.text(100 * chance, -0.62, " guessing", fontsize=7.5, color=SOFT, va="center")
    for row, head in enumerate(heads):
        scores = 100 * folds.loc[folds["head"] == head, "war"].to_numpy()
        # marks that fall on one spot are moved apart a little, up and down
        lift = _apart(scores)
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
        axes.plot([mean - spread, mean + spread], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot([mean], [row], marker="D", markersize=6, color=ACCENT if row == 0 else INK, label="_mean", zorder=5)
    axes.set_yticks(range(len(heads)), heads)
    axes.set_ylim(len(heads) - 0.4, -0.8)
    axes.set_xlim(min(0, 100 * folds["war"].min()), 101)
    axes.set_xlabel("accuracy (WAR) %")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    return figure


def _apart(scores: np.ndarray) -> np.ndarray:
    """Return a small vertical shift per score, so that equal ones stand above each other around the row."""
    shift = np.zeros(len(scores))
    for value in np.unique(np.round(scores, 6)):
        same = np.flatnonzero(np.isclose(scores, value))
        step = min(0.1, 0.5 / len(same))
        shift[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * step
    return shift
