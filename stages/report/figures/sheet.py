"""How is a contact sheet of aligned faces drawn?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ....cache.records import FrameStatus
from ..sheet import SheetRow
from .style import ACCENT, FAINT, INK, QUALITATIVE, SOFT, short

SIDE, LEFT, HEAD, GAP = 0.92, 1.75, 0.42, 0.24
"""Inches: of a crop, of the names beside them, of the heading, between rows."""
FRAMES = {FrameStatus.MISSING: ACCENT, FrameStatus.INTERPOLATED: QUALITATIVE[4]}


def sheet_figure(rows: Sequence[SheetRow]) -> Figure:
    """Draw a row of crops per video with landmarks as dots, and a coloured frame where no face was detected."""
    columns = max((len(row.tiles) for row in rows), default=1)
    width, height = LEFT + columns * SIDE + 0.1, HEAD + len(rows) * (SIDE + GAP)
    figure = Figure(figsize=(width, height))
    figure.text(
        0.1 / width, 1 - 0.12 / height, "Aligned crops as the encoder sees them", va="top", fontsize=11, weight="bold"
    )
    legend = "dots: landmarks   orange frame: no face found (borrowed place)   light blue frame: interpolated"
    figure.text(1 - 0.1 / width, 1 - 0.15 / height, legend, va="top", ha="right", fontsize=7.5, color=SOFT)
    for number, row in enumerate(rows):
        bottom = height - HEAD - (number + 1) * (SIDE + GAP) + GAP
        figure.text(
            0.1 / width, (bottom + SIDE / 2 + 0.08) / height, row.label, va="center", fontsize=10, weight="bold"
        )
        figure.text(
            0.1 / width, (bottom + SIDE / 2 - 0.12) / height, short(row.id, 26), va="center", fontsize=7.5, color=SOFT
        )
        if row.note:
            figure.text(
                0.1 / width,
                (bottom + SIDE / 2 - 0.3) / height,
                short(row.note, 30),
                va="center",
                fontsize=7,
                color=ACCENT,
            )
        for place, tile in enumerate(row.tiles):
            axes = figure.add_axes(
                ((LEFT + place * SIDE) / width, bottom / height, SIDE * 0.97 / width, SIDE * 0.97 / height)
            )
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(tile.status in FRAMES)
                side.set(color=FRAMES.get(tile.status, INK), linewidth=3)
            axes.set_xlabel(f"frame {tile.frame}", fontsize=6.5, color=SOFT, labelpad=2)
            if tile.crop is None:
                axes.add_patch(Rectangle((0, 0), 1, 1, color=FAINT, transform=axes.transAxes))
                continue
            axes.imshow(tile.crop)
            if tile.landmarks is not None and np.isfinite(tile.landmarks).all():
                axes.plot(
                    *tile.landmarks.T,
                    linestyle="none",
                    marker="o",
                    markersize=2.6,
                    color="#ffffff",
                    markeredgecolor=INK,
                    markeredgewidth=0.5,
                )
            axes.set_xlim(-0.5, tile.crop.shape[1] - 0.5)
            axes.set_ylim(tile.crop.shape[0] - 0.5, -0.5)
    return figure
