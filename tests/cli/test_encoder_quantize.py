"""ceflpipe encoder quantize, and features in int8 from videos to a prediction."""

import pytest
from helpers.run_cli import run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.cache.hdf5 import read_settings

pytestmark = pytest.mark.slow

LIST = ("--manifest", "list.csv")


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs):
    """Four short videos of two subjects, whose encoder has been quantized and has given its features."""
    home = tmp_path_factory.mktemp("home")
    rows = ["path,label,subject"]
    for i in range(4):
        write_video(home / f"v{i}.mp4", panning(photographs["astronaut"], 4, (192, 192), (90 + i, 10), (110, 20)))
        rows.append(f"v{i}.mp4,{('happy', 'sad')[i % 2]},S{i // 2}")
    (home / "list.csv").write_text("\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        done = run(home, "encoder", "quantize", *LIST, "--workers", 1)
        assert "int8_cosine: lowest 0.99" in done.stderr
        assert "next: ceflpipe extract --manifest list.csv --encoder faces-int8 --precision int8" in done.stderr
        run(home, "extract", *LIST, "--encoder", "faces-int8", "--precision", "int8", "--workers", 1)
        yield home


def run(home, *arguments, check=True):
    return run_cli_in_process(*arguments, cwd=home, check=check)


def test_features_in_int8_are_recorded_trained_on_and_predicted_with(home):
    cache = home / "artifacts/features/list/faces-int8.h5"
    assert (read_settings(cache).precision, read_settings(cache).backend) == ("int8", "openvino")
    before = cache.read_bytes()
    run(home, "extract", *LIST, "--encoder", "faces-int8", "--workers", 1)
    assert cache.read_bytes() == before
    run(home, "train-heads", *LIST, "--encoder", "faces-int8", "--head", "mean", "--epochs", 1, "--folds", 2)
    done = run(home, "predict", "v0.mp4", "--run", "artifacts/runs/list/faces-int8/mean")
    assert "happiness" in done.stdout
    card = run(home, "inspect", "artifacts/weights/faces-int8.safetensors").stdout
    assert "ranges measured on: 8 faces of 2 videos of list" in card
    assert "int8 cosine: lowest" in card


def test_it_is_made_once_and_a_dry_run_makes_nothing(home, tmp_path):
    path = home / "artifacts/weights/faces-int8.safetensors"
    before = path.read_bytes()
    assert "exists; make it again with --force" in run(home, "encoder", "quantize", *LIST).stderr
    run(home, "encoder", "quantize", *LIST, "--force", "--workers", 1)
    assert path.read_bytes() == before
    for name in ("list.csv", *(f"v{i}.mp4" for i in range(4))):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    assert "dry run: nothing was done" in run(tmp_path, "encoder", "quantize", *LIST, "--dry-run").stdout
    assert not (tmp_path / "artifacts/weights").exists()
    assert not (tmp_path / "artifacts/crops").exists()


def test_fold_encoders_of_int8_features_are_refused_before_they_are_trained(home):
    done = run(home, "encoder", "adapt", *LIST, "--encoder", "faces-int8", "--folds", 2, check=False)
    assert (done.returncode, "has features in int8, which encoders of folds cannot compute" in done.stderr) == (2, True)


def test_int8_without_ranges_says_what_to_run(home):
    done = run(home, "extract", *LIST, "--precision", "int8", "--out", "other.h5", check=False)
    assert done.returncode == 2
    assert "faces.safetensors has no ranges of activations; make an encoder that has them with" in done.stderr
    assert not (home / "other.h5").exists()
