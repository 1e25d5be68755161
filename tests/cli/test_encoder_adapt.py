"""ceflpipe encoder adapt and train-end-to-end, and their rows beside those of frozen features."""

import json
import shutil

import pytest
import torch
from helpers.run_cli import run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.cache.hdf5 import fold_caches, read_index
from ceflpipe.stages.encoder.weights import read_encoder_metadata, resnet18_backbone, write_encoder

pytestmark = pytest.mark.slow

LIST = ("--manifest", "list.csv")
FOLDS = ("--folds", 2)
HEADS = ("--epochs", 2, *FOLDS)
SMALL = ("--epochs", 1, "--frames", 2, "--variants", 1, "--workers", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs):
    """Eight short videos of four subjects, an encoder, and its features."""
    home = tmp_path_factory.mktemp("home")
    rows = ["path,label,subject"]
    for i in range(8):
        frames = panning(photographs["astronaut"], 4, (192, 192), (90 + i, 10), (110, 20))
        write_video(home / f"v{i}.mp4", frames)
        rows.append(f"v{i}.mp4,{('happy', 'sad')[i % 2]},S{i // 2}")
    (home / "list.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    path = home / "artifacts/weights/small.safetensors"
    write_encoder(path, resnet18_backbone().state_dict(), "small", "imagenet", {}, crop_size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        run(home, "extract", *LIST, "--encoder", "small", "--workers", 1)
        run(home, "train-heads", *LIST, "--encoder", "small", "--head", "mean", *HEADS)
        run(home, "encoder", "adapt", *LIST, "--encoder", "small", *FOLDS, *SMALL)
        yield home


def run(home, *arguments, check=True):
    return run_cli_in_process(*arguments, cwd=home, check=check)


def test_adapt_makes_crops_encoders_and_features_and_is_done_the_second_time(home):
    encoders = sorted((home / "artifacts/weights/folds/list/small-adapted").glob("*.safetensors"))
    features = fold_caches(home / "artifacts/features/list/small-adapted")
    assert [file.stem for file in encoders] == list(features) == ["fold-1", "fold-2"]
    assert len(read_index(home / "artifacts/crops/list/32px.h5")) == 8
    before = {file: file.stat().st_mtime_ns for file in (*encoders, *features.values())}
    done = run(home, "encoder", "adapt", *LIST, "--encoder", "small", *FOLDS, *SMALL, "--json")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    content = json.loads(done.stdout)
    assert content["encoder"] == "small-adapted"
    assert [row["fold"] for row in content["folds"]] == ["1", "2"]


def test_a_dry_run_says_what_it_takes_and_does_nothing(home, tmp_path):
    for name in ("list.csv", "artifacts/weights/small.safetensors", *(f"v{i}.mp4" for i in range(8))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / name, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    done = run(tmp_path, "encoder", "adapt", *LIST, "--encoder", "small", *FOLDS, *SMALL, "--dry-run")
    assert "2 folds of 8 videos" in done.stderr
    assert "of the test, which are not used" in done.stderr
    assert "8 to make" in done.stderr
    done = run(tmp_path, "train-end-to-end", *LIST, "--encoder", "small", *HEADS, "--dry-run")
    assert "2 subject-wise folds, 1 seed, 2 epochs, batches of 8 videos of at most 35 crops" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_other_settings_are_refused_unless_forced_and_other_folds_by_train_heads(home):
    done = run(home, "encoder", "adapt", *LIST, "--encoder", "small", *FOLDS, *SMALL, "--lr", 0.01, check=False)
    assert (done.returncode, "learning_rate 0.0001, now 0.01" in done.stderr) == (2, True)
    done = run(home, "train-heads", *LIST, "--encoder", "small-adapted", "--epochs", 1, "--folds", 4, check=False)
    assert (done.returncode, "ceflpipe encoder adapt, for these folds" in done.stderr) == (2, True), done.stderr


def test_frozen_adapted_and_end_to_end_stand_in_one_table(home):
    encoders = "small,small-adapted,small-end-to-end"
    done = run(home, "ablate", *LIST, "--encoders", encoders, "--heads", "mean", *HEADS, check=False)
    assert done.returncode == 2
    assert "train one with ceflpipe train-end-to-end --manifest list.csv --encoder small" in done.stderr
    run(home, "train-end-to-end", *LIST, "--encoder", "small", "--head", "mean", *HEADS, "--precision", "fp32")
    done = run(home, "ablate", *LIST, "--encoders", encoders, "--heads", "mean", *HEADS, "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [row["encoder"] for row in rows] == encoders.split(",")
    assert [row["is_per_fold"] for row in rows] == [False, True, True]
    assert all(row["hours"] > 0 for row in rows)
    assert all(row["difference"]["n"] == 2 for row in rows[1:])
    run(home, "report", *LIST, "--encoder", "small")
    page = (home / "artifacts/reports/list/report.html").read_text()
    assert "small-end-to-end" in page
    assert "are what its cached features cost" in page


def test_an_end_to_end_run_with_other_settings_is_not_compared(home):
    encoders = "small,small-end-to-end"
    done = run(home, "ablate", *LIST, "--encoders", encoders, "--heads", "mean", "--epochs", 3, *FOLDS, check=False)
    assert (done.returncode, "differs from" in done.stderr, "train.epochs" in done.stderr) == (2, True, True), done


def test_predict_refuses_a_run_with_an_encoder_for_each_fold(home):
    run(home, "train-heads", *LIST, "--encoder", "small-adapted", "--head", "mean", *HEADS)
    done = run(home, "predict", "v0.mp4", "--run", "artifacts/runs/list/small-adapted/mean", check=False)
    assert (done.returncode, "a run with an encoder for each fold" in done.stderr) == (2, True)


def test_a_final_head_needs_one_encoder(home):
    done = run(
        home, "train-heads", *LIST, "--encoder", "small-adapted", "--head", "mean", *HEADS, "--final", check=False
    )
    assert done.returncode == 2
    assert "none is for all videos" in done.stderr


def test_a_report_of_adapted_features_says_what_it_leaves_out(home):
    run(home, "train-heads", *LIST, "--encoder", "small-adapted", "--head", "mean", *HEADS)
    done = run(home, "report", *LIST, "--encoder", "small-adapted", "--out", "page")
    assert "Each fold has features of its own in artifacts/features/list/small-adapted" in done.stderr


def test_one_fold_is_adapted_alone_and_the_word_adapt_is_no_source(home, tmp_path):
    shutil.copytree(home, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/artifacts/weights/folds")
    done = run(
        tmp_path / "copy",
        "encoder",
        "adapt",
        *LIST,
        "--encoder",
        "small",
        *FOLDS,
        *SMALL,
        "--only-folds",
        "2",
        "--json",
    )
    (row,) = json.loads(done.stdout)["folds"]
    assert read_encoder_metadata(tmp_path / "copy" / row["encoder"]).metadata["fold"] == "2"
    done = run(home, "encoder", "adapt", "--only-folds", "9", *LIST, "--encoder", "small", *FOLDS, check=False)
    assert (done.returncode, "no such fold; there are 1, 2" in done.stderr) == (2, True)
    done = run(home, "encoder", "--help")
    assert "ceflpipe encoder adapt --help" in done.stdout


def test_the_card_of_a_fold_s_encoder_counts_what_it_was_trained_on(home):
    done = run(home, "inspect", "artifacts/weights/folds/list/small-adapted/fold-1.safetensors")
    assert "- train sources: 4 video files, whose hashes the file lists" in done.stdout
    assert "- base: small" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 500
    done = run(home, "extract", *LIST, "--encoder", "small-adapted", check=False)
    assert (done.returncode, "has an encoder for each fold" in done.stderr) == (2, True)
