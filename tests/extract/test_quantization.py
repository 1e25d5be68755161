"""Encoders in 8 bits: against quantization written out in torch, on processors with and without 8-bit products."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.fake_crops import CROP_SETTINGS, SIZE, crops_manifest, write_base, write_crops

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_crops, read_index
from ceflpipe.stages.encoder.resnet18 import fused_resnet18
from ceflpipe.stages.encoder.weights import read_encoder, read_encoder_metadata
from ceflpipe.stages.extract import quantization
from ceflpipe.stages.extract.encoder_openvino import NUM_RANGES, OpenVINOEncoder
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_config, resolve_settings
from ceflpipe.stages.extract.quantization import cosine_similarity, quantize_encoder

LIKE_AVX2 = """
import sys
from pathlib import Path
import numpy as np
from ceflpipe.stages.extract.encoder_openvino import OpenVINOEncoder
np.save(sys.argv[3], OpenVINOEncoder(Path(sys.argv[1]), 32, "int8")(np.load(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A list, its crop cache, an encoder with random weights, and the same encoder quantized."""
    folder = tmp_path_factory.mktemp("quantization")
    manifest = crops_manifest(folder)
    base, crops, out = write_base(folder), write_crops(folder / "crops.h5", manifest), folder / "base-int8.safetensors"
    metadata = quantize_encoder(manifest, crops, base, out, "base-int8", min_cosine=0.9)
    return manifest, crops, base, out, metadata


def all_crops(path):
    index = read_index(path)
    return np.concatenate([read_crops(path, index, number) for number in range(len(index))])


def quantized_features(path, crops):
    """Return the features (N, 512) of a network whose convolutions multiply rounded inputs with rounded weights."""
    file, arrays = read_encoder(path)
    ranges = iter(file.activation_ranges)

    def rounded(x):
        low, high = next(ranges)
        step = (high - low) / 255
        return ((x.clamp(low, high) - low) / step).round() * step + low

    def to_function(conv):
        weight = torch.from_numpy(conv.weight)
        step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 63.5
        weight = (weight / step).round() * step
        return lambda x: F.conv2d(x, weight, torch.from_numpy(conv.bias), conv.stride, conv.padding)

    resnet = fused_resnet18(arrays).map(to_function)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) * 255 for part in (file.mean, file.std))
    x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - mean) / std
    x = F.max_pool2d(F.relu(resnet.stem(rounded(x))), 3, 2, 1)
    for block in resnet.blocks:
        x = rounded(x)
        y = block.conv2(rounded(F.relu(block.conv1(x))))
        x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
    return x.mean(dim=(2, 3)).numpy()


def test_features_are_those_of_rounded_inputs_and_weights(quantized):
    _, crops, base, out, _ = quantized
    images = all_crops(crops)[:64]
    features = OpenVINOEncoder(out, SIZE, "int8")(images)
    in_fp32 = OpenVINOEncoder(base, SIZE, "fp32")(images)
    expected = quantized_features(out, images)
    to_fp32 = 1 - cosine_similarity(features, in_fp32).mean()
    assert 1 - cosine_similarity(features, expected).mean() < 0.2 * to_fp32
    assert to_fp32 > 1e-6, "it was computed in fp32"


def test_a_processor_without_8_bit_products_gives_the_same_features(quantized, tmp_path):
    """Its sums of two products saturate at 16 bits, which all 8 bits of the weights would reach."""
    out = quantized[3]
    images = np.random.default_rng(0).integers(0, 2, (64, SIZE, SIZE, 3)).astype(np.uint8) * 255
    np.save(tmp_path / "images.npy", images)
    for limit in ("AVX2", "ALL"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": limit}
        arguments = [str(out), str(tmp_path / "images.npy"), str(tmp_path / f"{limit}.npy")]
        subprocess.run([sys.executable, "-c", LIKE_AVX2, *arguments], check=True, env=environment)
    similarity = cosine_similarity(np.load(tmp_path / "AVX2.npy"), np.load(tmp_path / "ALL.npy"))
    assert similarity.min() > 0.9999


def test_ranges_are_measured_on_some_subjects_and_tested_on_others(quantized, monkeypatch):
    manifest, crops, base, out, metadata = quantized
    file = read_encoder_metadata(out)
    assert len(file.activation_ranges) == NUM_RANGES
    assert (file.name, file.metadata["license"]) == ("base-int8", "MIT")
    assert "of 12 videos of drawn" in metadata["ranges_measured_on"]
    assert "of 12 videos of other subjects" in metadata["int8_cosine"]
    read = []
    original = quantization._read_faces
    monkeypatch.setattr(
        quantization, "_read_faces", lambda *a: read.append({entry.subject for entry in a[2]}) or original(*a)
    )
    quantize_encoder(manifest, crops, base, out, "base-int8", min_cosine=0.9)
    assert not read[0] & read[1]
    assert read[0] | read[1] == {entry.subject for entry in manifest.entries}
    assert read_encoder_metadata(out) == file, "the same crops give the same file"


def test_an_encoder_that_suffers_is_not_written(quantized, tmp_path):
    manifest, crops, base, _, _ = quantized
    with pytest.raises(
        CeflError, match=r"in int8 its features of frame \d+ of S\d_.* similarity of 0\.\d+ .* nothing was"
    ):
        quantize_encoder(manifest, crops, base, tmp_path / "out.safetensors", "out", min_cosine=0.9999999)
    assert not list(tmp_path.iterdir())


def test_one_subject_is_not_enough(quantized, tmp_path):
    manifest, crops, base, _, _ = quantized
    alone = replace(manifest, entries=tuple(entry for entry in manifest.entries if entry.subject == "S0"))
    with pytest.raises(CeflError, match="1 subjects of drawn have a face; ranges are measured on half of the subjects"):
        quantize_encoder(alone, crops, base, tmp_path / "out.safetensors", "out")


def test_int8_is_recorded_and_never_chosen(quantized):
    *_, base, out, _ = quantized
    config = ExtractConfig(encoder=out, input="crops", device="cpu")
    assert resolve_settings(config).precision in ("bf16", "fp32")
    settings = resolve_settings(config.model_copy(update={"precision": "int8"}))
    assert (settings.precision, settings.backend, settings.encoder) == ("int8", "openvino", "base-int8")
    assert resolve_config(config, settings).settings == settings, "a cache goes on with the precision that it has"
    assert settings.encoder_sha256 != read_encoder_metadata(base).sha256
    assert CROP_SETTINGS.crop_size == SIZE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "has no ranges of activations; make an encoder that has them with ceflpipe encoder quantize"),
        ({"backend": "torch"}, "only OpenVINO computes it, on processors"),
    ],
)
def test_int8_is_refused_before_anything_is_read(quantized, changes, message):
    config = ExtractConfig(encoder=quantized[2], input="crops", device="cpu", precision="int8", **changes)
    with pytest.raises(CeflError, match=message):
        resolve_settings(config)


@pytest.mark.parametrize("text", ["[[1, 0]]", "[[0, NaN]]", "[1]", "no list", '[["a", 1]]'])
def test_damaged_ranges_are_named(quantized, tmp_path, text):
    content = quantized[3].read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode()
    first, last = header.index('"activation_ranges":"') + 21, header.index('"', header.index("activation_ranges") + 21)
    changed = (header[:first] + text.replace('"', '\\"') + header[last:]).encode()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    with pytest.raises(CeflError, match=r"damaged\.safetensors: corrupted: its ranges of activations"):
        read_encoder_metadata(damaged)
