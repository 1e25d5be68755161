"""Real `dvc repro` in a fresh copy of the repository, on a tiny data set."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.fake_videos import LABELS, performance, write_images
from helpers.onnx_encoders import write_small
from helpers.run_cli import ROOT, env_with_path, replace_in_file
from safetensors.torch import load_file

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.stages.encoder.onnx_card import read_card
from ceflpipe.stages.encoder.weights import write_encoder

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
    "artifacts/weights/.gitkeep",
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The pipeline's files in a git repository of their own, with a tiny demo data set and short training."""
    home = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        source, target = ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    replace_in_file(home / "configs/demo.yaml", r"folds: 10", "folds: 3")
    replace_in_file(
        home / "configs/demo.yaml",
        r"demo: \{.*\}",
        "demo: {subjects: 3, size: 128, num_frames: [24, 30], fps: 25, seed: 1}",
    )
    replace_in_file(
        home / "configs/encoder.yaml",
        r"actors: \{.*\}",
        "actors: {num_images: 64, steps: 2, batch_size: 16, crop_size: 64, seed: 1}",
    )
    replace_in_file(home / "params.yaml", r"epochs: 120", "epochs: 2")
    replace_in_file(home / "configs/pipeline.yaml", r"num_clips: \[.*\]", "num_clips: [1, 7]")
    replace_in_file(home / "configs/pipeline.yaml", r"frames_per_clip: \[.*\]", "frames_per_clip: [2]")
    run("git", "init", "-q", cwd=home)
    run("git", "add", "-A", cwd=home)
    run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "copy", cwd=home)
    return home


def run(*command: str, cwd: Path) -> str:
    env = env_with_path(DVC_NO_ANALYTICS="1")
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def test_repro_runs_all_stages_and_then_only_what_has_changed(clone):
    first = stages_run(run("dvc", "repro", cwd=clone))
    assert first.index("demo") < first.index("manifest@demo")
    assert first[-1] == "report@demo"
    assert {"manifest@demo", "extract@demo-faces", "train-heads@demo-faces-cefl", "train-heads@demo-faces-mean"} <= set(
        first
    )
    assert not [stage for stage in first if stage.startswith("encoder")], "the demo's encoder comes with ceflpipe"
    assert [file.name for file in (clone / "artifacts/weights").iterdir()] == [".gitkeep"]
    assert (clone / "artifacts/reports/demo/report.html").stat().st_size > 10_000
    metrics = json.loads((clone / "artifacts/runs/demo/faces/cefl/metrics.json").read_text())
    assert metrics["videos"] == 21
    assert metrics["folds"] == 3
    assert metrics["locating_accuracy"]["videos"] == 18, "a neutral video has no apex"

    assert stages_run(run("dvc", "repro", cwd=clone)) == []

    replace_in_file(clone / "params.yaml", "learning_rate: 0.0001", "learning_rate: 0.0002")
    again = stages_run(run("dvc", "repro", cwd=clone))
    assert set(again) == {"config@demo", "train-heads@demo-faces-cefl", "train-heads@demo-faces-mean", "report@demo"}

    head = clone / "stages/heads/ceflnet.py"
    text = head.read_text()
    head.write_text(text + "\n# a change to a head\n")
    changed = json.loads(run("dvc", "status", "dvc.yaml", "--json", cwd=clone))
    head.write_text(text)
    assert set(changed) == {"train-heads@demo-faces-cefl", "train-heads@demo-faces-mean", "report@demo"}


def test_a_second_encoder_runs_its_own_stages_and_finds_no_face_again(clone):
    pipeline, before = clone / "configs/pipeline.yaml", (clone / "configs/pipeline.yaml").read_text()
    features = clone / "artifacts/features/demo/faces.h5"
    first = features.read_bytes()
    replace_in_file(pipeline, r"encoders: \[faces\]", "encoders: [faces, actors]")
    replace_in_file(pipeline, r"built: \[\]", "built: [actors]")
    output = run("dvc", "repro", cwd=clone)
    heads = {"train-heads@demo-actors-cefl", "train-heads@demo-actors-mean"}
    assert set(stages_run(output)) == {"encoder@actors", "config@demo", "extract@demo-actors", *heads, "report@demo"}
    assert features.read_bytes() == first
    digests = json.loads((clone / "artifacts/configs/demo.json").read_text())["encoders"]
    assert digests == {
        "faces": sha256_of(ROOT / "stages/encoder/pretrained/faces.safetensors"),
        "actors": sha256_of(clone / "artifacts/weights/actors.safetensors"),
    }
    again = ("extract", "--dataset", "demo", "--encoder", "actors", "--detections", "none", "--out", "from_nothing.h5")
    run(str(Path(sys.executable).parent / "ceflpipe"), *again, cwd=clone)
    assert (clone / "from_nothing.h5").read_bytes() == (clone / "artifacts/features/demo/actors.h5").read_bytes()
    pipeline.write_text(before)
    assert set(stages_run(run("dvc", "repro", cwd=clone))) == {"config@demo", "report@demo"}


