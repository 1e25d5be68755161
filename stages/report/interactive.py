"""Interactive t-SNE plot. The only module that imports Bokeh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.layouts import gridplot
from bokeh.models import ColumnDataSource, HoverTool, Range1d, TapTool
from bokeh.plotting import figure
from bokeh.resources import Resources

from ..plots.style import MARKERS, QUALITATIVE
from .tsne import TSNEResult

SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle",
    "D": "diamond",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "x",
    "p": "hex",
}
SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "p": "⬢"}
GREY = "#858b99"
"""Readable on a light and on a dark page: a canvas does not follow the page's theme."""
TOOLTIP = """
<div style="display: flex; gap: .6em; align-items: center; max-width: 19em; font: 13px system-ui, sans-serif">
  <img src="@face" alt="" width="72" height="72" style="border-radius: 4px">
  <div><b>@label</b>, predicted @predicted_{number}<br><span style="opacity: .75">@shown_id<br>fold @fold</span></div>
</div>
"""


@dataclass(frozen=True)
class Plot:
    """A plot for the page: ``item`` is what BokehJS draws, ``legend`` (sign, colour, label) stands above it as text."""

    item: dict[str, Any]
    legend: list[tuple[str, str, str]]


def tsne_plot(picture: TSNEResult, labels: Sequence[str], faces: Mapping[str, str]) -> Plot:
    """Return the panels of figure 7, linked: what is pointed at or tapped in one is marked in all.

    ``faces``: a data address of a picture by video id; a video without one shows none. Everything that comes from the
    data travels as JSON, and BokehJS escapes it when it shows it.
    """
    points = picture.points
    heads = list(dict.fromkeys(points["head"]))
    columns = _columns(points, heads, labels, faces)
    source = ColumnDataSource(data=dict(columns))
    panels = []
    for number, head in enumerate(heads):
        panel = figure(
            title=head,
            height=300,
            aspect_ratio=1,
            sizing_mode="stretch_width",
            toolbar_location=None,
            tools="",
            x_axis_type=None,
            y_axis_type=None,
            background_fill_alpha=0,
            border_fill_alpha=0,
            outline_line_color=GREY,
            x_range=_range(columns[f"x_{number}"]),
            y_range=_range(columns[f"y_{number}"]),
        )
        panel.title.update(text_color=GREY, text_font_size="11px")  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue] - a figure with a title has a Title
        marks = panel.scatter(
            f"x_{number}",
            f"y_{number}",
            marker="shape",
            size=8,
            color="colour",
            fill_alpha=f"filled_{number}",
            line_width=1.4,
            source=source,
            nonselection_alpha=0.18,
        )
        tooltip = TOOLTIP.replace("{number}", str(number))
        panel.add_tools(
            HoverTool(renderers=[marks], tooltips=tooltip, attachment="vertical", limit=3), TapTool(renderers=[marks])
        )
        panels.append(panel)
    grid = gridplot(panels, ncols=2, sizing_mode="stretch_width", toolbar_location=None)  # pyright: ignore[reportArgumentType,reportCallIssue] - bokeh declares a list of UIElement, which no list of figures is
    legend = [
        (SIGNS[MARKERS[i % len(MARKERS)]], QUALITATIVE[i % len(QUALITATIVE)], label) for i, label in enumerate(labels)
    ]
    return Plot(dict(json_item(grid, ID("tsne"))), legend)


def script() -> str:
    """Return BokehJS itself, to stand in the page: nothing is fetched when it is opened."""
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def _columns(
    points: pd.DataFrame, heads: Sequence[str], labels: Sequence[str], faces: Mapping[str, str]
) -> dict[str, list]:
    """Return one row per video that all heads judged, with the place, prediction and filling of each head's panel."""
    by_head = [points[points["head"] == head].set_index("id") for head in heads]
    shared = [video for video in by_head[0].index if all(video in table.index for table in by_head)]
    first = by_head[0].loc[shared]
    codes = [labels.index(label) for label in first["label"]]
    columns: dict[str, list] = {
        "shown_id": shared, "label": first["label"].tolist(), "fold": first["fold"].tolist(),
        "face": [faces.get(video, "data:,") for video in shared],
        "shape": [SHAPES[MARKERS[code % len(MARKERS)]] for code in codes],
        "colour": [QUALITATIVE[code % len(QUALITATIVE)] for code in codes],
    }  # fmt: skip
    for number, table in enumerate(by_head):
        mine = table.loc[shared]
        columns[f"x_{number}"], columns[f"y_{number}"] = (
            mine["x"].astype(float).tolist(),
            mine["y"].astype(float).tolist(),
        )
        columns[f"predicted_{number}"] = mine["predicted"].tolist()
        columns[f"filled_{number}"] = [0.85 if right else 0.0 for right in mine["correct"]]
    return columns


def _range(values: Sequence[float]) -> Range1d:
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or 1.0
    return Range1d(start=low - margin, end=high + margin)
