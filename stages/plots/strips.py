"""Filmstrips of the report and contact sheets of aligned crops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ...cache.features import FrameStatus
from .style import ACCENT, CMAP_INTENSITY, GRID, MUTED, STATUS_COLORS, TEXT, abbreviate, add_axes_inches

# lengths in inches
FILMSTRIP_WIDTH = 10.0
LEFT_MARGIN, RIGHT_MARGIN = 0.62, 0.12
TILE_SIDE = 0.92
"""Side of a crop on a contact sheet."""
SHEET_LEFT_MARGIN = 1.75
"""Room for the names of the videos."""
SHEET_TITLE_HEIGHT = 0.42
SHEET_ROW_GAP = 0.24


@dataclass(frozen=True)
class Filmstrip:
    """A test video with its prediction, ready to plot.

    ``faces``: uint8 (S, S, 3) RGB crops, evenly spread over the test view; None for frames that could not be read.
    ``begin`` and ``end``: seconds that the view covers. ``clips``: begin and end in seconds and intensity of each clip, in
    the map of the predicted label; intensities sum to 1. ``located_index``: the located clip, from 0. ``apex``: time of the
    apex frame in seconds; None if unknown or outside the 105 slots. ``apex_hit``: whether the located clip holds it.
    """

    id: str
    label: str
    predicted: str
    probability: float
    faces: list[np.ndarray | None]
    begin: float
    end: float
    clips: list[tuple[float, float, float]]
    located_index: int
    apex: float | None
    apex_hit: bool | None

    @property
    def correct(self) -> bool:
        return self.label == self.predicted

    @property
    def peak_ratio(self) -> float:
        """Intensity of the located clip over the uniform 1 / n: 1 for a flat map, n if it has all the weight."""
        return self.clips[self.located_index][2] * len(self.clips)


@dataclass(frozen=True)
class CropTile:
    """A crop as the encoder gets it: uint8 (S, S, 3) RGB or None if unreadable, and landmarks (5, 2) in its pixels."""

    frame: int
    crop: np.ndarray | None
    landmarks: np.ndarray | None
    status: FrameStatus


@dataclass(frozen=True)
class ContactSheetRow:
    """A video of a contact sheet; ``note`` is its problem, '' for none."""

    id: str
    label: str
    note: str
    tiles: list[CropTile]


def intensity_over_time(clips: Sequence[tuple[float, float, float]]) -> pd.DataFrame:
    """Return columns begin, end (seconds) and intensity: the mean of the clips that cover each interval."""
    edges = np.unique(np.round([edge for begin, end, _ in clips for edge in (begin, end)], 9))
    rows = []
    for begin, end in itertools.pairwise(edges):
        covering = [weight for first, last, weight in clips if first <= begin + 1e-9 and last >= end - 1e-9]
        if covering:
            rows.append({"begin": begin, "end": end, "intensity": float(np.mean(covering))})
    return pd.DataFrame(rows)


def filmstrip_figure(strip: Filmstrip) -> Figure:
    """Plot square faces over time, and under them the activation map as a heat map and as steps.

    A box marks the located clip in both, a triangle the apex. Times are seconds of the video.
    """
    width = FILMSTRIP_WIDTH - LEFT_MARGIN - RIGHT_MARGIN
    face_height, map_height, steps_height = width / len(strip.faces), 0.13, 0.5
    title_height, axis_height, gap = 0.56, 0.44, 0.06
    height = title_height + face_height + map_height + steps_height + gap + axis_height
    figure = Figure(figsize=(FILMSTRIP_WIDTH, height))
    lower = add_axes_inches(figure, LEFT_MARGIN, axis_height, width, steps_height)
    middle = add_axes_inches(figure, LEFT_MARGIN, axis_height + steps_height + gap, width, map_height)
    upper = add_axes_inches(figure, LEFT_MARGIN, axis_height + steps_height + map_height + gap, width, face_height)

    plot_faces(upper, strip.faces, strip.begin, strip.end)
    over_time, uniform = intensity_over_time(strip.clips), 1 / len(strip.clips)
    edges, intensity = np.append(over_time["begin"], over_time["end"].iloc[-1]), over_time["intensity"].to_numpy()
    middle.pcolormesh(
        edges, [0, 1], intensity[None], cmap=CMAP_INTENSITY, vmin=0, vmax=max(intensity.max(), 2 * uniform)
    )
    middle.axis("off")
    plot_steps(lower, edges, 100 * intensity)
    lower.axhline(100 * uniform, color=MUTED, linewidth=0.9, linestyle=":")
    lower.set_ylim(0, 100 * max(intensity.max() * 1.12, 2 * uniform))
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
    lower.tick_params(labelsize=8, length=2)
    lower.set_ylabel("intensity %", fontsize=8)
    lower.set_xlabel("seconds", labelpad=1)

    begin, end, _ = strip.clips[strip.located_index]
    plot_located_box(upper, begin, end)
    lower.axvspan(begin, end, color=ACCENT, alpha=0.16, linewidth=0)
    for axes in (upper, middle, lower):
        axes.set_xlim(strip.begin, strip.end)
    if strip.apex is not None and strip.begin <= strip.apex <= strip.end:
        upper.plot([strip.apex], [1.17], marker="v", color=TEXT, markersize=7, clip_on=False, label="_apex")
        lower.axvline(strip.apex, color=TEXT, linewidth=1.2, linestyle=(0, (3, 2)))
        side = "right" if strip.apex > (strip.begin + strip.end) / 2 else "left"
        offset = (strip.end - strip.begin) * 0.008 * (-1 if side == "right" else 1)
        upper.text(strip.apex + offset, 1.17, "apex", ha=side, va="center", fontsize=8)

    title = f"{strip.predicted} {100 * strip.probability:.0f} %"
    title += ", correct" if strip.correct else f", wrong: the label is {strip.label}"
    figure.text(LEFT_MARGIN / FILMSTRIP_WIDTH, 1 - 0.08 / height, title, va="top", fontsize=11, weight="bold")
    top = 1 - 0.1 / height
    figure.text(
        1 - RIGHT_MARGIN / FILMSTRIP_WIDTH, top, abbreviate(strip.id, 60), va="top", ha="right", fontsize=8, color=MUTED
    )
    return figure


def plot_faces(axes: Axes, faces: Sequence[np.ndarray | None], begin: float, end: float) -> None:
    """Plot faces next to each other from ``begin`` to ``end``; None is a gray square. The axes must make them square."""
    width = (end - begin) / len(faces)
    for i, face in enumerate(faces):
        left = begin + i * width
        if face is None:
            axes.add_patch(Rectangle((left + 0.02 * width, 0.02), 0.96 * width, 0.96, color=GRID))
        else:
            axes.imshow(face, extent=(left + 0.015 * width, left + 0.985 * width, 0.015, 0.985), aspect="auto")
    axes.set_xlim(begin, end)
    axes.set_ylim(0, 1)
    axes.axis("off")


def plot_located_box(axes: Axes, begin: float, end: float) -> None:
    """Frame the faces of the located clip."""
    style = {"fill": False, "edgecolor": ACCENT, "linewidth": 3, "zorder": 5, "clip_on": False}
    axes.add_patch(Rectangle((begin, 0), end - begin, 1, label="_located", **style))


def plot_steps(axes: Axes, edges: np.ndarray, percent: np.ndarray) -> None:
    """Plot values between edges as a filled step function."""
    axes.stairs(percent, edges, fill=True, color=MUTED, alpha=0.28)
    axes.stairs(percent, edges, color=TEXT, linewidth=1.3, baseline=None, label="_intensity")


def contact_sheet_figure(rows: Sequence[ContactSheetRow]) -> Figure:
    """Plot a row of crops per video, landmarks as dots; a colored border marks crops without a detected face."""
    columns = max((len(row.tiles) for row in rows), default=1)
    width, height = (
        SHEET_LEFT_MARGIN + columns * TILE_SIDE + 0.1,
        SHEET_TITLE_HEIGHT + len(rows) * (TILE_SIDE + SHEET_ROW_GAP),
    )
    figure = Figure(figsize=(width, height))
    left, top = 0.1 / width, 1 - 0.12 / height
    figure.text(left, top, "Aligned crops, as the encoder gets them", va="top", fontsize=11, weight="bold")
    legend = "dots: landmarks   orange border: no face detected   light blue border: interpolated"
    figure.text(1 - left, top, legend, va="top", ha="right", fontsize=7.5, color=MUTED)
    for i, row in enumerate(rows):
        bottom = height - (i + 1) * (TILE_SIDE + SHEET_ROW_GAP) - SHEET_TITLE_HEIGHT + SHEET_ROW_GAP
        center = bottom + TILE_SIDE / 2
        figure.text(left, (center + 0.08) / height, row.label, va="center", fontsize=10, weight="bold")
        figure.text(left, (center - 0.12) / height, abbreviate(row.id, 26), va="center", fontsize=7.5, color=MUTED)
        figure.text(left, (center - 0.3) / height, abbreviate(row.note, 30), va="center", fontsize=7, color=ACCENT)
        for j, tile in enumerate(row.tiles):
            plot_tile(
                add_axes_inches(figure, SHEET_LEFT_MARGIN + j * TILE_SIDE, bottom, TILE_SIDE * 0.97, TILE_SIDE * 0.97),
                tile,
            )
    return figure


def plot_tile(axes: Axes, tile: CropTile) -> None:
    """Plot a crop with its landmarks and a border in the color of its status."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(tile.status in (FrameStatus.MISSING, FrameStatus.INTERPOLATED))
        side.set(color=STATUS_COLORS[tile.status], linewidth=3)
    axes.set_xlabel(f"frame {tile.frame}", fontsize=6.5, color=MUTED, labelpad=2)
    if tile.crop is None:
        axes.add_patch(Rectangle((0, 0), 1, 1, color=GRID, transform=axes.transAxes))
        return
    axes.imshow(tile.crop)
    if tile.landmarks is not None and np.isfinite(tile.landmarks).all():
        style = {"linestyle": "none", "marker": "o", "markersize": 2.6, "markeredgewidth": 0.5}
        axes.plot(*tile.landmarks.T, color="#ffffff", markeredgecolor=TEXT, **style)
    axes.set_xlim(-0.5, tile.crop.shape[1] - 0.5)
    axes.set_ylim(tile.crop.shape[0] - 0.5, -0.5)
