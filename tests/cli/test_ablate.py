"""`ceflpipe ablate`: how far the training of each row had come is said beside its score."""

import json

import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli_in_process

from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.manifest.manifest import write_manifest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate")
    manifest = fake_manifest(folder)
    write_manifest(folder / "mine.csv", manifest.entries)
    fake_cache(folder / "artifacts/features/mine/random.h5", manifest, signal=30)
    return folder


def ablate(home, *options):
    command = ("ablate", "--manifest", "mine.csv", "--heads", "mean,cefl", "--folds", 2, "--quiet", *options)
    return run_cli_in_process(*command, cwd=home, check=True).stdout


@pytest.mark.parametrize(("epochs", "are_trained"), [(1, [False, False]), (12, [False, True])])
def test_a_row_that_ends_under_trained_is_named(home, epochs, are_trained):
    """The warm-up lasts ten epochs, so that nothing is learned in one; CEFLNet learns much faster than the mean of frames."""
    options = ("--epochs", epochs, "--out", f"rows-{epochs}")
    lines = ablate(home, *options).splitlines()
    values = json.loads(ablate(home, *options, "--json"))["train_accuracy"]
    for head, title, is_trained in zip(
        ("mean", "cefl"), ("mean of frames", "CEFLNet (paper's equations)"), are_trained, strict=True
    ):
        history = read_run(home / f"rows-{epochs}" / head).history()
        expected = history[history.epoch == epochs].train_accuracy.mean()
        assert values[head] == pytest.approx(expected, abs=1e-4)
        (row,) = [line for line in lines if line.strip().startswith(f"{title} ") and "under-trained" not in line]
        assert f" {100 * expected:.2f} " in row
        warnings = [line for line in lines if line.startswith(f"{title} ends under-trained: {expected:.1%}")]
        assert bool(warnings) != is_trained
        assert all("ceflpipe sweep --heads mean,cefl --lr" in line for line in warnings)
