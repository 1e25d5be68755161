"""Sweeps: every combination once, complete runs cached, and a results table that agrees with the predictions."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import ROOT

from ceflpipe.cache.code_hash import code_hash
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.pipeline.training import run_sweep
from ceflpipe.stages.heads.comparison import paired_differences, results_frame
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, expand_grid, train_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(
    num_clips=3, frames_per_clip=2, epochs=2, warmup_epochs=0, cosine_t_max=10, learning_rate=0.001, precision="fp32"
)


@pytest.fixture
def base(tmp_path):
    manifest = fake_manifest(tmp_path, subjects=6)
    fake_cache(tmp_path / "x.h5", manifest)
    cv = CVConfig(fold_scheme="subject", folds=3, seed=1, num_seeds=2)
    return RunSpec(manifest, tmp_path / "x.h5", CONFIG, cv, tmp_path / "out")


class Progress:
    """Calls of ``on_progress``: how many runs were complete at the start, and the names of those that were trained."""

    def __init__(self):
        self.calls = []

    def __call__(self, completed, total, note=""):
        self.calls.append((completed, total, note))

    @property
    def cached(self):
        return self.calls[0][0]

    @property
    def trained(self):
        return [note for _, _, note in self.calls[1:]]


def sweep(specs):
    progress = Progress()
    runs = run_sweep(specs, on_progress=progress)
    assert progress.calls[-1][:2] == (len(specs), len(specs))
    return runs, progress


def test_every_combination_once_in_order(base, tmp_path):
    specs = expand_grid(base, tmp_path, heads=["mean", "paper"], num_clips=[1, 7], frames_per_clip=[2, 5])
    assert [(s.config.head, s.config.num_clips, s.config.frames_per_clip) for s in specs] == [
        (h, n, k) for h in ("mean", "cefl") for n in (1, 7) for k in (2, 5)
    ]
    assert len({s.out for s in specs}) == 8


def test_clips_that_do_not_fit_are_refused_before_training(base, tmp_path):
    with pytest.raises(CeflError, match="115 of 105"):
        expand_grid(base, tmp_path, num_clips=[1, 11])


@pytest.mark.slow
def test_invalid_learning_rates_are_refused_before_training(base, tmp_path):
    with pytest.raises(CeflError, match="learning_rate 0"):
        expand_grid(base, tmp_path, learning_rates=[0.001, 0.0])


@pytest.mark.slow
def test_complete_runs_are_cached_and_new_ones_trained(base, tmp_path):
    specs = expand_grid(base, tmp_path / "runs", num_clips=[1, 3])
    run_sweep(specs)
    before = {s.out: (s.out / "run.json").stat().st_mtime_ns for s in specs}
    runs, progress = sweep(expand_grid(base, tmp_path / "runs", num_clips=[1, 3, 5]))
    assert len(runs) == 3
    assert (progress.cached, progress.trained) == (2, ["cefl-n5-k2"])
    assert all((s.out / "run.json").stat().st_mtime_ns == before[s.out] for s in specs)


@pytest.mark.slow
def test_another_configuration_seed_label_or_feature_trains_again(base, tmp_path):
    (spec,) = expand_grid(base, tmp_path / "runs")
    run_sweep([spec])
    entries = list(spec.manifest.entries)
    entries[0], entries[1] = replace(entries[0], label=entries[1].label), replace(entries[1], label=entries[0].label)
    changed = [
        replace(spec, config=spec.config.model_copy(update={"epochs": 3})),
        replace(spec, cv=spec.cv.model_copy(update={"seed": 5})),
        replace(spec, manifest=replace(spec.manifest, entries=tuple(entries))),
    ]
    for other in changed:
        assert sweep([other])[1].trained == [spec.out.name]
        assert sweep([other])[1].trained == []
    fake_cache(base.features, base.manifest, seed=9)
    assert sweep([changed[-1]])[1].trained == [spec.out.name]


def test_runs_of_other_code_of_the_heads_are_trained_again_with_a_reason(base, tmp_path, monkeypatch):
    specs = expand_grid(base, tmp_path / "runs", heads=["mean"], num_clips=[1, 3])
    monkeypatch.setattr("ceflpipe.stages.heads.run_io.code_hash", lambda *entries: "before the edit")
    run_sweep(specs[:1])
    monkeypatch.undo()
    plans = []
    for _ in range(2):
        runs = run_sweep(specs, workers=1, on_plan=lambda *plan: plans.append(plan))
    assert plans == [(0, {"made by other code of the heads": 1, "new": 1}), (2, {})]
    assert {run.config["code"] for run in runs} == {code_hash("stages/heads/cross_validation.py")}


@pytest.mark.slow
def test_workers_share_one_copy_of_the_features(base):
    """joblib writes the table once, and each worker maps that file; three copies of it would be three files."""
    table = read_features(base.features)
    specs = [replace(base, table=table, out=base.out / str(number)) for number in range(3)]
    executor = process_executor(2)
    arrays = list(executor(lambda spec: (type(spec.table.features).__name__, str(spec.table.features.filename)), specs))
    assert len(set(arrays)) == 1
    assert arrays[0][0] == "memmap"
    assert not Path(arrays[0][1]).exists(), "removed at the end"


@pytest.mark.parametrize(
    ("needed", "words"),
    [({"code": "0" * 16}, "code of the heads 0000000000000000, here"), ({"features_sha256": "f" * 64}, "features ffffffffffffffff, here")],
)  # fmt: skip
def test_a_worker_with_other_code_or_features_trains_nothing(base, needed, words):
    with pytest.raises(CeflError, match=words):
        train_run(replace(base, **needed))
    assert not base.out.exists()


def test_workers_of_other_machines_get_what_they_must_have(base):
    """They read the features themselves, and the workers of a machine share its memory."""
    tasks = []

    def executor(function, specs):
        tasks.extend(specs)
        return map(function, specs)

    (run,) = run_sweep([base], executor=executor, processes=3)
    (task,) = tasks
    assert (task.table, task.processes) == (None, 3)
    assert (task.code, task.features_sha256) == (run.config["code"], run.config["features"]["sha256"])


def test_the_results_table_agrees_with_the_predictions(base, tmp_path):
    runs = run_sweep(expand_grid(base, tmp_path / "runs", heads=["cefl", "mean"]))
    rows = results_frame(runs)
    assert list(rows.columns) == [
        *("head", "num_clips", "frames_per_clip", "learning_rate"),
        *("seed", "fold", "videos", "war", "uar", "locating_accuracy", "chance", "apex_reachable"),
        *("train_videos", "train_accuracy", "late_loss_decrease"),
        *("tuned", "used_learning_rate", "used_weight_decay", "used_epochs"),
    ]
    assert len(rows) == 2 * 2 * 3
    for _, row in rows.iterrows():
        run = next(r for r in runs if r.train_config.head == row["head"])
        table = pd.read_csv(run.path / "predictions" / f"fold-{row.fold}.csv")
        table = table[table.seed == row.seed]
        assert (row.videos, row.train_videos) == (len(table), 18 - len(table))
        history = run.history()
        history = history[(history.seed == row.seed) & (history.fold == row.fold)]
        assert row.train_accuracy == history[history.epoch == CONFIG.epochs].train_accuracy.item()
        assert (row.tuned, row.used_learning_rate, row.used_epochs) == ("", CONFIG.learning_rate, CONFIG.epochs)
        assert row.war == pytest.approx((table.label == table.predicted).mean())
        assert row.uar == pytest.approx(np.mean([(g.label == g.predicted).mean() for _, g in table.groupby("label")]))
        if row["head"] == "mean":
            continue
        reachable = table[table.apex_chance > 0]
        assert row.apex_reachable == len(reachable)
        assert row.locating_accuracy == pytest.approx(reachable.apex_hit.mean(), nan_ok=True)
        assert row.chance == pytest.approx(reachable.apex_chance.mean(), nan_ok=True)
    assert rows[rows["head"] == "mean"].locating_accuracy.isna().all()


def test_runs_in_other_processes_are_the_same(base, tmp_path):
    serial = results_frame(run_sweep(expand_grid(base, tmp_path / "serial", num_clips=[1, 3]), workers=1))
    parallel = results_frame(run_sweep(expand_grid(base, tmp_path / "parallel", num_clips=[1, 3]), workers=2))
    pd.testing.assert_frame_equal(serial, parallel)


def test_paired_differences_by_hand():
    rows = pd.DataFrame(
        [
            {"head": h, "seed": s, "fold": f, "war": w, "videos": 2, "train_videos": 2}
            for (h, w0) in (("a", 0.5), ("b", 0.6))
            for s in (1, 2)
            for f, w in (("1", w0), ("2", w0 + 0.1 * (h == "b")))
        ]
    )
    got = paired_differences(rows, "a", "b")
    assert got["mean"] == pytest.approx(0.15)
    assert got["n"] == 4
    assert (got["wins"], got["losses"]) == (4, 0)
    assert got["std_ddof1"] == pytest.approx(np.std([0.1, 0.2, 0.1, 0.2], ddof=1))


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from helpers.fake_cache import fake_manifest
from ceflpipe.pipeline.training import run_sweep
from ceflpipe.stages.heads.sweep import RunSpec, expand_grid
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
home = Path(sys.argv[1])
config, cv = TrainConfig.model_validate_json(sys.argv[3]), CVConfig.model_validate_json(sys.argv[4])
base = RunSpec(fake_manifest(home, subjects=6), home / "x.h5", config, cv, home / "out")
specs = expand_grid(base, home / "runs", num_clips=[1, 2, 3, 4, 5, 6])
run_sweep(specs, workers=2, on_progress=lambda completed, total, note="": print(completed, flush=True))
"""


