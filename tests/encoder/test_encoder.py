"""Encoder files: conversion of checkpoints, normalization, augmentation, and the synthetic encoder."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.align import ARCFACE_TEMPLATE
from ceflpipe.stages.encoder.augment import CONTEXT_RATIO, random_affine_crop
from ceflpipe.stages.encoder.build import build_encoder_weights
from ceflpipe.stages.encoder.encoder_config import SyntheticEncoderConfig
from ceflpipe.stages.encoder.resnet18 import LAYERS, fused_resnet18, resnet18_shapes
from ceflpipe.stages.encoder.synthetic import NUM_VAL_TASKS, RenderTask, render_images
from ceflpipe.stages.encoder.weights import load_encoder, load_numpy, read_encoder_metadata, resnet18_backbone
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.retinaface import RetinaFace


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return resnet18().eval()


def without_classifier(network):
    return {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}


def as_saved_by(style, network):
    """Return the same weights as different training scripts save them."""
    backbone = without_classifier(network)
    return {
        "plain state dict": network.state_dict(),
        "Emotion-FAN": {
            "epoch": 3,
            "state_dict": {f"module.{key}": value for key, value in backbone.items()}
            | {"module.fc.weight": torch.zeros(7, 1024), "module.feature.weight": torch.zeros(3, 512)},
        },
        "nested": {"model": {f"module.backbone.{key}": value for key, value in backbone.items()}},
        "before torch 0.4": {key: value for key, value in backbone.items() if "num_batches" not in key},
    }[style]


@pytest.mark.parametrize("style", ["plain state dict", "Emotion-FAN", "nested", "before torch 0.4"])
def test_checkpoints_of_training_scripts_are_converted(tmp_path, network, style):
    torch.save(as_saved_by(style, network), tmp_path / "x.pth.tar")
    out = tmp_path / "x.safetensors"
    report = build_encoder_weights(f"file:{tmp_path}/x.pth.tar", out, "x", normalization="unit")
    images = torch.rand(2, 3, 64, 64)
    network.fc = torch.nn.Identity()
    torch.testing.assert_close(load_encoder(out)(images), network(images))
    assert read_encoder_metadata(out).normalization == "unit"
    assert "none missing" in report["tensors"]
    if style == "Emotion-FAN":
        assert report["state_dict_key"] == "state_dict"
        assert report["stripped_prefix"] == "module."
        assert report["dropped_heads"] == "fc.weight, feature.weight"


def test_safetensors_files_are_converted(tmp_path, network):
    save_file(without_classifier(network), tmp_path / "x.safetensors")
    report = build_encoder_weights(f"file:{tmp_path}/x.safetensors", tmp_path / "y.safetensors", "y")
    assert "assumed" in report["normalization"]
    assert read_encoder_metadata(tmp_path / "y.safetensors").normalization == "imagenet"


def test_an_encoder_file_keeps_its_normalization(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "x.pth")
    build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / "y.safetensors", "y", normalization="unit")
    report = build_encoder_weights(f"file:{tmp_path}/y.safetensors", tmp_path / "z.safetensors", "z")
    assert "normalization" not in report
    assert read_encoder_metadata(tmp_path / "z.safetensors").normalization == "unit"


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path, network):
    state = without_classifier(network)
    del state["layer2.0.conv1.weight"]
    state["layer9.conv1.weight"] = torch.zeros(3)
    state["bn1.weight"] = torch.zeros(32)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CeflError) as error:
        build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / "x.safetensors", "x")
    for message in (
        "missing layer2.0.conv1.weight",
        "unexpected layer9.conv1.weight",
        "bn1.weight is (32,), expected (64,)",
    ):
        assert message in str(error.value)
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
def test_code_and_rubbish_in_checkpoints_are_refused(tmp_path, make):
    make(tmp_path / "x.pth")
    with pytest.raises(CeflError, match=r"x\.pth"):
        build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / "x.safetensors", "x")
    assert not os.path.exists("/tmp/ceflpipe_should_not_exist")


def test_imagenet_offline_reports_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(CeflError, match=r"put the file at .*resnet18-f37072fd\.pth by hand") as error:
        build_encoder_weights("imagenet", tmp_path / "x.safetensors", "x")
    assert "ceflpipe encoder actors" in str(error.value)


def test_normalization_is_part_of_the_encoder_file(tmp_path, network):
    """Encoding with 'imagenet' equals normalizing the crops and encoding with 'unit'."""
    torch.save(network.state_dict(), tmp_path / "x.pth")
    for name in ("imagenet", "unit"):
        build_encoder_weights(f"file:{tmp_path}/x.pth", tmp_path / f"{name}.safetensors", name, normalization=name)
    crops = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    features = TorchEncoder(tmp_path / "imagenet.safetensors", precision="fp32")(crops)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = torch.from_numpy((crops / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = load_encoder(tmp_path / "unit.safetensors")(normalized).numpy()
    np.testing.assert_allclose(features, expected, rtol=3e-3, atol=3e-3)


def test_bf16_features_have_the_direction_of_fp32_features(random_encoder):
    crops = np.random.default_rng(0).integers(0, 255, (8, 96, 96, 3), np.uint8)
    full, half = (TorchEncoder(random_encoder, precision=p)(crops).astype(np.float64) for p in ("fp32", "bf16"))
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.9999


def test_a_file_that_is_not_an_encoder_is_refused(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CeflError, match="does not state its normalization"):
        read_encoder_metadata(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"nothing")
    with pytest.raises(CeflError, match="not a safetensors file"):
        read_encoder_metadata(tmp_path / "y.safetensors")


def test_augmented_crops_are_reproducible_and_varied():
    image = np.random.default_rng(0).integers(0, 255, (round(64 * CONTEXT_RATIO),) * 2 + (3,), np.uint8)
    crop, repeated, other = (random_affine_crop(image, 64, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, repeated)
    assert not np.array_equal(crop, other)


def test_rendered_images_are_aligned_like_in_stage_one():
    """In the center of the wide crop the landmarks are those of the template."""
    number, crops, targets = render_images(RenderTask(5, SyntheticEncoderConfig()))
    assert number == 5
    assert crops.shape == (64, 140, 140, 3)
    assert targets.shape == (64, 21)
    margin, distances = (140 - 112) / 2, []
    detector = RetinaFace()
    for crop in crops[:16]:
        faces = detector(np.pad(crop, ((60, 60), (60, 60), (0, 0))))
        if len(faces):
            landmarks = faces.landmarks[0] - 60 - margin
            distances.append(np.linalg.norm(landmarks - ARCFACE_TEMPLATE, axis=1).mean())
    assert len(distances) >= 14
    assert np.mean(distances) < 0.15 * 35


@pytest.mark.slow
def test_the_synthetic_encoder_is_reproducible_and_scored(tmp_path):
    config = SyntheticEncoderConfig(num_images=128, steps=8, batch_size=16, crop_size=64, seed=5)
    calls = []
    for name in ("first", "second"):
        metadata = build_encoder_weights(
            "actors",
            tmp_path / f"{name}.safetensors",
            name,
            config=config,
            on_progress=lambda completed, total, note="": calls.append((completed, total)),
        )
    total = 2 + NUM_VAL_TASKS + 8
    assert calls == [(completed, total) for completed in range(1, total + 1)] * 2
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "clear expressions of unseen actors" in metadata["held_out_score"]


def test_resnet18_shapes_equal_torchvisions():
    state = resnet18_backbone().state_dict()
    assert resnet18_shapes() == {key: tuple(value.shape) for key, value in state.items()}


def test_resnet18_layers_equal_torchvisions(random_encoder):
    """Names, channels, strides and padding of every convolution, and the fused weights in their order."""
    modules = dict(resnet18_backbone().named_modules())
    for conv in LAYERS.convs():
        module = modules[conv.name]
        assert (module.in_channels, module.out_channels) == (conv.in_channels, conv.out_channels)
        assert module.kernel_size == (conv.kernel_size,) * 2
        assert module.stride == (conv.stride,) * 2
        assert module.padding == (conv.padding,) * 2
    assert len(LAYERS.convs()) == sum(isinstance(module, torch.nn.Conv2d) for module in modules.values())
    for conv, fused in zip(LAYERS.convs(), fused_resnet18(load_numpy(random_encoder)).convs(), strict=True):
        assert fused.weight.shape == (conv.out_channels, conv.in_channels, conv.kernel_size, conv.kernel_size)
        assert fused.bias.shape == (conv.out_channels,)
