"""Timeline of a prediction: probabilities and intensity over time, and the faces of the located clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .strips import plot_faces, plot_located_box, plot_steps
from .style import ACCENT, GRID, MUTED, TEXT, abbreviate, add_axes_inches, color_of, display_label

# lengths in inches
FIGURE_WIDTH = 10.0
LEFT_MARGIN, RIGHT_MARGIN = 0.75, 0.15
TITLE_HEIGHT = 0.6
INTENSITY_HEIGHT = 0.85
"""Height of the panel with the intensity."""
STACKED_HEIGHT = 1.35
"""Height of the panel with the stacked probabilities."""
PANEL_GAP = 0.4
TIME_AXIS_HEIGHT = 0.45
MAX_POINTS = 1500
"""A longer video is plotted as the means of this many intervals."""


def timeline_figure(
    frames: pd.DataFrame,
    labels: Sequence[str],
    *,
    title: str,
    subtitle: str,
    label: str,
    probabilities: Mapping[str, float],
    located_time: tuple[float, float] | None,
    faces: Sequence[np.ndarray | None],
    stacked: bool,
) -> Figure:
    """Plot the prediction of one face track. ``frames``: columns time (seconds), intensity and p_<label>, a row per frame.

    At the top the mean ``probabilities`` (0..1) and the ``faces`` of the clip at ``located_time`` (begin and end in seconds);
    below them intensity over time, if the head has it; with ``stacked`` also the probabilities over time.
    """
    has_intensity = bool(np.isfinite(frames["intensity"]).any())
    top = max(1.2, 0.2 * len(labels))
    panels = INTENSITY_HEIGHT * has_intensity + PANEL_GAP * (has_intensity and stacked) + STACKED_HEIGHT * stacked
    height = TITLE_HEIGHT + top + 0.25 + panels + TIME_AXIS_HEIGHT * (has_intensity or stacked)
    figure, width = Figure(figsize=(FIGURE_WIDTH, height)), FIGURE_WIDTH - LEFT_MARGIN - RIGHT_MARGIN

    heading = f"{display_label(label, 24)} {100 * probabilities[label]:.0f} %" + (", mean over time" if stacked else "")
    figure.text(LEFT_MARGIN / FIGURE_WIDTH, 1 - 0.1 / height, heading, va="top", fontsize=13, weight="bold")
    note, style = f"{abbreviate(title, 60)}\n{subtitle}", {"va": "top", "ha": "right", "fontsize": 8, "color": MUTED}
    figure.text(1 - RIGHT_MARGIN / FIGURE_WIDTH, 1 - 0.12 / height, note, **style)

    bottom = height - TITLE_HEIGHT - top
    _plot_probabilities(add_axes_inches(figure, LEFT_MARGIN + 0.25, bottom, 2.2, top), labels, probabilities)
    if faces and located_time:
        left = LEFT_MARGIN + 3.6
        side = min((FIGURE_WIDTH - left - RIGHT_MARGIN) / len(faces), top)
        axes = add_axes_inches(figure, left, bottom + (top - side) / 2 - 0.05, side * len(faces), side)
        plot_faces(axes, faces, *located_time)
        plot_located_box(axes, *located_time)
        span = " to ".join(map(format_time, located_time))
        axes.set_title(f"located clip, {span}", fontsize=8, color=TEXT, pad=5)

    times = frames["time"].to_numpy()
    begin, end = float(times[0]), float(times[-1] + (times[1] - times[0] if len(times) > 1 else 0.04))
    points = downsample(frames)
    edges = np.append(points["time"], end)
    bottom -= 0.25
    if has_intensity:
        bottom -= INTENSITY_HEIGHT
        axes = add_axes_inches(figure, LEFT_MARGIN, bottom, width, INTENSITY_HEIGHT)
        plot_steps(axes, edges, 100 * points["intensity"].to_numpy())
        if located_time:
            axes.axvspan(*located_time, color=ACCENT, alpha=0.25, linewidth=0)
        axes.set_ylim(0, None)
        axes.set_ylabel("intensity %", fontsize=8)
        _format_time_axis(axes, begin, end, has_label=not stacked)
        bottom -= PANEL_GAP
    if stacked:
        axes = add_axes_inches(figure, LEFT_MARGIN, bottom - STACKED_HEIGHT, width, STACKED_HEIGHT)
        _plot_stacked(axes, points, labels, edges)
        if located_time:
            axes.axvline(sum(located_time) / 2, color=ACCENT, linewidth=1.2)
        axes.set_ylabel("probability %", fontsize=8)
        _format_time_axis(axes, begin, end, has_label=True)
    return figure


def downsample(frames: pd.DataFrame) -> pd.DataFrame:
    """Return the rows unchanged, or the means of MAX_POINTS equal intervals if there are more."""
    if len(frames) <= MAX_POINTS:
        return frames
    group = np.arange(len(frames)) * MAX_POINTS // len(frames)
    groups = frames.groupby(group)
    return groups.mean().assign(time=groups["time"].first())


def format_time(seconds: float) -> str:
    """Return a time for a person to read.

    >>> format_time(3.25), format_time(725.2), format_time(3725)
    ('3.25 s', '12:05.2', '1:02:05')
    """
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{int(minutes)}:{rest:04.1f}"
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{int(rest):02d}"


def _plot_probabilities(axes: Axes, labels: Sequence[str], probabilities: Mapping[str, float]) -> None:
    rows, percent = range(len(labels)), [100 * probabilities[label] for label in labels]
    axes.barh(rows, percent, height=0.7, color=[color_of(labels, label) for label in labels])
    for row, value in zip(rows, percent, strict=True):
        axes.text(value + 2, row, f"{value:.0f}", va="center", fontsize=7.5, color=MUTED)
    axes.set_yticks(rows, [display_label(label, 12) for label in labels], fontsize=8)
    axes.set_xlim(0, 112)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _plot_stacked(axes: Axes, frames: pd.DataFrame, labels: Sequence[str], edges: np.ndarray) -> None:
    below = np.zeros(len(frames))
    for label in labels:
        above = below + 100 * frames[f"p_{label}"].to_numpy()
        axes.stairs(above, edges, baseline=below, fill=True, color=color_of(labels, label), label=label)
        below = above
    axes.set_ylim(0, 100)
    axes.set_facecolor(GRID)


def _format_time_axis(axes: Axes, begin: float, end: float, *, has_label: bool) -> None:
    axes.set_xlim(begin, end)
    axes.tick_params(labelsize=8, length=2)
    if end > 90:
        axes.xaxis.set_major_formatter(lambda value, position: format_time(value).removesuffix(".0"))
    if has_label:
        axes.set_xlabel("seconds" if end <= 90 else "minutes:seconds", fontsize=8, labelpad=2)