@pytest.mark.slow
def test_a_killed_sweep_resumes_with_the_same_result(base, tmp_path):
    arguments = [str(tmp_path), str(ROOT / "tests"), base.config.model_dump_json(), base.cv.model_dump_json()]
    killed = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, text=True)
    assert [killed.stdout.readline() for _ in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    runs, progress = sweep(expand_grid(base, tmp_path / "runs", num_clips=list(range(1, 7))))
    assert 3 <= progress.cached < 6, "the sweep was killed before its end"
    undisturbed = run_sweep(expand_grid(base, tmp_path / "fresh", num_clips=list(range(1, 7))))
    for run, expected in zip(runs, undisturbed, strict=True):
        for name in ("metrics.json", "weights.safetensors"):
            assert (run.path / name).read_bytes() == (expected.path / name).read_bytes()
    assert not [path for path in (tmp_path / "runs").iterdir() if "partial" in path.name]
    assert read_run(runs[0].path).metrics["folds"] == 3


def test_a_run_with_a_changed_file_is_trained_again_with_force(base, tmp_path):
    (spec,) = expand_grid(base, tmp_path / "runs")
    (run,) = run_sweep([spec])
    expected = run.predictions()
    for file in (next((spec.out / "predictions").iterdir()), spec.out / "weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-3] + b"123")
        with pytest.raises(CeflError, match=f"holds .*{file.name}.* edited since.*--force"):
            sweep([spec])
        (again,), progress = sweep([replace(spec, force=True)])
        assert progress.trained == [spec.out.name]
        pd.testing.assert_frame_equal(again.predictions(), expected)
