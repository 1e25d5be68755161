"""Encoder weights: checkpoints as users have them, strictly; the actors encoder learns and is reproducible."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.encoder.augment import MARGIN, random_affine_crop
from ceflpipe.stages.encoder.build import build_encoder_weights
from ceflpipe.stages.encoder.synthetic import Sheet, render_sheet, ticks, train
from ceflpipe.stages.encoder.weights import load_encoder, read_encoder_metadata
from ceflpipe.stages.extract.encoder_torch import TorchEncoder


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return resnet18().eval()


def wrapped(network, style):
    """The same weights as training scripts save them."""
    state = network.state_dict()
    bare = {k: v for k, v in state.items() if not k.startswith("fc.")}
    return {
        "plain state dict": state,
        "Emotion-FAN": {
            "epoch": 3,
            "state_dict": {f"module.{k}": v for k, v in bare.items()}
            | {"module.fc.weight": torch.zeros(7, 1024), "module.feature.weight": torch.zeros(3, 512)},
        },
        "nested": {"model": {f"module.backbone.{k}": v for k, v in bare.items()}},
        "before torch 0.4": {k: v for k, v in bare.items() if "num_batches" not in k},
    }[style]


@pytest.mark.parametrize("style", ["plain state dict", "Emotion-FAN", "nested", "before torch 0.4"])
def test_checkpoints_as_users_have_them(tmp_path, network, style):
    torch.save(wrapped(network, style), tmp_path / "x.pth.tar")
    about = build_encoder_weights(
        f"file:{tmp_path}/x.pth.tar", tmp_path / "x.safetensors", "x", normalization="unit", training={}
    )
    picture = torch.rand(2, 3, 64, 64)
    network.fc = torch.nn.Identity()
    torch.testing.assert_close(load_encoder(tmp_path / "x.safetensors")(picture), network(picture))
    assert read_encoder_metadata(tmp_path / "x.safetensors").normalization == "unit"
    assert "none missing" in about["tensors"]
    if style == "Emotion-FAN":
        assert about["prefix stripped"] == "module."
        assert about["heads dropped"] == "fc.weight, feature.weight"


def test_safetensors_of_others_too(tmp_path, network):
    save_file({k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}, tmp_path / "x.safetensors")
    about = build_encoder_weights(f"file:{tmp_path}/x.safetensors", tmp_path / "y.safetensors", "y", training={})
    assert "assumed" in about["normalisation"]
    assert read_encoder_metadata(tmp_path / "y.safetensors").normalization == "imagenet"


def test_every_missing_unexpected_and_misshapen_key_is_named(tmp_path, network):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    del state["layer2.0.conv1.weight"]
    state["layer9.conv1.weight"] = torch.zeros(3)
    state["bn1.weight"] = torch.zeros(32)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CeflError) as error:
        build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / "x.safetensors", "x", training={})
    for words in (
        "missing layer2.0.conv1.weight",
        "unexpected layer9.conv1.weight",
        "bn1.weight is (32,), wanted (64,)",
    ):
        assert words in str(error.value)
    assert not (tmp_path / "x.safetensors").exists()


class Payload:
    def __reduce__(self):
        return (open, ("/tmp/ceflpipe_should_not_exist", "w"))


@pytest.mark.parametrize("make", [
    lambda path: torch.save({"state_dict": Payload()}, path),
    lambda path: path.write_bytes(pickle.dumps(Payload())),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"PK\x03\x04garbage"),
    lambda path: torch.save([1, 2], path),
    lambda path: torch.save({"note": "no tensors"}, path),
])  # fmt: skip
def test_payloads_and_rubbish_are_refused(tmp_path, make):
    make(tmp_path / "x.pth")
    with pytest.raises(CeflError, match=r"x\.pth"):
        build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / "x.safetensors", "x", training={})
    import os

    assert not os.path.exists("/tmp/ceflpipe_should_not_exist")


def test_imagenet_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(CeflError, match=r"put the file at .*resnet18-f37072fd\.pth by hand") as error:
        build_encoder_weights("imagenet", tmp_path / "x.safetensors", "x", training={})
    assert "ceflpipe encoder actors" in str(error.value)


def test_normalisation_belongs_to_the_weights(tmp_path, network):
    """Encoding with 'imagenet' equals shifting and scaling by hand and encoding with 'unit'."""
    torch.save(network.state_dict(), tmp_path / "x.pth")
    for name in ("imagenet", "unit"):
        build_encoder_weights(
            f"file:{tmp_path}/x.pth", tmp_path / f"{name}.safetensors", name, normalization=name, training={}
        )
    crops = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    got = TorchEncoder(tmp_path / "imagenet.safetensors", precision="fp32")(crops)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    by_hand = torch.from_numpy((crops / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = load_encoder(tmp_path / "unit.safetensors")(by_hand).numpy()
    np.testing.assert_allclose(got, expected, rtol=3e-3, atol=3e-3)


def test_bf16_features_point_the_same_way(random_encoder):
    crops = np.random.default_rng(0).integers(0, 255, (8, 96, 96, 3), np.uint8)
    full, half = (TorchEncoder(random_encoder, precision=p)(crops).astype(np.float64) for p in ("fp32", "bf16"))
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.9999


def test_a_file_that_is_no_encoder_is_said(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CeflError, match="does not say its normalisation"):
        read_encoder_metadata(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"nothing")
    with pytest.raises(CeflError, match="not a safetensors file"):
        read_encoder_metadata(tmp_path / "y.safetensors")


def test_augmented_crops_are_reproducible_and_varied():
    wide = np.random.default_rng(0).integers(0, 255, (round(64 * MARGIN),) * 2 + (3,), np.uint8)
    one, same = (random_affine_crop(wide, 64, np.random.default_rng(3)) for _ in range(2))
    other = random_affine_crop(wide, 64, np.random.default_rng(4))
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_sheets_are_aligned_as_stage_one_aligns():
    """In the middle of the wide crop the eyes lie where the template has them."""
    from ceflpipe.stages.align import ARCFACE_TEMPLATE
    from ceflpipe.stages.extract.retinaface import RetinaFace

    number, crops, targets = render_sheet(Sheet(5, 1, 112))
    assert number == 5
    assert crops.shape == (64, 140, 140, 3)
    assert targets.shape == (64, 21)
    edge, distances = (140 - 112) / 2, []
    for crop in crops[:16]:
        faces = RetinaFace()(np.pad(crop, ((60, 60), (60, 60), (0, 0))))
        if len(faces):
            distances.append(np.linalg.norm(faces.landmarks[0] - 60 - edge - ARCFACE_TEMPLATE, axis=1).mean())
    assert len(distances) >= 14
    assert np.mean(distances) < 0.15 * 35


@pytest.mark.slow
def test_the_actors_encoder_is_reproducible_and_learns(tmp_path):
    settings = {"pictures": 128, "steps": 8, "batch": 16, "size": 64, "seed": 5}
    calls = []
    for name in ("one", "two"):
        about = build_encoder_weights(
            "actors", tmp_path / f"{name}.safetensors", name, training=settings, on_step=calls.append
        )
    assert len(calls) == 2 * ticks(128, 8)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert "of unseen actors named right" in about["held-out score"]
    assert callable(train)


def test_the_shapes_of_a_resnet18_are_torchvisions():
    from ceflpipe.stages.encoder.weights import resnet18_backbone, resnet18_shapes

    expected = {key: tuple(value.shape) for key, value in resnet18_backbone().state_dict().items()}
    assert {key: value.shape for key, value in resnet18_shapes().items()} == expected
