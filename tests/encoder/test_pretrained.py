"""Encoders that come with the package: found by name in every command, never hidden by a file of the user."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.run_cli import run_cli_in_process
from helpers.video import write_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline import paths
from ceflpipe.stages.encoder.weights import (
    load_classifier,
    load_encoder,
    read_encoder_metadata,
    resnet18_backbone,
    write_encoder,
)

FACES = paths.PRETRAINED_DIR / "faces.safetensors"
SHA256 = "2cb022fc831ccdd5a31f41ad5992333b2e1c658ff3c355767bf0d5bbb0b9812d"
FEATURES = (0.18138, 0.76548, 0.21555, 1.43494)
"""The first features of a crop in ImageNet's mean color."""


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A package with an encoder `faces`, in the place of what it has."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(paths, "PRETRAINED_DIR", folder)
    torch.manual_seed(5)
    path = folder / "faces.safetensors"
    write_encoder(path, resnet18_backbone().state_dict(), "faces", "imagenet", {"source": "tests"}, crop_size=64)
    return path


@pytest.fixture
def home(tmp_path, photographs):
    folder = tmp_path / "home"
    (folder / "artifacts/weights").mkdir(parents=True)
    write_video(folder / "v.mp4", [np.ascontiguousarray(photographs["astronaut"][:224, 100:324])] * 4)
    (folder / "mine.csv").write_text("path,label\nv.mp4,fear\n")
    return folder


def test_a_name_is_that_of_the_package_first_and_a_path_stays_a_path(pretrained, home, monkeypatch):
    monkeypatch.chdir(home)
    shutil.copy(pretrained, "artifacts/weights/faces.safetensors")
    assert paths.encoder_file("faces") == pretrained
    assert paths.pretrained_file("actors") is None
    assert paths.encoder_file("actors") == Path("artifacts/weights/actors.safetensors")
    for path in ("artifacts/weights/faces.safetensors", "faces.safetensors", "my/faces"):
        assert paths.encoder_file(path) == Path(path)


def test_building_it_says_that_there_is_nothing_to_build(pretrained, home):
    done = run_cli_in_process("encoder", "faces", cwd=home, check=True)
    assert done.stdout.strip() == str(pretrained)
    assert "comes with ceflpipe" in done.stderr
    for option in (("--force",), ("--name", "x"), ("--out", "x.safetensors")):
        refused = run_cli_in_process("encoder", "faces", *option, cwd=home)
        assert (refused.returncode, "cannot be built" in refused.stderr) == (2, True)
    assert not list(home.rglob("*.safetensors"))


def test_no_encoder_is_built_where_its_name_would_not_find_it(pretrained, home, random_encoder):
    content = pretrained.read_bytes()
    for options in (
        ("--name", "faces"),
        ("--name", "faces", "--force"),
        ("--out", "artifacts/weights/faces.safetensors"),
        ("--out", str(pretrained), "--force"),
    ):
        refused = run_cli_in_process("encoder", f"file:{random_encoder}", *options, cwd=home)
        assert refused.returncode == 2
        assert "faces always is the encoder that comes with ceflpipe" in refused.stderr
    assert pretrained.read_bytes() == content
    assert not list(home.rglob("*.safetensors"))
    run_cli_in_process(
        "encoder", f"file:{random_encoder}", "--name", "faces", "--out", "faces.safetensors", cwd=home, check=True
    )
    assert (home / "faces.safetensors").is_file()


def test_inspect_prints_the_model_card_of_a_name(pretrained, home):
    card = run_cli_in_process("inspect", "faces", cwd=home, check=True).stdout
    assert card.startswith("# Encoder faces")
    assert sha256_of(pretrained) in card.replace("\n", "")


def test_extract_takes_it_by_name_signs_with_its_hash_and_names_the_file_it_does_not_use(
    pretrained, home, random_encoder
):
    shutil.copy(random_encoder, home / "artifacts/weights/faces.safetensors")
    command = ("extract", "--manifest", "mine.csv", "--encoder", "faces", "--workers", 1)
    done = run_cli_in_process(*command, cwd=home, check=True)
    assert "artifacts/weights/faces.safetensors is not used" in done.stderr
    settings = read_features(home / "artifacts/features/mine/faces.h5").settings
    assert (settings.encoder, settings.encoder_sha256, settings.crop_size) == ("faces", sha256_of(pretrained), 64)

    (home / "artifacts/weights/faces.safetensors").unlink()
    again = run_cli_in_process(*command, cwd=home, check=True)
    assert "is not used" not in again.stderr
    torch.manual_seed(6)
    write_encoder(pretrained, resnet18_backbone().state_dict(), "faces", "imagenet", {}, crop_size=64)
    other = run_cli_in_process(*command, cwd=home)
    assert f"now {sha256_of(pretrained)[:8]}" in other.stderr + other.stdout


def test_the_file_of_faces_is_the_one_that_was_scored():
    """Hash, size, what it says of itself, and a few features: another file needs another model card and other figures."""
    assert sha256_of(FACES) == SHA256
    assert FACES.stat().st_size <= 12_000_000
    encoder = read_encoder_metadata(FACES)
    assert (encoder.name, encoder.normalization, encoder.template) == ("faces", "imagenet", "arcface")
    assert (encoder.crop_size, encoder.storage, len(encoder.labels)) == (96, "int8", 8)
    assert {"data", "license", "command", "seed", "date", "held_out_score", "recall", "confusion"} <= set(
        encoder.metadata
    )
    assert load_classifier(FACES)[0].shape == (8, 512)
    features = load_encoder(FACES)(torch.zeros(1, 3, 96, 96))[0, :4]
    assert features.tolist() == pytest.approx(FEATURES, abs=1e-3)
