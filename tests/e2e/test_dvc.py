"""Real `dvc repro` in a fresh copy of the repository, on a data set small enough to wait for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.cli import ROOT, change, on_path
from helpers.fake_videos import LABELS, performance, pictures

pytestmark = pytest.mark.slow
COPIED = (
    "cache",
    "stages",
    "configs",
    "dvc.yaml",
    "params.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The pipeline's files in a git repository of their own, with a tiny demo data set and short training."""
    home = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        source, target = ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    change(home / "configs/demo.yaml", r"folds: 10", "folds: 3")
    change(
        home / "configs/demo.yaml",
        r"demo: \{.*\}",
        "demo: {subjects: 3, size: 128, frames: [24, 30], fps: 25, seed: 1}",
    )
    change(
        home / "configs/encoder.yaml",
        r"actors: \{.*\}",
        "actors: {pictures: 64, steps: 2, batch: 16, size: 64, seed: 1}",
    )
    change(home / "configs/demo.yaml", r"size: 112", "size: 64")
    change(home / "configs/heads.yaml", r"epochs: 120", "epochs: 2")
    change(home / "configs/pipeline.yaml", r"clips: \[.*\]", "clips: [1, 7]")
    change(home / "configs/pipeline.yaml", r"frames: \[.*\]", "frames: [2]")
    run("git", "init", "-q", cwd=home)
    run("git", "add", "-A", cwd=home)
    run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "copy", cwd=home)
    return home


def run(*command: str, cwd: Path) -> str:
    env = on_path(DVC_NO_ANALYTICS="1")
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def test_from_nothing_to_the_report_and_then_only_what_changed(clone):
    first = stages_run(run("dvc", "repro", cwd=clone))
    assert first[0] == "demo"
    assert first[-1] == "report@demo"
    assert {"manifest@demo", "encoder@actors", "extract@demo", "train-heads@demo-cefl", "train-heads@demo-mean"} <= set(
        first
    )
    assert (clone / "artifacts/reports/demo/report.html").stat().st_size > 10_000
    metrics = json.loads((clone / "artifacts/runs/demo/cefl/metrics.json").read_text())
    assert metrics["videos"] == 18
    assert metrics["folds"] == 3

    assert stages_run(run("dvc", "repro", cwd=clone)) == []

    change(clone / "configs/heads.yaml", r"learning_rate: 0.0001", "learning_rate: 0.0002")
    again = stages_run(run("dvc", "repro", cwd=clone))
    assert again
    assert all(stage.startswith(("train-heads@", "report@")) for stage in again)

    head = clone / "stages/heads/ceflnet.py"
    head.write_text(head.read_text() + "\n# a change to a head\n")
    assert all(s.startswith(("train-heads@", "report@")) for s in stages_run(run("dvc", "repro", cwd=clone)))


def test_what_dvc_shows(clone):
    assert "war.mean" in run("dvc", "metrics", "show", cwd=clone)
    assert "file://" in run("dvc", "plots", "show", cwd=clone)
    assert "extract@demo" in run("dvc", "dag", cwd=clone)
    assert "false" in run("dvc", "config", "core.analytics", cwd=clone)


def test_an_interrupted_extraction_goes_on(clone):
    """DVC keeps the cache between runs (persist), so only what is missing is extracted."""
    features = clone / "artifacts/features/demo.h5"
    before = features.read_bytes()
    video = sorted((clone / "data/demo/videos").rglob("*.mp4"))[0]
    shutil.copy(sorted((clone / "data/demo/videos").rglob("*.mp4"))[1], video)
    output = subprocess.run(
        [Path(sys.executable).parent / "dvc", "repro", "-s", "extract@demo"], cwd=clone, capture_output=True, text=True,
        env=on_path(), timeout=300,
    )  # fmt: skip
    assert "17 videos finished, 1 to do" in output.stderr + output.stdout
    assert features.read_bytes() != before


def test_a_sweep_trains_only_what_is_new(clone):
    first = stages_run(run("dvc", "repro", "configs/sweep/dvc.yaml", cwd=clone))
    points = [stage.split(":")[-1] for stage in first if "point@" in stage]
    assert points == ["point@demo-1-2", "point@demo-7-2"]
    table = pd.read_csv(clone / "artifacts/sweeps/demo/sweep.csv")
    assert table.groupby("clips").size().to_dict() == {1: 3, 7: 3}
    assert (clone / "artifacts/sweeps/demo/figures/sweep_clips.png").is_file()

    change(clone / "configs/pipeline.yaml", r"clips: \[1, 7\]", "clips: [1, 3, 7]")
    again = [stage.split(":")[-1] for stage in stages_run(run("dvc", "repro", "configs/sweep/dvc.yaml", cwd=clone))]
    assert again == ["point@demo-3-2", "figure-8@demo"]
    assert sorted(pd.read_csv(clone / "artifacts/sweeps/demo/sweep.csv").clips.unique()) == [1, 3, 7]


def test_an_experiment_changes_stage_two_alone(clone):
    commit = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qam", "as it stands")
    run("git", "add", "-A", cwd=clone)
    run(*commit, cwd=clone)
    output = run("dvc", "exp", "run", "-S", "train.clips=5", "train-heads@demo-cefl", cwd=clone)
    assert stages_run(output) == ["train-heads@demo-cefl"]
    made = json.loads((clone / "artifacts/runs/demo/cefl/run.json").read_text())
    assert made["recipe"]["clips"] == 5
    assert (clone / "configs/heads.yaml").is_symlink()
    assert "clips: 5" in (clone / "configs/heads.yaml").read_text()
    assert "train.clips" in run("dvc", "params", "diff", cwd=clone)
    scores = json.loads(run("dvc", "metrics", "diff", "--all", "--json", cwd=clone))
    war = scores["artifacts/runs/demo/cefl/metrics.json"]["war.mean"]
    assert 0 <= war["old"] <= 1, "the scores of seven clips are in the commit"
    assert war["diff"] == pytest.approx(war["new"] - war["old"])


def test_a_data_set_that_is_listed_goes_through_both_stages(clone):
    """BU-4DFE's folders, three actors in them; only listing it in configs/pipeline.yaml is asked of a person."""
    for subject in ("F001", "F002", "M001"):
        for label, folder in zip(LABELS, ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise"), strict=True):
            pictures(clone / "data/bu3dfe" / subject / folder, performance(1 + int(subject[-1]), label))
    change(clone / "configs/pipeline.yaml", r"datasets: \[demo\]", "datasets: [demo, bu3dfe]")
    change(clone / "configs/bu3dfe.yaml", r"encoder: imagenet", "encoder: actors")
    change(clone / "configs/bu3dfe.yaml", r"folds: 10", "folds: 3")
    change(clone / "configs/bu3dfe.yaml", r"extract: \{.*\}", "extract: {size: 64}")
    ran = stages_run(run("dvc", "repro", "report@bu3dfe", cwd=clone))
    ran = [stage for stage in ran if stage != "encoder@actors"]  # there already, unless this test runs alone
    assert ran[:2] == ["manifest@bu3dfe", "extract@bu3dfe"]
    assert set(ran[2:4]) == {"train-heads@bu3dfe-cefl", "train-heads@bu3dfe-mean"}  # DVC takes equals in any order
    assert ran[4:] == ["report@bu3dfe"]
    metrics = json.loads((clone / "artifacts/runs/bu3dfe/cefl/metrics.json").read_text())
    assert (metrics["videos"], metrics["folds"], metrics["locating"]) == (18, 3, None)