def test_dvc_shows_metrics_plots_and_stages(clone):
    assert "war.mean" in run("dvc", "metrics", "show", cwd=clone)
    assert "file://" in run("dvc", "plots", "show", cwd=clone)
    assert "extract@demo-faces" in run("dvc", "dag", cwd=clone)
    assert "false" in run("dvc", "config", "core.analytics", cwd=clone)


def test_an_interrupted_extraction_resumes(clone):
    """DVC keeps the cache between runs (persist), so only what is missing is extracted."""
    features = clone / "artifacts/features/demo/faces.h5"
    before = features.read_bytes()
    video, other = sorted((clone / "data/demo/videos").rglob("*.mp4"))[:2]
    own = video.read_bytes()
    shutil.copy(other, video)
    output = subprocess.run(
        [Path(sys.executable).parent / "dvc", "repro", "-s", "extract@demo-faces"], cwd=clone, capture_output=True, text=True,
        env=env_with_path(), timeout=300,
    )  # fmt: skip
    assert "20 cached, 1 to extract" in output.stderr + output.stdout
    assert features.read_bytes() != before
    video.write_bytes(own)  # an edited video is not replaced, so the demo stage would refuse to run


def test_a_sweep_trains_only_new_runs(clone):
    first = stages_run(run("dvc", "repro", "configs/sweep/dvc.yaml", cwd=clone))
    runs = [stage.split(":")[-1] for stage in first if "run@" in stage]
    assert runs == ["run@demo-faces-1-2", "run@demo-faces-7-2"]
    table = pd.read_csv(clone / "artifacts/sweeps/demo/faces/sweep.csv")
    assert table.groupby("num_clips").size().to_dict() == {1: 3, 7: 3}
    assert len(list((clone / "artifacts/sweeps/demo/faces/figures").glob("sweep_*clips.png"))) == 1

    replace_in_file(clone / "configs/pipeline.yaml", r"num_clips: \[1, 7\]", "num_clips: [1, 3, 7]")
    again = [stage.split(":")[-1] for stage in stages_run(run("dvc", "repro", "configs/sweep/dvc.yaml", cwd=clone))]
    assert again == ["run@demo-faces-3-2", "figure-8@demo-faces", "report@demo"], (
        "the page is drawn again with the new values"
    )
    assert sorted(pd.read_csv(clone / "artifacts/sweeps/demo/faces/sweep.csv").num_clips.unique()) == [1, 3, 7]


def test_an_experiment_runs_stage_two_only(clone):
    commit = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qam", "all results")
    run("git", "add", "-A", cwd=clone)
    run(*commit, cwd=clone)
    output = run("dvc", "exp", "run", "-S", "train.num_clips=5", "train-heads@demo-faces-cefl", cwd=clone)
    assert stages_run(output) == ["config@demo", "train-heads@demo-faces-cefl"]
    config = json.loads((clone / "artifacts/runs/demo/faces/cefl/run.json").read_text())
    assert config["train"]["num_clips"] == 5
    assert "num_clips: 5" in (clone / "params.yaml").read_text()
    assert "train.num_clips" in run("dvc", "params", "diff", cwd=clone)
    scores = json.loads(run("dvc", "metrics", "diff", "--all", "--json", cwd=clone))
    war = scores["artifacts/runs/demo/faces/cefl/metrics.json"]["war.mean"]
    assert 0 <= war["old"] <= 1, "the metrics of seven clips are committed"
    assert war["diff"] == pytest.approx(war["new"] - war["old"])


def test_an_encoder_file_is_a_stage_and_reruns_nothing_of_the_others(clone, random_encoder):
    run("dvc", "repro", "extract@demo-faces", cwd=clone)
    checkpoint = clone / "data/my weights.safetensors"
    shutil.copy(random_encoder, checkpoint)
    replace_in_file(
        clone / "configs/encoder.yaml", r"files: \{\}", "files:\n  fer: {path: data/my weights.safetensors}"
    )
    assert stages_run(run("dvc", "repro", "extract@demo-faces", cwd=clone)) == ["encoder-file@fer", "config@demo"]
    assert (clone / "artifacts/weights/fer.safetensors").is_file()
    assert stages_run(run("dvc", "repro", "extract@demo-faces", cwd=clone)) == []
    write_encoder(checkpoint, load_file(random_encoder), "other", "unit", {"source": "changed, for tests"})
    assert stages_run(run("dvc", "repro", "extract@demo-faces", cwd=clone)) == ["encoder-file@fer", "config@demo"]


