"""For whom does it work? Accuracy by subject."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import ACCENT, FAINT, INK

MOST_NAMED = 60
"""With more subjects than this their names are left out; the CSV has them."""


def subjects_figure(subjects: pd.DataFrame, head: str) -> Figure:
    """Draw a column per subject from 0 to its accuracy, best first; a line at the mean over subjects.

    ``subjects``: columns subject, videos, right (both counts over all seeds), accuracy (0..1).
    """
    ordered = subjects.sort_values(["accuracy", "subject"], ascending=[False, True])
    named = len(ordered) <= MOST_NAMED
    figure = Figure(figsize=(max(4.7, min(10.0, 0.9 + 0.19 * len(ordered))), 2.5), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * ordered["accuracy"].to_numpy()
    axes.bar(range(len(ordered)), percent, width=0.78, color="#b4b8c2")
    below = percent < percent.mean() - percent.std()
    for bar, low in zip(axes.patches, below, strict=True):
        if low:
            bar.set_color(ACCENT)
    axes.axhline(percent.mean(), color=INK, linewidth=1.1, linestyle="--")
    axes.set_xticks(range(len(ordered)) if named else [], ordered["subject"] if named else [], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(ordered) - 0.3)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy %")
    axes.set_title(head, fontsize=9)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)
    return figure
