"""Timeline of one video: probabilities and intensity over seconds, and the faces of the located clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .strips import draw_faces
from .style import ACCENT, GRID, MUTED, TEXT, abbreviate, color_of, display_label

WIDTH, LEFT, RIGHT = 10.0, 0.75, 0.15
MAX_POINTS = 1500
"""A longer video is drawn by the means of so many stretches."""


def timeline_figure(
    frames: pd.DataFrame,
    labels: Sequence[str],
    *,
    title: str,
    rule: str,
    label: str,
    probabilities: Mapping[str, float],
    located: tuple[float, float] | None,
    faces: Sequence[np.ndarray | None],
    several: bool,
) -> Figure:
    """Draw a person's video. ``frames``: columns second, intensity and p_<label>, a line per frame.

    Above the located clip's faces, beside them the probabilities of the whole; below the intensity over time; and where
    ``several`` windows were judged, the probabilities over time, stacked.
    """
    has_map = bool(np.isfinite(frames["intensity"]).any())
    head, gap = 0.6, 0.4
    foot = 0.45 if has_map or several else 0.0
    over, curve = (1.35 if several else 0.0), (0.85 if has_map else 0.0)
    top = max(1.2, 0.2 * len(labels))
    height = head + top + 0.25 + curve + (gap if has_map and several else 0.0) + over + foot
    figure = Figure(figsize=(WIDTH, height))

    def place(left: float, bottom: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, tall / height))

    said = f"{display_label(label, 24)} {100 * probabilities[label]:.0f} %"
    said = f"mostly {said} (mean over time)" if several else said
    figure.text(LEFT / WIDTH, 1 - 0.1 / height, said, va="top", fontsize=13, weight="bold")
    figure.text(
        1 - RIGHT / WIDTH,
        1 - 0.12 / height,
        f"{abbreviate(title, 60)}\n{rule}",
        va="top",
        ha="right",
        fontsize=8,
        color=MUTED,
    )
    upper = height - head - top
    bars = place(LEFT + 0.25, upper, 2.2, top)
    _probability_bars(bars, labels, probabilities)
    if faces and located:
        strip = WIDTH - LEFT - 3.6 - RIGHT
        side = min(strip / len(faces), top)
        shown = place(LEFT + 3.6, upper + (top - side) / 2 - 0.05, side * len(faces), side)
        draw_faces(shown, faces, *located)
        shown.set_xlim(*located)
        shown.add_patch(
            Rectangle(
                (located[0], 0),
                located[1] - located[0],
                1,
                fill=False,
                edgecolor=ACCENT,
                linewidth=3,
                clip_on=False,
                label="_located",
            )
        )
        shown.set_title(f"located clip, {clock(located[0])} to {clock(located[1])}", fontsize=8, color=TEXT, pad=5)
    across = WIDTH - LEFT - RIGHT
    end = float(
        frames["second"].iloc[-1] + (frames["second"].iloc[1] - frames["second"].iloc[0] if len(frames) > 1 else 0.04)
    )
    begin, bottom = float(frames["second"].iloc[0]), upper - 0.25
    drawn = downsample(frames)
    if has_map:
        bottom -= curve
        axes = place(LEFT, bottom, across, curve)
        edges, percent = np.append(drawn["second"], end), 100 * drawn["intensity"].to_numpy()
        axes.stairs(percent, edges, fill=True, color=MUTED, alpha=0.28)
        axes.stairs(percent, edges, color=TEXT, linewidth=1.2, baseline=None, label="_intensity")
        if located:
            axes.axvspan(*located, color=ACCENT, alpha=0.25, linewidth=0)
        axes.set_ylim(0, None)
        axes.set_ylabel("intensity %", fontsize=8)
        _time_axis(axes, begin, end, last=not several)
        bottom -= gap
    if several:
        bottom -= over
        axes = place(LEFT, bottom, across, over)
        _stacked(axes, drawn, labels, end)
        if located:
            axes.axvline(sum(located) / 2, color=ACCENT, linewidth=1.2)
        axes.set_ylabel("probability %", fontsize=8)
        _time_axis(axes, begin, end, last=True)
    return figure


def downsample(frames: pd.DataFrame) -> pd.DataFrame:
    """Return the lines as they are, or the means of MOST_POINTS even stretches of them."""
    if len(frames) <= MAX_POINTS:
        return frames
    group = np.arange(len(frames)) * MAX_POINTS // len(frames)
    means = frames.groupby(group).mean()
    return means.assign(second=frames.groupby(group)["second"].first())


def clock(seconds: float) -> str:
    """Return seconds as a person reads them: 3.25 s, 12:05.2, 1:02:05.

    >>> clock(3.25), clock(725.2), clock(3725)
    ('3.25 s', '12:05.2', '1:02:05')
    """
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{int(minutes)}:{rest:04.1f}"
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{int(rest):02d}"


def _probability_bars(axes: Axes, labels: Sequence[str], probabilities: Mapping[str, float]) -> None:
    values = [100 * probabilities[label] for label in labels]
    axes.barh(range(len(labels)), values, height=0.7, color=[color_of(labels, label) for label in labels])
    for row, value in enumerate(values):
        axes.text(value + 2, row, f"{value:.0f}", va="center", fontsize=7.5, color=MUTED)
    axes.set_yticks(range(len(labels)), [display_label(label, 12) for label in labels], fontsize=8)
    axes.set_xlim(0, 112)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _stacked(axes: Axes, frames: pd.DataFrame, labels: Sequence[str], end: float) -> None:
    edges, below = np.append(frames["second"], end), np.zeros(len(frames))
    for label in labels:
        above = below + 100 * frames[f"p_{label}"].to_numpy()
        axes.stairs(above, edges, baseline=below, fill=True, color=color_of(labels, label), label=label)
        below = above
    axes.set_ylim(0, 100)
    axes.set_facecolor(GRID)


def _time_axis(axes: Axes, begin: float, end: float, *, last: bool) -> None:
    axes.set_xlim(begin, end)
    axes.tick_params(labelsize=8, length=2)
    if end > 90:
        axes.xaxis.set_major_formatter(lambda value, position: clock(value).removesuffix(".0"))
    if last:
        axes.set_xlabel("seconds" if end <= 90 else "minutes:seconds", fontsize=8, labelpad=2)
