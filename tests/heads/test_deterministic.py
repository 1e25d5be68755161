"""Deterministic training: torch's settings while it trains, restored afterwards; the same bytes on a processor."""

import os

import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.device import deterministic_algorithms
from ceflpipe.stages.heads import cross_validation
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(num_clips=3, frames_per_clip=2, epochs=2, learning_rate=0.001, precision="fp32")
CV = CVConfig(folds=2)


def settings():
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


DETERMINISTIC = {
    "algorithms": True, "warn only": False, "cudnn": True, "benchmark": False, "fill": False, "workspace": ":4096:8",
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "x.h5", manifest)
    return manifest, read_features(tmp_path / "x.h5")


@pytest.fixture(params=["default", "own"])
def before(request, monkeypatch):
    """Torch's own settings, and those of a caller that has changed all of them."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if request.param == "own":
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        torch.use_deterministic_algorithms(True, warn_only=True)
    yield settings()
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [True, False])
def test_training_and_testing_run_with_the_settings_and_restore_them(
    data, tmp_path, monkeypatch, before, deterministic
):
    during = []

    def recording(function):
        def call(*arguments, **values):
            during.append(settings())
            return function(*arguments, **values)

        return call

    for name in ("train", "evaluate"):
        monkeypatch.setattr(cross_validation, name, recording(getattr(cross_validation, name)))
    config = CONFIG.model_copy(update={"deterministic": deterministic})
    run = cross_validate(*data, config, CV, tmp_path / "run")
    assert len(during) == 1 + CONFIG.epochs + 1
    assert all(each == (DETERMINISTIC if deterministic else before) for each in during)
    assert settings() == before
    assert run.train_config.deterministic is deterministic


def test_on_a_processor_training_has_the_same_bytes_with_and_without(data, tmp_path):
    for name in ("plain", "deterministic"):
        config = CONFIG.model_copy(update={"deterministic": name == "deterministic"})
        cross_validate(*data, config, CV, tmp_path / name)
    files = [file for file in sorted((tmp_path / "plain").rglob("*")) if file.suffix in (".safetensors", ".csv")]
    assert {file.name for file in files} >= {"history.csv", "tuning.csv", "weights.safetensors"}
    for file in files:
        assert file.read_bytes() == (tmp_path / "deterministic" / file.relative_to(tmp_path / "plain")).read_bytes()


def test_an_operation_without_such_an_algorithm_is_one_line_and_the_settings_are_restored(data, tmp_path, monkeypatch):
    before = settings()

    def train(*arguments):
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
        )

    monkeypatch.setattr(cross_validation, "train", train)
    config = CONFIG.model_copy(update={"deterministic": True})
    with pytest.raises(
        CeflError, match=r"^--deterministic: cumsum_cuda_kernel does not have a .* implementation; .*use --device cpu\n"
    ):
        cross_validate(*data, config, CV, tmp_path / "run")
    assert settings() == before


def test_other_errors_pass_and_the_settings_are_restored():
    before = settings()
    with pytest.raises(RuntimeError, match=r"^other$"), deterministic_algorithms():
        raise RuntimeError("other")
    assert settings() == before
