"""Figures as SVG and PNG: escaped text, tooltips, colors of the theme, equal bytes."""

import html
import re

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ceflpipe.stages.plots.charts import confusion_figure, recall_figure, tsne_figure
from ceflpipe.stages.plots.style import png, svg

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}"


def test_labels_are_never_markup_or_formulas():
    counts = np.array([[1, 0, 0], [0, 1, 0]])
    text = svg(confusion_figure(counts, [HOSTILE, "b"], HOSTILE))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert png(confusion_figure(counts, [HOSTILE, "b"], HOSTILE)).startswith(b"\x89PNG")


def test_every_marker_has_the_tooltip_of_its_gid():
    points = [("r", i, -i, "ab"[i % 2], i != 2) for i in range(5)]
    figure = tsne_figure(pd.DataFrame(points, columns=["run", "x", "y", "label", "correct"]), ["a", "b"])
    text = svg(figure, {f"point-{i}": f"{HOSTILE} {i} #1f2430" for i in range(5)})
    titles = re.findall(r'<g id="point-(\d)"><title>(.*?)</title>', text)
    assert titles[-1][0] == "2"  # the wrong prediction is drawn last, over the others
    assert sorted((gid, html.unescape(title)) for gid, title in titles) == [
        (str(i), f"{HOSTILE} {i} #1f2430") for i in range(5)
    ]
    assert text.count("<title>") == 5
    assert "<script>" not in text
    assert "<title>" not in svg(figure)


def test_the_same_figure_has_the_same_bytes_and_the_colors_of_the_theme():
    def figure():
        return recall_figure(pd.DataFrame({"run": ["x", "x"], "label": ["a", "b"], "recall": [0.5, np.nan]}))

    assert svg(figure()) == svg(figure())
    assert png(figure()) == png(figure())
    assert "var(--ink)" in svg(figure())
    assert "#1f2430" not in svg(figure())
    assert any(isinstance(line, Line2D) for line in figure().axes[0].lines)
