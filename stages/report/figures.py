"""How do results look? (the only file that knows matplotlib)

Every function returns a Figure; colours are those of viridis-like maps that survive grey printing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .strip import Strip

matplotlib.use("Agg")
INK, ACCENT = "#1f2430", "#e8590c"


def confusion_figure(counts: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Draw figure 5: rows are true labels, cells show percent of the row and the count behind it.

    ``counts`` (C, C + 1); the last column counts videos without a prediction and is shown when it is not empty.
    """
    shown = counts if counts[:, -1].any() else counts[:, :-1]
    columns = [*labels, "no face"][: shown.shape[1]]
    percent = 100 * shown / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.85 * len(columns), 1.2 + 0.72 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(*shown.shape):
        colour = "white" if percent[i, j] > 55 else INK
        axes.text(j, i, f"{percent[i, j]:.0f} %\n{shown[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10, loc="left")
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def strip_figure(strip: Strip) -> Figure:
    """Draw figure 6: the film strip, under it the activation map, the located clip boxed, the apex marked."""
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3, 1.3]}, sharex=True)
    first, last = strip.clips[0][0], strip.clips[-1][1]
    width = (last - first + 1) / len(strip.pictures)
    for place, picture in enumerate(strip.pictures):
        left = first + place * width
        upper.imshow(picture, extent=(left, left + width * 0.97, 0, 1), aspect="auto")
    begin, end, _ = strip.clips[strip.located]
    upper.add_patch(Rectangle((begin, 0), end - begin + 1, 1, fill=False, edgecolor=ACCENT, linewidth=3, zorder=5))
    upper.set_ylim(0, 1)
    upper.axis("off")
    right = strip.label == strip.predicted
    verdict = f"{strip.label}, predicted {strip.predicted}" + ("" if right else " (wrong)")
    upper.set_title(f"{strip.id}: {verdict}", fontsize=10, loc="left")
    slots = np.arange(first, last + 1)
    lower.imshow(activation_over_slots(strip)[None], extent=(first, last + 1, 0, 1), aspect="auto", cmap="YlOrRd", vmin=0)
    if strip.apex_slot is not None:
        lower.axvline(strip.apex_slot, color=INK, linewidth=2)
        lower.text(strip.apex_slot, 1.02, "apex", ha="center", va="bottom", fontsize=8)
    lower.set_yticks([])
    lower.set_xlim(slots[0], slots[-1] + 1)
    lower.set_xlabel("slot of 105 (the box is the located clip; the darker, the more emotion)", fontsize=8)
    lower.tick_params(labelsize=8)
    return figure


def activation_over_slots(strip: Strip) -> np.ndarray:
    """Return the intensity at every slot of the view: the mean over the sub-videos that cover it."""
    first, last = strip.clips[0][0], strip.clips[-1][1]
    total, covered = np.zeros(last - first + 1), np.zeros(last - first + 1)
    for begin, end, share in strip.clips:
        total[begin - first : end - first + 1] += share
        covered[begin - first : end - first + 1] += 1
    return total / covered


def png(figure: Figure, dpi: int = 130) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