def test_a_network_is_a_stage_that_runs_again_if_it_or_its_options_change(clone):
    (clone / "data").mkdir(exist_ok=True)
    network, stage = write_small(clone / "data/network.onnx"), "encoder-network@mine"
    replace_in_file(
        clone / "configs/encoder.yaml", r"networks: \{\}",
        "networks:\n  mine: {path: data/network.onnx, mean: [0, 0, 0], std: [1, 1, 1]}",
    )  # fmt: skip
    assert stages_run(run("dvc", "repro", stage, cwd=clone)) == [stage]
    assert read_card(clone / "artifacts/weights/mine.onnx").std == (1, 1, 1)
    assert stages_run(run("dvc", "repro", stage, cwd=clone)) == []
    replace_in_file(clone / "configs/encoder.yaml", r"std: \[1, 1, 1\]", "std: [0.5, 0.5, 0.5]")
    assert stages_run(run("dvc", "repro", stage, cwd=clone)) == [stage]
    assert read_card(clone / "artifacts/weights/mine.onnx").std == (0.5, 0.5, 0.5)
    write_small(network, seed=1)
    assert stages_run(run("dvc", "repro", stage, cwd=clone)) == [stage]


def test_a_minimal_configuration_with_a_space_in_its_name_and_videos_that_are_links(clone):
    """No train:, labels:, options: or input: in it; dvc keeps the videos in its cache and links to them."""
    name = "my set"
    shutil.copytree(clone / "data/demo", clone / "data" / name)
    run("dvc", "config", "--local", "cache.type", "symlink", cwd=clone)
    run("dvc", "add", f"data/{name}", cwd=clone)
    run("dvc", "config", "--local", "--unset", "cache.type", cwd=clone)
    videos = list((clone / "data" / name).rglob("*.mp4"))
    assert len(videos) == 21
    assert all(video.is_symlink() for video in videos)
    (clone / "configs" / f"{name}.yaml").write_text(
        f"{{title: t, loader: demo, root: data/{name}, cv: {{folds: 3}}, allow_external_paths: true,\n"
        " extract: {encoder: faces}}\n"
    )
    replace_in_file(clone / "configs/pipeline.yaml", r"datasets: \[(.*)\]", rf"datasets: [\1, {name}]")
    ran = stages_run(run("dvc", "repro", f"train-heads@{name}-faces-mean", cwd=clone))
    assert ran == [f"config@{name}", f"manifest@{name}", f"extract@{name}-faces", f"train-heads@{name}-faces-mean"]
    assert (
        json.loads((clone / f"artifacts/runs/{name}/faces/mean/metrics.json").read_text())["videos_without_prediction"]
        == 0
    )


def test_a_listed_data_set_goes_through_both_stages(clone):
    """Folders as in BU-4DFE with three actors; a user only lists the data set in configs/pipeline.yaml."""
    for subject in ("F001", "F002", "M001"):
        for label, folder in zip(LABELS, ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise"), strict=True):
            write_images(clone / "data/bu4dfe" / subject / folder, performance(1 + int(subject[-1]), label))
    replace_in_file(clone / "configs/pipeline.yaml", r"datasets: \[(.*)\]", r"datasets: [\1, bu4dfe]")
    replace_in_file(clone / "configs/bu4dfe.yaml", r"folds: 10", "folds: 3, allow_leaks: true")
    replace_in_file(clone / "configs/bu4dfe.yaml", r"extract: \{.*\}", "extract: {encoder: faces, input: video}")
    ran = stages_run(run("dvc", "repro", "report@bu4dfe", cwd=clone))
    assert ran[:3] == ["config@bu4dfe", "manifest@bu4dfe", "extract@bu4dfe-faces"]
    assert set(ran[3:5]) == {"train-heads@bu4dfe-faces-cefl", "train-heads@bu4dfe-faces-mean"}  # in any order
    assert ran[5:] == ["report@bu4dfe"]
    metrics = json.loads((clone / "artifacts/runs/bu4dfe/faces/cefl/metrics.json").read_text())
    assert (metrics["videos"], metrics["folds"], metrics["locating_accuracy"]) == (18, 3, None)
