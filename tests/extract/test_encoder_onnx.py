"""ONNX encoders in stage one: the features of torch for the same weights, and the same bytes however they are computed."""

import shutil

import numpy as np
import pytest
from helpers.onnx_encoders import resnet18, write_small
from helpers.run_cli import run_cli, run_cli_in_process

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.paths import encoder_file
from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions
from ceflpipe.stages.encoder.weights import NORMALIZATIONS, read_encoder_metadata
from ceflpipe.stages.extract.extract_config import (
    BACKENDS,
    ExtractConfig,
    build_encoder,
    resolve_config,
    resolve_settings,
)

SIZE = 64
ONNX_BACKENDS = BACKENDS[".onnx"]


def exported(encoder, folder):
    """Make an ONNX encoder of a ResNet-18 encoder file."""
    mean, std = NORMALIZATIONS[read_encoder_metadata(encoder).normalization]
    network = resnet18(encoder, folder / "network.onnx", SIZE)
    build_onnx_encoder(network, folder / "resnet18.onnx", "resnet18", OnnxOptions(mean=mean, std=std))
    return folder / "resnet18.onnx"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """The encoder of the package, and the same network as ONNX."""
    return encoder_file("faces"), exported(encoder_file("faces"), tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8).repeat(4, 1).repeat(4, 2)


def features_of(path, backend, crops, precision="fp32"):
    return build_encoder(ExtractConfig(encoder=path, backend=backend, precision=precision, crop_size=SIZE))(crops)


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_features_equal_those_of_torch_for_the_same_weights(faces, crops, backend):
    weights, network = faces
    expected = features_of(weights, "torch", crops).astype(np.float64)
    features = features_of(network, backend, crops).astype(np.float64)
    assert features.shape == (7, 512)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("backend", ONNX_BACKENDS)
def test_a_crop_has_the_same_bytes_alone_and_anywhere_in_a_batch(faces, crops, backend):
    encoder = build_encoder(ExtractConfig(encoder=faces[1], backend=backend, precision="fp32"))
    many = np.concatenate([crops] * 6)  # more than one batch
    features = encoder(many)
    for index in (0, 6, 33, 41):
        assert np.array_equal(features[index], encoder(many[index : index + 1])[0])


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_threads_does_not_change_the_bytes(faces, crops, threads, monkeypatch):
    from ceflpipe.stages.extract.encoder_onnx import OnnxEncoder

    expected = OnnxEncoder(faces[1])(crops)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert np.array_equal(OnnxEncoder(faces[1])(crops), expected)


def test_the_backend_is_chosen_by_the_kind_of_file_and_recorded(faces):
    for path, backend in zip(faces, ("openvino", "onnxruntime"), strict=True):
        assert resolve_settings(ExtractConfig(encoder=path)).backend == backend
        assert resolve_config(ExtractConfig(encoder=path)).config.backend == backend
    settings = resolve_settings(ExtractConfig(encoder=faces[1]))
    assert (settings.precision, settings.crop_size, settings.encoder) == ("fp32", SIZE, "resnet18")


@pytest.mark.parametrize(
    ("index", "values", "message"),
    [
        (
            1,
            {"backend": "torch"},
            "--backend torch: .* is an ONNX network; leave out --backend, or use onnxruntime or openvino",
        ),
        (0, {"backend": "onnxruntime"}, "is a ResNet-18; leave out --backend, or use torch or openvino"),
        (1, {"crop_size": 96}, "takes crops of 64 pixels only; leave out the crop size"),
        (1, {"precision": "bf16"}, "precision bf16: onnxruntime computes in that of the network, fp32"),
    ],
)
def test_what_does_not_fit_is_refused(faces, index, values, message):
    with pytest.raises(CeflError, match=message):
        resolve_settings(ExtractConfig(encoder=faces[index], **values))


def test_a_name_means_either_kind_of_file_but_not_both(tmp_path, monkeypatch, random_encoder):
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path / "n.onnx")
    done = run_cli_in_process(
        "encoder", "onnx:n.onnx", "--mean", "0,0,0", "--std", "1,1,1", "--quiet", cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "artifacts/weights/n.onnx"
    assert str(encoder_file("n")) == "artifacts/weights/n.onnx"
    refused = run_cli_in_process("encoder", f"file:{random_encoder}", "--name", "n", cwd=tmp_path)
    assert "n: artifacts/weights/n.onnx has this name already; remove it, or give another --name" in refused.stderr
    shutil.copy(random_encoder, "artifacts/weights/n.safetensors")
    with pytest.raises(CeflError, match=r"two encoders of this name, artifacts/weights/n.safetensors and .*n\.onnx"):
        encoder_file("n")


def test_options_for_networks_are_refused_with_other_sources(tmp_path, random_encoder):
    refused = run_cli_in_process("encoder", f"file:{random_encoder}", "--name", "x", "--mean", "0,0,0", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--mean: is for ONNX networks" in refused.stderr


@pytest.mark.slow
def test_extract_gives_the_same_bytes_for_any_number_of_workers(tmp_path, face_video, faces):
    for name in "abc":
        shutil.copy(face_video, tmp_path / f"{name}.mp4")
    (tmp_path / "list.csv").write_text("id,path,label\n" + "".join(f"{name},{name}.mp4,fear\n" for name in "abc"))
    tables = {}
    for workers in (1, 2):
        options = ["--manifest", "list.csv", "--encoder", faces[1], "--workers", workers, "--out", f"{workers}.h5"]
        run_cli("extract", *options, cwd=tmp_path, check=True)
        tables[workers] = read_features(tmp_path / f"{workers}.h5")
    assert tables[1].settings.backend == "onnxruntime"
    assert np.array_equal(tables[1].features, tables[2].features)


def test_a_damaged_network_ends_in_one_line(tmp_path, face_video, faces):
    (tmp_path / "list.csv").write_text(f"id,path,label\none,{face_video},fear\n")
    content = faces[1].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    done = run_cli("extract", "--manifest", "list.csv", "--encoder", "cut.onnx", "--out", "x.h5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ceflpipe: cut.onnx: not a whole ONNX file")
    assert "Traceback" not in done.stderr
