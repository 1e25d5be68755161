"""Figure 6: how is a film strip drawn, with its activation map, located clip and apex?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..strip import Strip, intensity_over_time
from .style import ACCENT, FAINT, INK, INTENSITY, SOFT, short

WIDTH, LEFT, RIGHT = 10.0, 0.62, 0.12
"""Inches: of the figure, and of the margins beside the strip."""


def strip_figure(strip: Strip) -> Figure:
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
    middle.pcolormesh(edges, [0, 1], shares[None], cmap=INTENSITY, vmin=0, vmax=max(shares.max(), 2 / len(strip.clips)))
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
        upper.plot([strip.apex], [1.17], marker="v", color=INK, markersize=7, clip_on=False, label="_apex")
        lower.axvline(strip.apex, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
        side = "right" if strip.apex > (strip.begin + strip.end) / 2 else "left"
        gap = (strip.end - strip.begin) * 0.008 * (-1 if side == "right" else 1)
        upper.text(strip.apex + gap, 1.17, "apex", ha=side, va="center", fontsize=8)
    verdict = "right" if strip.right else f"wrong: it is {strip.label}"
    figure.text(
        LEFT / WIDTH,
        1 - 0.08 / height,
        f"{strip.predicted} {100 * strip.probability:.0f} %, {verdict}",
        va="top",
        fontsize=11,
        weight="bold",
    )
    figure.text(1 - RIGHT / WIDTH, 1 - 0.1 / height, short(strip.id, 60), va="top", ha="right", fontsize=8, color=SOFT)
    return figure


def draw_faces(axes: Axes, faces: Sequence[np.ndarray | None], begin: float, end: float) -> None:
    """Put the faces side by side between two moments, a grey field for None; the caller makes them square."""
    width = (end - begin) / len(faces)
    for number, face in enumerate(faces):
        left = begin + number * width
        if face is None:
            axes.add_patch(Rectangle((left + 0.02 * width, 0.02), 0.96 * width, 0.96, color=FAINT))
        else:
            axes.imshow(face, extent=(left + 0.015 * width, left + 0.985 * width, 0.015, 0.985), aspect="auto")
    axes.set_ylim(0, 1)
    axes.axis("off")


def draw_steps(axes: Axes, edges: np.ndarray, percent: np.ndarray, even: float) -> None:
    """Draw values between edges as a filled step line over a dotted line at the even share."""
    axes.stairs(percent, edges, fill=True, color=SOFT, alpha=0.28)
    axes.stairs(percent, edges, color=INK, linewidth=1.3, baseline=None)
    axes.axhline(even, color=SOFT, linewidth=0.9, linestyle=":")
    axes.set_ylim(0, max(percent.max() * 1.12, 2 * even))
    axes.yaxis.set_major_locator(_few_ticks())
    axes.tick_params(labelsize=8, length=2)


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=2, integer=True)
