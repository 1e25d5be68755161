"""Figures of a report: every mark is compared with data computed here in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import FPS, frame_of, make_small_dataset, train
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from ceflpipe.stages.heads.clip_sampling import slot_to_frame
from ceflpipe.stages.heads.train_config import TrainConfig
from ceflpipe.stages.plots.charts import (
    accuracy_figure,
    curves_figure,
    extraction_figure,
    recall_figure,
    subjects_figure,
    sweep_figure,
    tsne_figure,
)
from ceflpipe.stages.plots.strips import filmstrip_figure
from ceflpipe.stages.plots.style import color_of
from ceflpipe.stages.report import tables
from ceflpipe.stages.report.extraction_stats import extraction_stats
from ceflpipe.stages.report.filmstrip import make_filmstrip, select_examples, slot_to_seconds
from ceflpipe.stages.report.sweep_results import slice_along
from ceflpipe.stages.report.tsne import compute_tsne, procrustes_rotation


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data):
    return [train(data, "cefl", seeds=(1, 2)), train(data, "mean"), train(data, "fan")]


def labelled(axes, label):
    return [artist for artist in axes.get_children() if artist.get_label() == label]


def test_accuracy_by_fold_is_the_fraction_of_correct_predictions(runs):
    axes = accuracy_figure(tables.fold_scores(runs), tables.majority_baseline(runs[0])).axes[0]
    for row, run in enumerate(runs):
        table = run.predictions()
        expected = 100 * (table.label == table.predicted).groupby([table.seed, table.fold]).mean()
        assert sorted(labelled(axes, "_folds")[row].get_xdata()) == pytest.approx(sorted(expected))
        assert labelled(axes, "_mean")[row].get_xdata()[0] == pytest.approx(100 * run.metrics["war"]["mean"])
    assert tables.majority_baseline(runs[0]) == pytest.approx(1 / 3)


def test_recall_markers_are_the_metrics(runs):
    axes = recall_figure(tables.recall_table(runs)).axes[0]
    markers = {line.get_label(): line for line in axes.lines}
    for name, run in zip(tables.run_names(runs), runs, strict=True):
        assert list(markers[name].get_xdata()) == pytest.approx([100 * v for v in run.metrics["recall"].values()])


def test_learning_curves_are_mean_and_std_over_folds(runs):
    figure = curves_figure(tables.learning_curves(runs))
    for axes, run in zip(figure.axes, runs, strict=False):
        history = pd.read_csv(run.path / "history.csv")
        for line, column in zip(axes.lines, ("train_accuracy", "test_war"), strict=True):
            by_epoch = [history[history.epoch == epoch][column].to_numpy() for epoch in sorted(history.epoch.unique())]
            assert list(line.get_ydata()) == pytest.approx([100 * values.mean() for values in by_epoch])
        band = axes.collections[1].get_paths()[0].vertices
        std = np.array([values.std() for values in by_epoch])
        low = np.array([100 * values.mean() for values in by_epoch]) - 100 * std
        assert band[:, 1].min() == pytest.approx(low.min())


def test_a_filmstrip_has_square_crops_of_the_right_frames_and_frames_the_located_clip(data, runs):
    run = runs[0]
    for _, row in select_examples(run).iterrows():
        strip = make_filmstrip(run, data.manifest, data.table, row)
        length = int(data.table.videos.length[data.table.index_of[row.id]])
        path = data.root / row.id.removeprefix("small/")
        # the middle slots of fifteen equal parts of the 75 slots from slot 15, by brute force
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
        clip = int(row.located_clip) - 1
        assert located.get_x() == pytest.approx((15 + 10 * clip) * length / 105 / FPS)
        assert located.get_width() == pytest.approx(15 * length / 105 / FPS)
        entry = next(entry for entry in data.manifest.entries if entry.id == row.id)
        (apex,) = labelled(faces, "_apex") or [None]
        if apex is not None:
            assert apex.get_xdata()[0] == pytest.approx((int(entry.apex) + 0.5) / FPS)
        # slot by slot: the mean intensity of the clips that cover it
        values, edges = next((p.get_data().values, p.get_data().edges) for p in steps.patches if hasattr(p, "get_data"))
        for slot in range(15, 90):
            covering = [row[f"intensity_{i + 1}"] for i in range(7) if 15 + 10 * i <= slot < 30 + 10 * i]
            time = (slot + 0.5) * length / 105 / FPS
            assert values[np.searchsorted(edges, time) - 1] == pytest.approx(100 * np.mean(covering), abs=1e-3)


def test_times_of_slots_are_those_of_their_frames():
    """A video whose second half is slower; slot 52.5 of 105 is its middle."""
    edges = np.array([0.0, 1.0, 2.0, 12.0, 22.0])
    config = TrainConfig()
    assert [slot_to_seconds(slot, edges, config) for slot in (0, 26.25, 52.5, 78.75, 105)] == edges.tolist()
    long = np.concatenate([np.arange(100) / 50, 2 + np.arange(151.0)])
    first = config.model_copy(update={"long_videos": "first"})
    assert slot_to_seconds(101, long, first) == long[101]


def test_examples_are_selected_by_the_rule(runs):
    table = runs[0].predictions()
    first = table[table.seed == table.seed.iloc[0]]
    for _, row in select_examples(runs[0]).iterrows():
        same = first[(first.label == row.label) & (first.correct == row.correct)]
        prefix = "intensity_" if row.correct else "p_"
        columns = [column for column in table if column.startswith(prefix)]
        assert row[columns].max() == pytest.approx(same[columns].max(axis=1).max())
    assert select_examples(runs[1]).empty  # the mean of frames has no map


def test_sweep_points_are_means_over_folds_at_the_settings_of_the_run(runs):
    rows = [
        {
            "head": "cefl",
            "num_clips": n,
            "frames_per_clip": k,
            "learning_rate": 1e-3,
            "fold": fold,
            "seed": 1,
            "war": 0.1 * n + 0.01 * k + 0.02 * fold,
            "uar": 0,
        }
        for n in (1, 3, 7)
        for k in (2, 5)
        for fold in range(3)
    ]
    points = slice_along(pd.DataFrame(rows), "num_clips", runs[0])
    axes = sweep_figure(points, "num_clips", "clips per video").axes[0]
    x, y = axes.lines[0].get_data()
    assert list(x) == [1, 3, 7]
    assert list(y) == pytest.approx([100 * (0.1 * n + 0.05 + 0.02) for n in (1, 3, 7)])
    assert list(points["std"]) == pytest.approx([np.std([0, 0.02, 0.04])] * 3)
    assert list(points["n"]) == [3, 3, 3]
    assert slice_along(pd.DataFrame(rows), "learning_rate", runs[0]).empty


def test_a_bar_per_subject(runs):
    subjects = tables.subject_scores(runs[0])
    bars = subjects_figure(subjects, "x").axes[0].patches
    table = runs[0].predictions()
    expected = sorted((100 * table.correct.groupby(table.subject).mean()).tolist(), reverse=True)
    assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    assert int(subjects.videos.sum()) == len(table)


def test_status_fractions_fill_the_bar(data):
    stats = extraction_stats(data.manifest, data.table)
    last = stats.status_fractions.iloc[-1]
    total = len(data.table.frame_status)
    assert last["label"] == "all"
    assert last["frames"] == total
    assert (last["missing"], last["interpolated"]) == pytest.approx((5 / total, 3 / total))
    bars = extraction_figure(stats.status_fractions).axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(100 * len(stats.status_fractions))
    assert not stats.failures


def test_every_video_has_a_marker_at_the_embedding_of_its_own_folds_model(data, runs):
    result = compute_tsne(runs, data.manifest, data.table, 1)
    points, labels = result.points, data.manifest.labels
    panels = tsne_figure(points, labels).axes
    for panel, name in zip(panels, tables.run_names(runs), strict=False):
        part = points[points["run"] == name]
        markers = labelled(panel, "_video")
        assert [line.get_gid() for line in markers] == [f"point-{i}" for i in part.index]
        np.testing.assert_allclose(np.concatenate([line.get_xydata() for line in markers]), part[["x", "y"]], rtol=1e-6)
        for line, (_, point) in zip(markers, part.iterrows(), strict=True):
            assert same_color(line.get_markeredgecolor(), color_of(labels, point.label))
            assert (line.get_markerfacecolor() == "none") == (point.label != point.predicted)
        assert sorted(part["id"]) == sorted(entry.id for entry in data.manifest.entries)
    again = compute_tsne(runs, data.manifest, data.table, 1)
    pd.testing.assert_frame_equal(again.points, points)


def test_a_rotated_embedding_is_rotated_back():
    random = np.random.default_rng(0)
    target = random.normal(size=(30, 5))
    rotation, _ = np.linalg.qr(random.normal(size=(5, 5)))
    source = target @ rotation
    np.testing.assert_allclose(source @ procrustes_rotation(source, target), target, atol=1e-9)
