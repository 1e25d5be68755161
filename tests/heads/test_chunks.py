"""Chunks of models: the same results as in one piece, kept over an interruption, one writer of a run at a time."""

import errno
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest
from safetensors.torch import load_file, save_file

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.commands.options import MemorySize
from ceflpipe.stages.heads import cross_validation, free_memory
from ceflpipe.stages.heads.chunks import bytes_per_model, concatenate_weights
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.free_memory import available_bytes
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(
    head="mean", num_clips=3, frames_per_clip=2, epochs=2, warmup_epochs=0, learning_rate=0.001, precision="fp32"
)
CV = CVConfig(fold_scheme="subject", folds=3, seed=1, num_seeds=2)  # six models
ONE_BY_ONE = 1
"""A memory bound that holds one model at a time."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("chunks")
    manifest = fake_manifest(home)
    fake_cache(home / "x.h5", manifest)
    return manifest, read_features(home / "x.h5")


def files_of(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file()}


class Interruption:
    """Stops training after so many epochs of all models together."""

    def __init__(self, error, after):
        self.error, self.after, self.calls = error, after, []

    def __call__(self, completed, total, note=""):
        self.calls.append(completed)
        if len(self.calls) == self.after:
            raise self.error


def test_chunks_give_the_run_in_one_piece(data, tmp_path):
    config = CONFIG.model_copy(update={"head": "cefl"})
    whole = cross_validate(*data, config, CV, tmp_path / "whole")
    parts = cross_validate(*data, config, CV, tmp_path / "parts", memory=ONE_BY_ONE)
    for name in ("models", "folds", "parameters_per_model"):
        assert whole.config[name] == parts.config[name]
    pd.testing.assert_frame_equal(whole.history(), parts.history(), rtol=1e-3)
    pd.testing.assert_frame_equal(whole.predictions(), parts.predictions(), rtol=1e-3)
    for expected, actual in zip(whole.head().parameters(), parts.head().parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_an_interrupted_run_goes_on_after_its_last_finished_chunk_with_the_same_bytes(error, data, tmp_path):
    cross_validate(*data, CONFIG, CV, tmp_path / "expected", memory=ONE_BY_ONE)
    with pytest.raises(type(error)) as stopped:
        cross_validate(*data, CONFIG, CV, tmp_path / "run", memory=ONE_BY_ONE, on_progress=Interruption(error, 6))
    assert stopped.value.__notes__[-1] == "2 of 6 models are finished and kept; run the same command to go on."
    assert not (tmp_path / "run").exists()
    progress = Interruption(None, -1)
    cross_validate(*data, CONFIG, CV, tmp_path / "run", memory=ONE_BY_ONE, on_progress=progress)
    assert len(progress.calls) == 4 * CONFIG.epochs, "of four models"
    assert files_of(tmp_path / "run") == files_of(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "run"]


def test_an_interrupted_tuning_goes_on_after_its_last_finished_part_with_the_same_bytes(data, tmp_path):
    """Twelve candidates, two at a time, then six models: 6 + 3 parts of two epochs."""
    cv = CV.model_copy(update={"tune": ("learning_rate",), "tune_learning_rates": (0.001, 0.01)})
    with pytest.raises(KeyboardInterrupt):
        cross_validate(*data, CONFIG, cv, tmp_path / "expected", on_progress=Interruption(KeyboardInterrupt(), 1))
    two = bytes_per_model(512 * 3 + 3, 512, 18, CONFIG) * 2
    whole = Interruption(None, -1)
    cross_validate(*data, CONFIG, cv, tmp_path / "expected", memory=two, on_progress=whole)
    assert whole.calls == sorted(whole.calls)
    assert (len(whole.calls), whole.calls[-1]) == (9 * CONFIG.epochs, 3 * CONFIG.epochs)
    with pytest.raises(KeyboardInterrupt) as stopped:
        cross_validate(
            *data, CONFIG, cv, tmp_path / "run", memory=two, on_progress=Interruption(KeyboardInterrupt(), 6)
        )
    assert stopped.value.__notes__[-1] == (
        "No model was finished; of the tuning, 2 parts; run the same command to go on."
    )
    progress = Interruption(None, -1)
    cross_validate(*data, CONFIG, cv, tmp_path / "run", memory=two, on_progress=progress)
    assert progress.calls == whole.calls[4:]
    assert files_of(tmp_path / "run") == files_of(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "run"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CeflError("fold 1: loss is NaN")], ids=repr)
def test_with_nothing_finished_nothing_is_promised_or_left(error, data, tmp_path):
    with pytest.raises(type(error)) as stopped:
        cross_validate(*data, CONFIG, CV, tmp_path / "run", on_progress=Interruption(error, 1))
    assert stopped.value.__notes__[-1].startswith("No model was finished")
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_written_keeps_all_models(data, tmp_path, monkeypatch):
    def full_disk(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cross_validation, "write_run", full_disk)
    with pytest.raises(OSError, match="No space") as stopped:
        cross_validate(*data, CONFIG, CV, tmp_path / "run")
    assert stopped.value.__notes__[-1].startswith("6 of 6 models")
    monkeypatch.undo()
    progress = Interruption(None, -1)
    cross_validate(*data, CONFIG, CV, tmp_path / "run", on_progress=progress)
    assert not progress.calls


@pytest.mark.parametrize("change", [{"train": {"learning_rate": 0.002}}, {"code": "other"}, {"damage": True}], ids=str)
def test_chunks_of_another_configuration_or_code_and_damaged_ones_are_trained_again(
    change, data, tmp_path, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        cross_validate(
            *data, CONFIG, CV, tmp_path / "run", memory=ONE_BY_ONE, on_progress=Interruption(KeyboardInterrupt(), 6)
        )
    config = CONFIG.model_copy(update=change.get("train", {}))
    if "code" in change:
        monkeypatch.setattr("ceflpipe.stages.heads.run_io.code_hash", lambda *entries: "other")
    if "damage" in change:
        weights = tmp_path / ".run.unfinished/0.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    progress = Interruption(None, -1)
    cross_validate(*data, config, CV, tmp_path / "run", memory=ONE_BY_ONE, on_progress=progress)
    assert len(progress.calls) == (5 if "damage" in change else 6) * CONFIG.epochs


def test_a_second_writer_of_a_run_is_refused(data, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")  # another name of the same folder

    def start_another(completed, total, note=""):
        with pytest.raises(CeflError, match="another process is writing it"):
            cross_validate(*data, CONFIG, CV, tmp_path / "link")

    cross_validate(*data, CONFIG, CV, tmp_path / "run", on_progress=start_another)


def test_joined_weights_are_the_file_that_safetensors_writes(tmp_path):
    parts = [{"b.weight": torch.rand(m, 3, 2), "a": torch.rand(m, 5)} for m in (2, 1, 3)]
    for number, part in enumerate(parts):
        save_file(part, tmp_path / str(number))
    concatenate_weights([tmp_path / str(number) for number in range(3)], tmp_path / "joined")
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    save_file(whole, tmp_path / "whole")
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    assert load_file(tmp_path / "joined")["a"].shape == (6, 5)


def test_the_memory_of_a_container_bounds_the_machines(tmp_path, monkeypatch):
    free = available_bytes(torch.device("cpu"))
    assert free > 1 << 20
    (tmp_path / "max").write_text("3000000\n")
    (tmp_path / "current").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    current = tmp_path / "current"
    monkeypatch.setattr(
        free_memory, "_cgroup_files", lambda: [(tmp_path / "none", current), (tmp_path / "max", current)]
    )
    assert available_bytes(torch.device("cpu")) == 2_000_000


def test_sizes_of_memory_have_units():
    sizes = {"8GB": 8 << 30, "8": 8 << 30, "1.5 g": 3 << 29, "500MB": 500 << 20, "500m": 500 << 20}
    assert {text: MemorySize().convert(text, None, None) for text in sizes} == sizes
