"""Grids: every combination once, finished ones kept, and the table says what the runs say."""

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.training import run_sweep
from ceflpipe.stages.heads.cross_validation import CVConfig
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, expand_grid, paired_differences, results_frame
from ceflpipe.stages.heads.train_config import TrainConfig

RECIPE = TrainConfig(
    head="cefl",
    num_clips=3,
    frames_per_clip=2,
    epochs=2,
    warmup_epochs=0,
    cosine_t_max=10,
    learning_rate=0.001,
    precision="fp32",
)


@pytest.fixture
def base(tmp_path):
    manifest = fake_manifest(tmp_path, subjects=6)
    fake_cache(tmp_path / "x.h5", manifest)
    return RunSpec(
        manifest,
        tmp_path / "x.h5",
        RECIPE,
        CVConfig(fold_scheme="subject", folds=3, seed=1, num_seeds=2),
        tmp_path / "out",
    )


def test_every_combination_once_in_order(base, tmp_path):
    points = expand_grid(base, tmp_path, heads=["mean", "paper"], clips=[1, 7], frames=[2, 5])
    assert [(p.config.head, p.config.num_clips, p.config.frames_per_clip) for p in points] == [
        (h, n, k) for h in ("mean", "cefl") for n in (1, 7) for k in (2, 5)
    ]
    assert len({p.out for p in points}) == 8


def test_what_does_not_fit_is_said_before_anything_is_trained(base, tmp_path):
    with pytest.raises(CeflError, match="115 of 105"):
        expand_grid(base, tmp_path, clips=[1, 11])


@pytest.mark.slow
def test_finished_points_are_kept_and_new_ones_run(base, tmp_path):
    points = expand_grid(base, tmp_path / "points", clips=[1, 3])
    run_sweep(points)
    before = {p.out: (p.out / "run.json").stat().st_mtime_ns for p in points}
    more = expand_grid(base, tmp_path / "points", clips=[1, 3, 5])
    said = []
    runs = run_sweep(more, on_point=said.append)
    assert len(runs) == 3
    assert sum("was there" in line for line in said) == 2
    assert all((p.out / "run.json").stat().st_mtime_ns == before[p.out] for p in points)


def test_another_recipe_seed_label_or_feature_runs_again(base, tmp_path):
    from dataclasses import replace

    (point,) = expand_grid(base, tmp_path / "points")
    run_sweep([point])
    rows = list(point.manifest.entries)
    rows[0], rows[1] = replace(rows[0], label=rows[1].label), replace(rows[1], label=rows[0].label)
    others = [
        replace(point, recipe=replace(point.config, epochs=3)),
        replace(point, protocol=replace(point.cv, seeds=(5, 6))),
        replace(point, manifest=replace(point.manifest, rows=tuple(rows))),
    ]
    for other in others:
        said = []
        run_sweep([other], on_point=said.append)
        assert said == [point.out.name]
    fake_cache(base.features, base.manifest, seed=9)
    said = []
    run_sweep([others[-1]], on_point=said.append)
    assert said == [point.out.name]


def test_the_tidy_table_says_what_the_predictions_say(base, tmp_path):
    runs = run_sweep(expand_grid(base, tmp_path / "points", heads=["cefl", "mean"]))
    rows = results_frame(runs)
    assert len(rows) == 2 * 2 * 3
    for _, row in rows.iterrows():
        run = next(r for r in runs if r.train_config.head == row["head"])
        table = pd.read_csv(run.path / "predictions" / f"fold-{row.fold}.csv")
        own = table[table.seed == row.seed]
        assert row.war == pytest.approx((own.label == own.predicted).mean())
        assert row.uar == pytest.approx(np.mean([(g.label == g.predicted).mean() for _, g in own.groupby("label")]))
    assert rows[rows["head"] == "mean"].locating.isna().all()


def test_points_in_other_processes_say_the_same(base, tmp_path):
    one = results_frame(run_sweep(expand_grid(base, tmp_path / "one", clips=[1, 3]), workers=1))
    two = results_frame(run_sweep(expand_grid(base, tmp_path / "two", clips=[1, 3]), workers=2))
    pd.testing.assert_frame_equal(one, two)


def test_paired_differences_by_hand():
    rows = pd.DataFrame(
        [
            {"head": h, "seed": s, "fold": f, "war": w}
            for (h, w0) in (("a", 0.5), ("b", 0.6))
            for s in (1, 2)
            for f, w in (("1", w0), ("2", w0 + 0.1 * (h == "b")))
        ]
    )
    got = paired_differences(rows, "a", "b")
    assert got["mean"] == pytest.approx(0.15)
    assert got["n"] == 4
    assert (got["better"], got["worse"]) == (4, 0)
    assert got["std_ddof1"] == pytest.approx(np.std([0.1, 0.2, 0.1, 0.2], ddof=1))


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from helpers.fake_cache import fake_manifest
from ceflpipe.pipeline.training import run_grid
from ceflpipe.stages.heads.sweep import Point, make_points
from ceflpipe.stages.heads.cross_validation import Protocol
from ceflpipe.stages.heads.train import Recipe
home = Path(sys.argv[1])
recipe = Recipe("cefl", "auto", 3, 2, "clip", 2, 0, 10, 1e-3, 1e-4, 8, False, "fp32")
base = Point(fake_manifest(home, subjects=6), home / "x.h5", recipe, Protocol("subject", 3, (1, 2)), home / "out")
run_grid(make_points(base, home / "points", clips=[1, 2, 3, 4, 5, 6, 7, 8, 9]), on_point=lambda name: print(name, flush=True))
"""


@pytest.mark.slow
def test_a_killed_grid_goes_on_and_ends_the_same(base, tmp_path):
    from helpers.cli import ROOT

    killed = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), str(ROOT / "tests")], stdout=subprocess.PIPE, text=True
    )
    assert [killed.stdout.readline() for _ in range(3)][-1]
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    points = expand_grid(base, tmp_path / "points", clips=list(range(1, 10)))
    said = []
    runs = run_sweep(points, on_point=said.append)
    assert sum("was there" in line for line in said) >= 3
    undisturbed = run_sweep(expand_grid(base, tmp_path / "fresh", clips=list(range(1, 10))))
    for one, other in zip(runs, undisturbed, strict=True):
        assert (one.path / "metrics.json").read_bytes() == (other.path / "metrics.json").read_bytes()
        assert (one.path / "weights.safetensors").read_bytes() == (other.path / "weights.safetensors").read_bytes()
    assert not [p for p in (tmp_path / "points").iterdir() if "partial" in p.name]
    assert read_run(runs[0].path).metrics["folds"] == 3


def test_a_point_with_a_damaged_file_is_trained_again(base, tmp_path):
    (point,) = expand_grid(base, tmp_path / "points")
    (run,) = run_sweep([point])
    expected = run.predictions()
    for file in (next((point.out / "predictions").iterdir()), point.out / "weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-3] + b"123")
        said = []
        (again,) = run_sweep([point], on_point=said.append)
        assert said == [point.out.name]
        pd.testing.assert_frame_equal(again.predictions(), expected)
