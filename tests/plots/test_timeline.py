"""The timeline shows the numbers of its table; a long one shows means."""

import numpy as np
import pandas as pd
import pytest

from ceflpipe.stages.plots.timeline import MAX_POINTS, downsample, timeline_figure

LABELS = ("anger", "fear", "joy")


@pytest.mark.parametrize("frames", [80, 900, 4000])
def test_the_timeline_shows_the_numbers(frames):
    rng = np.random.default_rng(frames)
    columns = dict(zip((f"p_{label}" for label in LABELS), rng.dirichlet(np.ones(3), frames).T, strict=True))
    table = pd.DataFrame({"time": np.arange(frames) / 20, "intensity": rng.random(frames), **columns})
    probabilities = dict(zip(LABELS, (0.2, 0.7, 0.1), strict=True))
    located_time, stacked = (1.5, 2.25), frames > 105
    figure = timeline_figure(
        table, LABELS, title="v", subtitle="", label="fear", probabilities=probabilities, located_time=located_time,
        faces=[None] * 8, stacked=stacked,
    )  # fmt: skip
    figure.canvas.draw()
    steps = {patch.get_label(): patch for axes in figure.axes for patch in axes.patches if hasattr(patch, "get_data")}
    points = downsample(table)
    assert len(points) == min(frames, MAX_POINTS)
    np.testing.assert_allclose(steps["_intensity"].get_data().values, 100 * points["intensity"])
    bars = [patch for patch in figure.axes[0].patches if not hasattr(patch, "get_data")]
    assert [bar.get_width() for bar in bars] == pytest.approx([100 * probabilities[label] for label in LABELS])
    (box,) = [patch for axes in figure.axes for patch in axes.patches if patch.get_label() == "_located"]
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx(located_time)
    assert set(LABELS) & set(steps) == (set(LABELS) if stacked else set())
    below = np.zeros(len(points))
    for label in LABELS if stacked else ():
        data = steps[label].get_data()
        np.testing.assert_allclose(data.values - data.baseline, 100 * points[f"p_{label}"], atol=1e-9)
        np.testing.assert_allclose(data.baseline, below, atol=1e-9)
        below = data.values
    if stacked:
        np.testing.assert_allclose(below, 100, atol=1e-3)


def test_a_long_timeline_shows_means():
    table = pd.DataFrame({"time": np.arange(90_000) / 25, "intensity": np.arange(90_000.0)})
    means = downsample(table)
    assert len(means) == 1500
    assert means["intensity"].iloc[0] == pytest.approx(np.arange(60).mean())
    assert means["time"].iloc[1] == pytest.approx(60 / 25)
