"""The command line as a user meets it: another process, exit codes, one clear line for bad input."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers.cli import ROOT, run_cli
from helpers.video import panning, write_video

COMMANDS = [
    "demo",
    "manifest",
    "check",
    "datasets",
    "encoder",
    "extract",
    "inspect",
    "train-heads",
    "sweep",
    "ablate",
    "complexity",
    "predict",
    "report",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, photographs, random_encoder):
    """A folder as a user has it: twelve short videos of two 'subjects', a list of them, an encoder."""
    home = tmp_path_factory.mktemp("workplace")
    lines = ["path,label,subject,apex"]
    for i in range(12):
        frames = panning(photographs["astronaut"], 12, (224, 224), (100, 10), (100 + i, 20))
        write_video(home / "videos" / f"v{i}.mp4", frames)
        lines.append(f"videos/v{i}.mp4,{'Happy' if i % 2 else 'Sad'},S{i // 2},6")
    (home / "mine.csv").write_text("\n".join(lines) + "\n")
    (home / "artifacts" / "weights").mkdir(parents=True)
    shutil.copy(random_encoder, home / "artifacts" / "weights" / "random.safetensors")
    return home


@pytest.fixture(scope="module")
def trained(workplace):
    """The same folder after stage one and stage two."""
    run_cli(
        "extract",
        "--manifest",
        "mine.csv",
        "--encoder",
        "random",
        "--crop-size",
        64,
        "--precision",
        "fp32",
        cwd=workplace,
        check=True,
    )
    run_cli("train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, cwd=workplace, check=True)
    return workplace


def one_clear_line(result, *words, code=2):
    assert result.returncode == code, result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout
    for word in words:
        assert word in result.stderr + result.stdout, result.stderr + result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run_cli(command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
    assert f"ceflpipe {command}" in result.stdout.replace("\n", " ")


def test_the_help_lists_every_command_and_imports_no_torch():
    import subprocess
    import sys

    result = run_cli("--help")
    assert all(f"  {command} " in result.stdout for command in COMMANDS)
    code = "import sys; sys.argv=['ceflpipe','--help']\nfrom ceflpipe.pipeline.cli import main\ntry: main()\nexcept SystemExit: pass\nassert not {'torch','cv2','pandas','matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_persons_own_videos_from_list_to_report(trained):
    run = trained / "artifacts/runs/mine/cefl"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["videos"] == 12
    assert metrics["folds"] == 3
    assert metrics["locating"]["videos"] == 12
    shown = run_cli("report", "--manifest", "mine.csv", cwd=trained, check=True).stdout.strip()
    page = (trained / shown).read_text()
    assert "default-src 'none'" in page  # scripts may name addresses, but nothing may be fetched
    assert not re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)=["\']?https?:', page)
    said = json.loads(run_cli("predict", "videos/v3.mp4", "--run", run, "--json", cwd=trained, check=True).stdout)
    assert said[0]["label"] in ("happiness", "sadness")
    assert said[0]["frames"] == said[0]["frames_with_face"] == 12
    assert sum(said[0]["probabilities"].values()) == pytest.approx(1)
    assert sum(share for _, _, share in said[0]["intensity"]) == pytest.approx(1, abs=1e-4)


def test_predictions_files_are_enough_to_compute_the_metrics_again(trained):
    """With pandas alone: accuracy per fold, its mean and both deviations."""
    import pandas as pd

    run = trained / "artifacts/runs/mine/cefl"
    table = pd.concat([pd.read_csv(f) for f in (run / "predictions").glob("*.csv")])
    metrics = json.loads((run / "metrics.json").read_text())
    war = (table.label == table.predicted).groupby(table.fold).mean()
    assert metrics["war"]["mean"] == pytest.approx(war.mean())
    assert metrics["war"]["std_ddof0"] == pytest.approx(war.std(ddof=0))
    assert metrics["war"]["std_ddof1"] == pytest.approx(war.std(ddof=1))
    assert sorted(table.id) == sorted(f"videos/v{i}" for i in range(12))
    p = table[["p_happiness", "p_sadness"]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(trained):
    run = trained / "artifacts/runs/mine/cefl"
    run_cli(
        "train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, "--out", "again", cwd=trained, check=True
    )
    for name in ("metrics.json", "history.csv", "weights.safetensors", "predictions/fold-1.csv"):
        assert (trained / "again" / name).read_bytes() == (run / name).read_bytes()


def test_check_says_what_there_is(workplace):
    result = run_cli("check", "--manifest", "mine.csv", cwd=workplace, check=True)
    assert "12 videos, 6 subjects" in result.stdout
    assert "144 in all" in result.stdout
    counted = json.loads(run_cli("check", "--manifest", "mine.csv", "--json", cwd=workplace, check=True).stdout)
    assert counted["labels"] == {"happiness": 6, "sadness": 6}


def test_manifest_of_a_folder(workplace, tmp_path):
    for label in ("Happy", "sad"):
        (tmp_path / label).mkdir()
        shutil.copy(workplace / "videos/v0.mp4", tmp_path / label / "a.mp4")
    listing = run_cli("manifest", "--folder", tmp_path, cwd=workplace, check=True).stdout.strip()
    assert "Happy/a,Happy/a.mp4,happiness" in (tmp_path / "videos.csv").read_text()
    assert listing.endswith("videos.csv")
    assert run_cli("check", "--manifest", tmp_path / "videos.csv", cwd=workplace).returncode == 0


@pytest.mark.slow
def test_dry_run_and_failures_and_exit_codes(trained):
    dry = run_cli("extract", "--manifest", "mine.csv", "--encoder", "random", "--dry-run", cwd=trained)
    assert dry.returncode == 0
    assert "size 64, now 224" in dry.stderr
    (trained / "broken.csv").write_text("path,label\nvideos/v0.mp4,fear\ngone.mp4,fear\n")
    result = run_cli("extract", "--manifest", "broken.csv", "--encoder", "random", "--crop-size", 64, cwd=trained)
    one_clear_line(result, "gone", "no such file", "1 of 2 videos failed", code=1)
    tolerant = run_cli(
        "extract",
        "--manifest",
        "broken.csv",
        "--encoder",
        "random",
        "--crop-size",
        64,
        "--max-failed",
        0.5,
        cwd=trained,
    )
    assert tolerant.returncode == 0


BAD = {
    "unknown command": (["extarct"], ["did you mean extract"]),
    "data set not configured": (["extract", "--dataset", "dmeo"], ["did you mean demo", "known: "]),
    "data set not on disk": (
        ["extract", "--dataset", "demo", "--encoder", "random"],
        ["no folder data/demo", "ceflpipe demo", "--root"],
    ),
    "encoder not there": (
        ["extract", "--manifest", "mine.csv", "--encoder", "fer"],
        ["artifacts/weights/fer.safetensors", "ceflpipe encoder fer"],
    ),
    "no encoder named": (["extract", "--manifest", "mine.csv"], ["--encoder is needed"]),
    "both sources": (["extract", "--manifest", "mine.csv", "--dataset", "demo"], ["not both"]),
    "manifest not there": (["check", "--manifest", "nowhere.csv"], ["nowhere.csv: no such manifest"]),
    "no features yet": (
        ["train-heads", "--manifest", "mine.csv", "--features", "none.h5"],
        ["none.h5: no such feature cache"],
    ),
    "too many folds": (["train-heads", "--manifest", "mine.csv", "--folds", "50"], ["only 6 subjects", "--folds 6"]),
    "clips do not fit": (["train-heads", "--manifest", "mine.csv", "--clips", "11"], ["115 of 105 slots"]),
    "unknown head": (["train-heads", "--manifest", "mine.csv", "--head", "cefal"], ["did you mean cefl"]),
    "negative rate": (["train-heads", "--manifest", "mine.csv", "--lr", "-1"], ["learning_rate"]),
    "run is none": (["predict", "videos/v0.mp4", "--run", "artifacts"], ["not a run folder"]),
    "video is none": (["predict", "mine.csv", "--run", "artifacts/runs/mine/cefl"], ["mine.csv: not a video"]),
    "video not there": (["predict", "nix.mp4", "--run", "artifacts/runs/mine/cefl"], ["no such file"]),
    "no such device": (
        ["extract", "--manifest", "mine.csv", "--encoder", "random", "--device", "cuda:9"],
        ["CUDA devices"],
    ),
    "source of encoder": (["encoder", "magic"], ["actors, imagenet, or file:PATH"]),
    "manifest of a manifest": (["manifest", "--manifest", "mine.csv"], ["is a manifest already"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line(case, trained):
    arguments, words = BAD[case]
    one_clear_line(run_cli(*arguments, cwd=trained), *words)


def test_unknown_config_key(trained, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.yaml").write_text((ROOT / "configs/demo.yaml").read_text() + "trian: {}\n")
    one_clear_line(run_cli("check", cwd=tmp_path), "configs/demo.yaml: unknown key trian; did you mean train?")
    (tmp_path / "configs/demo.yaml").write_text("title: x\nloader: demo\nroot: data\nextract: {sise: 3}\n")
    one_clear_line(run_cli("check", cwd=tmp_path), "unknown key extract.sise; did you mean extract.size?")
    (tmp_path / "configs/demo.yaml").write_text("title: !!python/object/apply:os.system ['touch hacked']\n")
    one_clear_line(run_cli("check", cwd=tmp_path), "not YAML that can be read")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.slow
def test_a_cache_of_another_encoder_is_refused_with_the_cure(trained, tmp_path, random_encoder):
    """The configured data set's weights have changed since its features were made."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.yaml").write_text(
        f"title: mine\nloader: csv_list\nroot: {trained}\nencoder: random\nprotocol: {{folds: 3}}\nextract: {{size: 64}}\n"
    )
    shutil.copy(trained / "mine.csv", trained / "videos.csv")
    weights = tmp_path / "artifacts/weights/random.safetensors"
    weights.parent.mkdir(parents=True)
    shutil.copy(random_encoder, weights)
    run_cli("extract", "--dataset", "mine", cwd=tmp_path, check=True)
    run_cli("train-heads", "--dataset", "mine", "--epochs", 1, cwd=tmp_path, check=True)
    from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder

    write_encoder(weights, resnet18_backbone().state_dict(), "random", "unit", {})
    one_clear_line(
        run_cli("train-heads", "--dataset", "mine", "--epochs", 1, cwd=tmp_path),
        "made with other encoder weights",
        "ceflpipe extract --dataset mine",
    )
    one_clear_line(
        run_cli("predict", trained / "videos/v0.mp4", "--run", "artifacts/runs/mine/cefl", cwd=tmp_path),
        "not the encoder this run was trained with",
    )


@pytest.mark.slow
def test_weights_of_the_wrong_shape(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    shutil.copytree(trained / "artifacts/runs/mine/cefl", run)
    state = load_file(run / "weights.safetensors")
    save_file({k: v[:, :3].contiguous() for k, v in state.items()}, run / "weights.safetensors")
    again = ("predict", "videos/v0.mp4", "--run", run)
    one_clear_line(run_cli(*again, cwd=trained), "weights.safetensors: not as it was written")
    import hashlib

    sums = run / "SHA256SUMS"
    digest = hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
    lines = [line for line in sums.read_text().splitlines() if not line.endswith("weights.safetensors")]
    sums.write_text("\n".join([*lines, f"{digest}  weights.safetensors"]))
    one_clear_line(run_cli(*again, cwd=trained), "weights.safetensors: not the weights of this run's head")
