"""A list is its path, not its name; a manifest that belongs to a data set keeps its configuration; results of another cache
have a folder of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli_in_process

from ceflpipe.pipeline.dataset import DatasetOptions
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.manifest.manifest import write_manifest

TRAIN = ("--head", "mean", "--folds", 2, "--epochs", 1, "--clips", 1, "--frames", 1, "--quiet")


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "parts" not in path.parts}


@pytest.fixture
def two_lists(tmp_path):
    """A/videos.csv and B/videos.csv name other videos by the same ids; only A has a cache."""
    for folder in "AB":
        (tmp_path / folder).mkdir()
        write_manifest(tmp_path / folder / "videos.csv", fake_manifest(tmp_path / folder).entries)
    fake_cache(tmp_path / "artifacts/features/videos/random.h5", fake_manifest(tmp_path / "A"))
    return tmp_path


def test_two_lists_of_one_name_share_neither_cache_nor_run(two_lists):
    first = run_cli_in_process("train-heads", "--manifest", "A/videos.csv", *TRAIN, cwd=two_lists, check=True)
    assert first.stdout.splitlines()[-1] == "artifacts/runs/videos/random/mean"
    assert "is called" not in first.stderr
    before = files_of(two_lists / "artifacts")
    refused = run_cli_in_process("train-heads", "--manifest", "B/videos.csv", *TRAIN, cwd=two_lists)
    assert (refused.returncode, "no such feature cache" in refused.stderr) == (2, True)

    (cache,) = {Path(word) for word in refused.stderr.replace(":", " ").split() if word.endswith(".h5")}
    assert cache.parent.name.startswith("videos-")
    fake_cache(two_lists / cache.with_name("random.h5"), fake_manifest(two_lists / "B"), seed=1)
    second = run_cli_in_process("train-heads", "--manifest", "B/videos.csv", *TRAIN, cwd=two_lists, check=True)
    assert second.stdout.splitlines()[-1] == f"artifacts/runs/{cache.parent.name}/random/mean"
    assert f"B/videos.csv is called {cache.parent.name} in artifacts/: videos is another list" in second.stderr
    after = files_of(two_lists / "artifacts")
    assert all(after[path] == content for path, content in before.items())

    moved = two_lists.rename(two_lists.with_name("moved"))
    again = run_cli_in_process("train-heads", "--manifest", moved / "A/videos.csv", *TRAIN, cwd=moved, check=True)
    assert again.stdout.splitlines()[-1] == "artifacts/runs/videos/random/mean"


def test_two_links_to_one_list_are_two_lists(two_lists, monkeypatch):
    """Their paths are relative to the folders of the links, so they name other videos."""
    monkeypatch.chdir(two_lists)
    for folder in "CD":
        Path(folder).mkdir()
        Path(folder, "videos.csv").symlink_to(two_lists / "A/videos.csv")
    DatasetOptions(manifest=Path("A/videos.csv")).resolve().claim_names()
    assert len({DatasetOptions(manifest=Path(f, "videos.csv")).resolve().name for f in "ACD"}) == 3


def test_a_list_named_like_a_data_set_is_another_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = DatasetOptions(manifest=Path("mmi.csv")).resolve()
    assert own.config is None
    assert own.name.startswith("mmi-")
    assert own.features_path != DatasetOptions("mmi").resolve().features_path


@pytest.fixture
def ckplus(tmp_path):
    """A manifest of CK+ with official folds, its cache, and one of another encoder."""
    manifest = fake_manifest(tmp_path)
    entries = [replace(entry, fold=str(1 + int(entry.subject[1:]) % 3)) for entry in manifest.entries]
    write_manifest(tmp_path / "artifacts/manifests/ckplus.csv", entries)
    fake_cache(tmp_path / "artifacts/features/ckplus/imagenet.h5", manifest)
    fake_cache(tmp_path / "fer.h5", manifest, seed=1)
    return tmp_path


@pytest.mark.parametrize("option", [("--dataset", "ckplus"), ("--manifest", "artifacts/manifests/ckplus.csv")])
def test_another_cache_of_a_data_set_keeps_its_protocol_and_its_runs(ckplus, option):
    run_cli_in_process("train-heads", "--dataset", "ckplus", *TRAIN, cwd=ckplus, check=True)
    before = files_of(ckplus / "artifacts/runs")
    result = run_cli_in_process("train-heads", *option, "--features", "fer.h5", *TRAIN, cwd=ckplus, check=True)
    run = read_run(ckplus / result.stdout.splitlines()[-1])
    assert run.path == ckplus / "artifacts/runs/ckplus@fer/mean"
    assert (run.config["dataset"], run.cv.fold_scheme, run.train_config.test_view) == ("ckplus", "official", "end")
    assert len(run.labels) == 7
    after = files_of(ckplus / "artifacts/runs")
    assert all(after[path] == content for path, content in before.items())
    (ckplus / "other").mkdir()
    (ckplus / "fer.h5").rename(ckplus / "other/fer.h5")
    other = run_cli_in_process("train-heads", *option, "--features", "other/fer.h5", *TRAIN, cwd=ckplus, check=True)
    assert other.stdout.splitlines()[-1].startswith("artifacts/runs/ckplus@fer-")


def test_runs_on_other_videos_are_refused_by_the_report_and_redone_by_ablate(two_lists):
    ablate = ("ablate", "--manifest", "A/videos.csv", "--heads", "mean", "--folds", 2, "--epochs", 1)
    run_cli_in_process("train-heads", "--manifest", "A/videos.csv", *TRAIN, cwd=two_lists, check=True)
    run_cli_in_process(*ablate, cwd=two_lists, check=True)
    manifest = fake_manifest(two_lists / "A")
    cache = two_lists / "artifacts/features/videos/random.h5"
    fake_cache(cache, manifest, seed=1, sources="other")
    report = run_cli_in_process("report", "--manifest", "A/videos.csv", cwd=two_lists)
    assert report.returncode == 2
    assert (
        "artifacts/runs/videos/random/mean: was trained or tested on other videos than those of artifacts/features/videos/random.h5"
        in report.stderr
    )
    assert "ceflpipe train-heads --manifest A/videos.csv --head mean" in report.stderr
    again = run_cli_in_process(*ablate, cwd=two_lists, check=True)
    assert "trained on other features" in again.stderr
