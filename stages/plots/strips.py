"""Film strips and contact sheets of aligned faces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...cache.features import FrameStatus
from .style import ACCENT, CMAP_INTENSITY, GRID, MUTED, QUALITATIVE, TEXT, abbreviate

WIDTH, LEFT, RIGHT = 10.0, 0.62, 0.12
"""Inches: of the figure, and of the margins beside the strip."""


def filmstrip_figure(strip: Filmstrip) -> Figure:
    """Draw the faces over time as squares, under them the activation map as a band and as steps.

    The located clip is boxed over faces and map; a triangle marks the apex. Times are seconds of the video.
    """
    across = WIDTH - LEFT - RIGHT
    face = across / len(strip.faces)
    band, steps, foot, head = 0.13, 0.5, 0.44, 0.56
    height = head + face + band + steps + 0.06 + foot
    figure = Figure(figsize=(WIDTH, height))

    def place(bottom: float, tall: float) -> Axes:
        return figure.add_axes((LEFT / WIDTH, bottom / height, across / WIDTH, tall / height))

    lower, middle, upper = place(foot, steps), place(foot + steps + 0.06, band), place(foot + steps + band + 0.06, face)
    draw_faces(upper, strip.faces, strip.begin, strip.end)
    over_time = intensity_over_time(strip.clips)
    edges = np.append(over_time["begin"], over_time["end"].iloc[-1])
    shares = over_time["intensity"].to_numpy()
    middle.pcolormesh(
        edges, [0, 1], shares[None], cmap=CMAP_INTENSITY, vmin=0, vmax=max(shares.max(), 2 / len(strip.clips))
    )
    middle.axis("off")
    draw_steps(lower, edges, 100 * shares, 100 / len(strip.clips))
    lower.set_ylabel("intensity %", fontsize=8)
    lower.set_xlabel("seconds", labelpad=1)
    begin, end, _ = strip.clips[strip.located]
    upper.add_patch(
        Rectangle(
            (begin, 0),
            end - begin,
            1,
            fill=False,
            edgecolor=ACCENT,
            linewidth=3,
            zorder=5,
            clip_on=False,
            label="_located",
        )
    )
    lower.axvspan(begin, end, color=ACCENT, alpha=0.16, linewidth=0)
    for axes in (upper, middle, lower):
        axes.set_xlim(strip.begin, strip.end)
    if strip.apex is not None and strip.begin <= strip.apex <= strip.end:
        upper.plot([strip.apex], [1.17], marker="v", color=TEXT, markersize=7, clip_on=False, label="_apex")
        lower.axvline(strip.apex, color=TEXT, linewidth=1.2, linestyle=(0, (3, 2)))
        side = "right" if strip.apex > (strip.begin + strip.end) / 2 else "left"
        gap = (strip.end - strip.begin) * 0.008 * (-1 if side == "right" else 1)
        upper.text(strip.apex + gap, 1.17, "apex", ha=side, va="center", fontsize=8)
    verdict = "right" if strip.correct else f"wrong: it is {strip.label}"
    figure.text(
        LEFT / WIDTH,
        1 - 0.08 / height,
        f"{strip.predicted} {100 * strip.probability:.0f} %, {verdict}",
        va="top",
        fontsize=11,
        weight="bold",
    )
    figure.text(
        1 - RIGHT / WIDTH, 1 - 0.1 / height, abbreviate(strip.id, 60), va="top", ha="right", fontsize=8, color=MUTED
    )
    return figure


def draw_faces(axes: Axes, faces: Sequence[np.ndarray | None], begin: float, end: float) -> None:
    """Put the faces side by side between two moments, a grey field for None; the caller makes them square."""
    width = (end - begin) / len(faces)
    for number, face in enumerate(faces):
        left = begin + number * width
        if face is None:
            axes.add_patch(Rectangle((left + 0.02 * width, 0.02), 0.96 * width, 0.96, color=GRID))
        else:
            axes.imshow(face, extent=(left + 0.015 * width, left + 0.985 * width, 0.015, 0.985), aspect="auto")
    axes.set_ylim(0, 1)
    axes.axis("off")


def draw_steps(axes: Axes, edges: np.ndarray, percent: np.ndarray, even: float) -> None:
    """Draw values between edges as a filled step line over a dotted line at the even share."""
    axes.stairs(percent, edges, fill=True, color=MUTED, alpha=0.28)
    axes.stairs(percent, edges, color=TEXT, linewidth=1.3, baseline=None)
    axes.axhline(even, color=MUTED, linewidth=0.9, linestyle=":")
    axes.set_ylim(0, max(percent.max() * 1.12, 2 * even))
    axes.yaxis.set_major_locator(_few_ticks())
    axes.tick_params(labelsize=8, length=2)


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=2, integer=True)


SHEET_SIDE, SHEET_LEFT, SHEET_HEAD, SHEET_GAP = 0.92, 1.75, 0.42, 0.24
"""Inches: of a crop, of the names beside them, of the heading, between rows."""
STATUS_COLORS = {FrameStatus.MISSING: ACCENT, FrameStatus.INTERPOLATED: QUALITATIVE[4]}


def contact_sheet_figure(rows: Sequence[ContactSheetRow]) -> Figure:
    """Draw a row of crops per video with landmarks as dots, and a coloured frame where no face was detected."""
    columns = max((len(row.tiles) for row in rows), default=1)
    width, height = SHEET_LEFT + columns * SHEET_SIDE + 0.1, SHEET_HEAD + len(rows) * (SHEET_SIDE + SHEET_GAP)
    figure = Figure(figsize=(width, height))
    figure.text(
        0.1 / width, 1 - 0.12 / height, "Aligned crops as the encoder sees them", va="top", fontsize=11, weight="bold"
    )
    legend = "dots: landmarks   orange frame: no face found (borrowed place)   light blue frame: interpolated"
    figure.text(1 - 0.1 / width, 1 - 0.15 / height, legend, va="top", ha="right", fontsize=7.5, color=MUTED)
    for number, row in enumerate(rows):
        bottom = height - SHEET_HEAD - (number + 1) * (SHEET_SIDE + SHEET_GAP) + SHEET_GAP
        figure.text(
            0.1 / width, (bottom + SHEET_SIDE / 2 + 0.08) / height, row.label, va="center", fontsize=10, weight="bold"
        )
        figure.text(
            0.1 / width,
            (bottom + SHEET_SIDE / 2 - 0.12) / height,
            abbreviate(row.id, 26),
            va="center",
            fontsize=7.5,
            color=MUTED,
        )
        if row.note:
            figure.text(
                0.1 / width,
                (bottom + SHEET_SIDE / 2 - 0.3) / height,
                abbreviate(row.note, 30),
                va="center",
                fontsize=7,
                color=ACCENT,
            )
        for place, tile in enumerate(row.tiles):
            axes = figure.add_axes(
                (
                    (SHEET_LEFT + place * SHEET_SIDE) / width,
                    bottom / height,
                    SHEET_SIDE * 0.97 / width,
                    SHEET_SIDE * 0.97 / height,
                )
            )
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(tile.status in STATUS_COLORS)
                side.set(color=STATUS_COLORS.get(tile.status, TEXT), linewidth=3)
            axes.set_xlabel(f"frame {tile.frame}", fontsize=6.5, color=MUTED, labelpad=2)
            if tile.crop is None:
                axes.add_patch(Rectangle((0, 0), 1, 1, color=GRID, transform=axes.transAxes))
                continue
            axes.imshow(tile.crop)
            if tile.landmarks is not None and np.isfinite(tile.landmarks).all():
                axes.plot(
                    *tile.landmarks.T,
                    linestyle="none",
                    marker="o",
                    markersize=2.6,
                    color="#ffffff",
                    markeredgecolor=TEXT,
                    markeredgewidth=0.5,
                )
            axes.set_xlim(-0.5, tile.crop.shape[1] - 0.5)
            axes.set_ylim(tile.crop.shape[0] - 0.5, -0.5)
    return figure


@dataclass(frozen=True)
class Filmstrip:
    """A tested video ready to be drawn.

    faces: SHOWN pictures (SIDE, SIDE, 3) RGB evenly spread over the test view, None where the video could not be read.
    ``begin`` and ``end``: seconds that the view covers. ``clips``: begin and end in seconds of each sub-video and its
    intensity in the map of the predicted label, which sum to one. ``located``: index of the clip the head points at.
    ``apex``: second of the strongest expression, None where it is not known or outside the 105 slots.
    """

    id: str
    label: str
    predicted: str
    probability: float
    faces: list[np.ndarray | None]
    begin: float
    end: float
    clips: list[tuple[float, float, float]]
    located: int
    apex: float | None
    apex_hit: bool | None

    @property
    def correct(self) -> bool:
        return self.label == self.predicted

    @property
    def peak_ratio(self) -> float:
        """How much more the located clip weighs than an even share: 1 for a flat map, n for one clip alone."""
        return self.clips[self.located][2] * len(self.clips)


def intensity_over_time(clips: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Return columns begin, end (seconds) and intensity: over each stretch the mean of the clips that cover it."""
    edges = np.unique(np.round([edge for begin, end, _ in clips for edge in (begin, end)], 9))
    rows = []
    for begin, end in itertools.pairwise(edges):
        covering = [share for first, last, share in clips if first <= begin + 1e-9 and last >= end - 1e-9]
        if covering:
            rows.append({"begin": begin, "end": end, "intensity": float(np.mean(covering))})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class CropTile:
    """One crop as the encoder saw it: uint8 (S, S, 3) RGB or None, its landmarks (5, 2) in the crop or None, its
    status."""

    frame: int
    crop: np.ndarray | None
    landmarks: np.ndarray | None
    status: FrameStatus


@dataclass(frozen=True)
class ContactSheetRow:
    """A video of the sheet; ``note`` says what was wrong with it, '' for nothing."""

    id: str
    label: str
    note: str
    tiles: list[CropTile]
