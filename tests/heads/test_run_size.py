"""Size of a run on disk: the estimate is enough and not far too much, and a sweep asks for all of its runs."""

import shutil
from dataclasses import replace

import pytest
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache import ownership
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline import training
from ceflpipe.stages.heads import chunks, cross_validation
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.run_size import estimate_run_size
from ceflpipe.stages.heads.sweep import RunSpec
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(num_clips=7, frames_per_clip=2, epochs=2, warmup_epochs=0, precision="fp32")


def folder_bytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def data(tmp_path):
    manifest = fake_manifest(tmp_path, subjects=20)
    fake_cache(tmp_path / "x.h5", manifest, frames=(36, 40))
    return manifest


@pytest.mark.parametrize(
    ("head", "epochs", "seeds", "tune"),
    [("cefl", 1, 1, ()), ("mean", 40, 3, ()), ("mean", 40, 1, ("learning_rate", "weight_decay"))],
)
def test_the_estimate_covers_a_run_and_its_chunks(data, tmp_path, monkeypatch, head, epochs, seeds, tune):
    config = CONFIG.model_copy(update={"head": head, "epochs": epochs})
    cv, unfinished = CVConfig(fold_scheme="subject", folds=4, seed=1, num_seeds=seeds, tune=tune), []
    remove = chunks.FinishedChunks.remove

    def measure(self):
        unfinished.append(folder_bytes(self.folder))
        remove(self)

    monkeypatch.setattr(chunks.FinishedChunks, "remove", measure)
    run = cross_validate(data, read_features(tmp_path / "x.h5"), config, cv, tmp_path / "run")
    size = estimate_run_size(data, config, cv, 512)
    assert folder_bytes(run.path) <= size.finished <= 4 * folder_bytes(run.path)
    assert max(unfinished) <= size.unfinished <= 4 * max(unfinished)


def limit_space(monkeypatch, free):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=free))


def test_a_run_and_a_sweep_without_free_space_are_refused_before_a_head_is_trained(data, tmp_path, monkeypatch):
    cv, table = CVConfig(fold_scheme="subject", folds=2, seed=1), read_features(tmp_path / "x.h5")
    config = CONFIG.model_copy(update={"head": "mean"})
    size, trained = estimate_run_size(data, config, cv, 512), []
    monkeypatch.setattr(cross_validation, "train", lambda *arguments: trained.append(arguments))
    limit_space(monkeypatch, size.finished + size.unfinished - 1)
    with pytest.raises(CeflError, match=r"MB are free, and about 0\.1 MB are needed"):
        cross_validate(data, table, config, cv, tmp_path / "runs/one")
    spec = RunSpec(data, tmp_path / "x.h5", config, cv, tmp_path / "runs/one")
    limit_space(monkeypatch, size.finished + size.unfinished)
    training._check_disk_space([spec], 512, 1)
    specs = [replace(spec, out=tmp_path / f"runs/{number}") for number in range(3)]
    with pytest.raises(CeflError, match="MB are free"):
        training.run_sweep(specs, workers=1)
    limit_space(monkeypatch, 3 * size.finished + size.unfinished)
    training._check_disk_space(specs, 512, 1)
    with pytest.raises(CeflError, match="MB are free"):
        training._check_disk_space(specs, 512, 2)
    assert not trained
    assert not (tmp_path / "runs").exists()
