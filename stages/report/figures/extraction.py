"""What did stage one find in the frames?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import ACCENT, QUALITATIVE, SOFT, word

SHOWN = {"detected": QUALITATIVE[0], "interpolated": QUALITATIVE[4], "given": SOFT, "missing": ACCENT}
"""Frame statuses in the order of the bars, and their colours."""


def extraction_figure(shares: pd.DataFrame) -> Figure:
    """Draw a bar per label, cut by frame status. ``shares``: columns label, frames, and a share (0..1) per status."""
    figure = Figure(figsize=(4.7, 0.95 + 0.3 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    left = pd.Series(0.0, index=shares.index)
    for status, colour in SHOWN.items():
        if shares[status].any():
            axes.barh(
                range(len(shares)), 100 * shares[status], left=100 * left, height=0.72, color=colour, label=status
            )
            left += shares[status]
    axes.set_yticks(
        range(len(shares)),
        [f"{word(label)} ({frames:,})" for label, frames in zip(shares["label"], shares["frames"], strict=True)],
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("frames %")
    axes.tick_params(length=0)
    figure.legend(loc="outside upper right", ncols=4)
    return figure
