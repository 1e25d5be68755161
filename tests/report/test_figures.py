"""The report's figures show what the numbers say: every mark is compared with data computed here in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import FPS, frame_of, make_world, train
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ceflpipe.stages.heads.clip_sampling import slot_to_frame
from ceflpipe.stages.plots.charts import (
    confusion_figure,
    curves_figure,
    extraction_figure,
    recall_figure,
    scatter_figure,
    scores_figure,
    subjects_figure,
    sweep_figure,
)
from ceflpipe.stages.plots.strips import filmstrip_figure
from ceflpipe.stages.plots.style import png, svg
from ceflpipe.stages.report import tables as scores
from ceflpipe.stages.report.extraction_stats import extraction_stats
from ceflpipe.stages.report.filmstrip import make_filmstrip, select_examples
from ceflpipe.stages.report.sweep_results import slice_along
from ceflpipe.stages.report.tsne import compute_tsne, procrustes_rotation


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def runs(world):
    return [train(world, "cefl", seeds=(1, 2)), train(world, "mean"), train(world, "fan")]


def labelled(axes, label):
    return [artist for artist in axes.get_children() if artist.get_label() == label]


def test_confusion_cells_are_percent_of_the_row_and_counts():
    counts = np.array([[3, 1, 0], [0, 5, 5]])
    axes = confusion_figure(counts, ["a", "b"], "x").axes[0]
    (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    np.testing.assert_allclose(mesh.get_array().reshape(2, 3), [[75, 25, 0], [0, 50, 50]])
    said = {(round(t.get_position()[0] - 0.5), round(t.get_position()[1] - 0.5)): t.get_text() for t in axes.texts}
    assert said == {(0, 0): "75 %\n3", (1, 0): "25 %\n1", (1, 1): "50 %\n5", (2, 1): "50 %\n5"}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "no face"]
    assert len(confusion_figure(np.array([[3, 1, 0], [0, 5, 0]]), ["a", "b"], "x").axes[0].get_xticks()) == 2


def test_scores_by_fold_are_the_share_of_right_predictions(runs):
    figure = scores_figure(scores.fold_scores(runs), scores.majority_baseline(runs[0]))
    axes = figure.axes[0]
    for row, run in enumerate(runs):
        table = run.predictions()
        expected = 100 * (table.label == table.predicted).groupby([table.seed, table.fold]).mean()
        assert sorted(labelled(axes, "_folds")[row].get_xdata()) == pytest.approx(sorted(expected))
        assert labelled(axes, "_mean")[row].get_xdata()[0] == pytest.approx(100 * run.metrics["war"]["mean"])
    assert scores.majority_baseline(runs[0]) == pytest.approx(1 / 3)


def test_recall_marks_are_the_metrics(runs):
    axes = recall_figure(scores.recall_table(runs)).axes[0]
    marks = {line.get_label(): line for line in axes.lines}
    for name, run in zip(scores.run_names(runs), runs, strict=True):
        assert list(marks[name].get_xdata()) == pytest.approx([100 * v for v in run.metrics["recall"].values()])


def test_learning_curves_are_mean_and_deviation_over_folds(runs):
    figure = curves_figure(scores.learning_curves(runs))
    for axes, run in zip(figure.axes, runs, strict=False):
        history = pd.read_csv(run.path / "history.csv")
        for line, column in zip(axes.lines, ("train_accuracy", "test_war"), strict=True):
            by_epoch = [history[history.epoch == epoch][column].to_numpy() for epoch in sorted(history.epoch.unique())]
            assert list(line.get_ydata()) == pytest.approx([100 * values.mean() for values in by_epoch])
        band = axes.collections[1].get_paths()[0].vertices
        spread = np.array([values.std() for values in by_epoch])
        low = np.array([100 * values.mean() for values in by_epoch]) - 100 * spread
        assert band[:, 1].min() == pytest.approx(low.min())


def test_a_strip_shows_the_right_frames_as_squares_and_boxes_the_located_clip(world, runs):
    run = runs[0]
    for _, line in select_examples(run).iterrows():
        strip = make_filmstrip(run, world.manifest, world.table, line)
        length = int(world.table.index.length[world.table.row_of[line.id]])
        path = world.home / line.id.removeprefix("small/")
        # the middle slots of fifteen equal parts of the 75 slots from slot 15, found by brute force
        slots = torch.arange(15, 90).reshape(15, 5)[:, 2]
        expected = slot_to_frame(slots, torch.full((15,), length)).tolist()
        assert [frame_of(face, path) for face in strip.faces] == expected
        figure = filmstrip_figure(strip)
        figure.canvas.draw()
        faces, _, steps = sorted(figure.axes, key=lambda axes: -axes.get_position().y0)
        for image in faces.images:
            box = image.get_window_extent()
            assert box.width == pytest.approx(box.height, rel=0.02)
        (located,) = labelled(faces, "_located")
        assert isinstance(located, Rectangle)
        clip = int(line.located_clip) - 1
        assert located.get_x() == pytest.approx((15 + 10 * clip) * length / 105 / FPS)
        assert located.get_width() == pytest.approx(15 * length / 105 / FPS)
        row = next(row for row in world.manifest.rows if row.id == line.id)
        (apex,) = labelled(faces, "_apex") or [None]
        if apex is not None:
            assert apex.get_xdata()[0] == pytest.approx((int(row.apex) + 0.5) / FPS)
        # slot by slot: the mean share of the clips that cover it
        values, edges = next((p.get_data().values, p.get_data().edges) for p in steps.patches if hasattr(p, "get_data"))
        for slot in range(15, 90):
            covering = [line[f"intensity_{i + 1}"] for i in range(7) if 15 + 10 * i <= slot < 30 + 10 * i]
            moment = (slot + 0.5) * length / 105 / FPS
            assert values[np.searchsorted(edges, moment) - 1] == pytest.approx(100 * np.mean(covering), abs=1e-3)


def test_the_right_and_the_wrong_are_chosen_by_the_rule(runs):
    table = runs[0].predictions()
    first = table[table.seed == table.seed.iloc[0]]
    for _, line in select_examples(runs[0]).iterrows():
        same = first[(first.label == line.label) & (first.correct == line.correct)]
        columns = (
            [c for c in table if c.startswith("intensity_")]
            if line.correct
            else [c for c in table if c.startswith("p_")]
        )
        assert line[columns].max() == pytest.approx(same[columns].max(axis=1).max())
    assert select_examples(runs[1]).empty  # the mean of frames has no map


def test_sweep_points_are_means_over_folds_at_the_runs_own_settings(runs):
    rows = [
        {
            "head": "cefl",
            "clips": c,
            "frames": f,
            "learning_rate": 1e-3,
            "fold": k,
            "seed": 1,
            "war": 0.1 * c + 0.01 * f + 0.02 * k,
            "uar": 0,
        }
        for c in (1, 3, 7)
        for f in (2, 5)
        for k in range(3)
    ]
    points = slice_along(pd.DataFrame(rows), "clips", runs[0])
    axes = sweep_figure(points, "clips", "clips per video").axes[0]
    x, y = axes.lines[0].get_data()
    assert list(x) == [1, 3, 7]
    assert list(y) == pytest.approx([100 * (0.1 * c + 0.05 + 0.02) for c in (1, 3, 7)])
    assert list(points["std"]) == pytest.approx([np.std([0, 0.02, 0.04])] * 3)
    assert list(points["n"]) == [3, 3, 3]
    assert slice_along(pd.DataFrame(rows), "learning_rate", runs[0]).empty


def test_a_column_per_subject(runs):
    found = scores.subject_scores(runs[0])
    bars = subjects_figure(found, "x").axes[0].patches
    table = runs[0].predictions()
    expected = sorted((100 * table.correct.groupby(table.subject).mean()).tolist(), reverse=True)
    assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    assert int(found.videos.sum()) == len(table)


def test_frame_shares_fill_the_bar(world):
    seen = extraction_stats(world.manifest, world.table)
    last = seen.status_fractions.iloc[-1]
    total = len(world.table.frame_status)
    assert last["label"] == "all"
    assert last["frames"] == total
    assert (last["missing"], last["interpolated"]) == pytest.approx((5 / total, 3 / total))
    bars = extraction_figure(seen.status_fractions).axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(100 * len(seen.status_fractions))
    assert not seen.failures


def test_every_video_is_a_mark_where_its_own_folds_model_puts_it(world, runs):
    picture = compute_tsne(runs, world.manifest, world.table, 1)
    axes = scatter_figure(picture.points, world.manifest.labels).axes
    for panel, name in zip(axes, scores.run_names(runs), strict=False):
        mine = picture.points[picture.points["head"] == name]
        drawn = np.concatenate([c.get_offsets() for c in panel.collections if isinstance(c, PathCollection)])
        assert sorted(map(tuple, np.round(drawn, 4))) == sorted(
            map(tuple, np.round(mine[["x", "y"]].to_numpy(float), 4))
        )
        assert sorted(mine["id"]) == sorted(row.id for row in world.manifest.rows)
    again = compute_tsne(runs, world.manifest, world.table, 1)
    pd.testing.assert_frame_equal(again.points, picture.points)


def test_a_turned_space_is_turned_back():
    random = np.random.default_rng(0)
    common = random.normal(size=(30, 5))
    rotation, _ = np.linalg.qr(random.normal(size=(5, 5)))
    mine = common @ rotation
    np.testing.assert_allclose(mine @ procrustes_rotation(mine, common), common, atol=1e-9)


def test_words_of_others_are_only_words():
    """Labels may hold markup, dollars and anything else."""
    label = "<script>alert('x')</script> & $\\frac{1}"
    text = svg(confusion_figure(np.array([[1, 0, 0], [0, 1, 0]]), [label, "b"], label))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert png(confusion_figure(np.array([[1, 0, 0], [0, 1, 0]]), [label, "b"], label)).startswith(b"\x89PNG")


def test_the_same_figure_has_the_same_bytes_and_follows_the_theme():
    def figure():
        return recall_figure(pd.DataFrame({"head": ["x", "x"], "label": ["a", "b"], "recall": [0.5, np.nan]}))

    assert svg(figure()) == svg(figure())
    assert png(figure()) == png(figure())
    assert "var(--ink)" in svg(figure())
    assert "#1f2430" not in svg(figure())
    assert any(isinstance(line, Line2D) for line in figure().axes[0].lines)
