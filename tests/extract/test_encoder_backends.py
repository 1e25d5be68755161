"""Encoder backends: both give the features of torchvision's network in fp32, the oracle; OpenVINO without torch."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.run_cli import run_cli
from pydantic import ValidationError

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages import device
from ceflpipe.stages.encoder.weights import NORMALIZATIONS, load_encoder, read_encoder, write_encoder
from ceflpipe.stages.extract import encoder_openvino
from ceflpipe.stages.extract.encoder_openvino import (
    OpenVINOEncoder,
    openvino_available,
    openvino_precision,
)
from ceflpipe.stages.extract.extract_config import (
    BACKENDS,
    ExtractConfig,
    build_encoder,
    is_usable,
    resolve_backend,
    resolve_config,
    resolve_settings,
)
from ceflpipe.stages.heads.run_io import Run
from ceflpipe.stages.predict import predict

RESNET18_BACKENDS = BACKENDS[".safetensors"]
NO_BF16 = "this processor has no bfloat16"
"""The only reason to skip a test; .ci/run checks for it."""


@pytest.fixture(autouse=True)
def openvino_again():
    """What a test pretends about the package does not last."""
    yield
    encoder_openvino._import_openvino.cache_clear()


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 16, 16, 3), np.uint8).repeat(14, 1).repeat(14, 2)


@pytest.fixture(scope="module")
def trained_encoder(random_encoder, tmp_path_factory):
    """An encoder whose batch norms have means, variances, scales and shifts like after training."""
    state, rng = load_encoder(random_encoder).state_dict(), torch.Generator().manual_seed(1)
    for key, value in state.items():
        if "bn" in key or "downsample.1" in key:
            if key.endswith(("weight", "running_var")):
                state[key] = 0.5 + torch.rand(value.shape, generator=rng)
            elif key.endswith(("bias", "running_mean")):
                state[key] = 0.2 * torch.randn(value.shape, generator=rng)
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    write_encoder(path, state, "trained", "imagenet", {"source": "for tests"})
    return path


def torchvision_features(encoder, crops):
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in NORMALIZATIONS["imagenet"])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return load_encoder(encoder)((pixels - mean) / std).numpy()


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


@pytest.mark.parametrize("backend", RESNET18_BACKENDS)
@pytest.mark.parametrize(("precision", "min_cosine"), [("fp32", 0.999999), ("bf16", 0.9999)])
def test_features_equal_torchvisions(trained_encoder, crops, backend, precision, min_cosine):
    if (backend, precision) == ("openvino", "bf16") and not openvino_available("bf16"):
        pytest.skip(NO_BF16)  # without it torch emulates bfloat16, OpenVINO refuses
    expected = torchvision_features(trained_encoder, crops)
    encoder = build_encoder(ExtractConfig(encoder=trained_encoder, backend=backend, precision=precision))
    features = encoder(crops).astype(np.float64)
    assert features.shape == (5, 512)
    assert cosine(features, expected).min() > min_cosine
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), np.linalg.norm(expected, axis=-1), rtol=0.01)


@pytest.mark.parametrize("backend", RESNET18_BACKENDS)
def test_another_encoder_under_the_same_path_is_loaded(
    random_encoder, trained_encoder, crops, backend, tmp_path, monkeypatch
):
    """A process that lives long (a notebook, a worker) must not give a rebuilt encoder's name to the old one's features."""
    one, other = (tmp_path / name for name in ("one", "other"))
    for folder, source in ((one, random_encoder), (other, trained_encoder)):
        folder.mkdir()
        shutil.copy(source, folder / "x.safetensors")
    config = ExtractConfig(encoder=Path("x.safetensors"), backend=backend, precision="fp32")
    monkeypatch.chdir(one)
    first = build_encoder(config)(crops)
    monkeypatch.chdir(other)
    second = build_encoder(config)(crops)
    assert cosine(first, second).max() < 0.999
    monkeypatch.chdir(one)
    os.replace(other / "x.safetensors", "x.safetensors")
    np.testing.assert_array_equal(build_encoder(config)(crops), second)
    assert build_encoder(config) is build_encoder(config)


def test_openvino_refuses_bf16_on_a_processor_without_it(random_encoder, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # like a processor without bfloat16
    assert openvino_precision("auto") == "fp32"
    with pytest.raises(CeflError, match="OpenVINO does not support it on this processor; use fp32 or auto"):
        resolve_settings(ExtractConfig(encoder=random_encoder, backend="openvino", precision="bf16"))


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("", True), ("ALL", True), ("DEFAULT", True), ("AVX512_CORE_BF16", True), ("avx512_core_amx", True),
     ("AVX2", False), ("AVX2_VNNI_2", False), ("AVX512_CORE", False), ("SSE41", False)],
)  # fmt: skip
def test_auto_precision_depends_on_the_instructions_onednn_may_use(monkeypatch, limit, allowed):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    native = device.cpu_has_bf16()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert native == (allowed and device.cpu_has_bf16())
    assert device.resolve_precision("auto", torch.device("cpu")) == ("bf16" if device.cpu_has_bf16() else "fp32")


def test_features_of_a_crop_do_not_depend_on_its_batch(trained_encoder, crops):
    encoder = OpenVINOEncoder(trained_encoder, 224, "fp32", batch_size=4)
    features = encoder(crops)
    assert np.array_equal(features[1:3], encoder(crops[1:3]))
    assert np.array_equal(features[4], encoder(crops[4:])[0])


def test_the_settings_record_the_backend(random_encoder):
    config = ExtractConfig(encoder=random_encoder, backend="openvino", precision="fp32")
    assert resolve_settings(config).backend == "openvino"
    assert resolve_settings(config) != resolve_settings(config.model_copy(update={"backend": "torch"}))
    assert isinstance(build_encoder(config), OpenVINOEncoder)


@pytest.mark.parametrize(
    ("key", "value", "message"), [("device", "cuda", "processors only"), ("precision", "fp16", "fp32, bf16 or int8")]
)
def test_openvino_refuses_other_devices_and_precisions(random_encoder, key, value, message):
    with pytest.raises(CeflError, match=message):
        resolve_settings(ExtractConfig(**{"encoder": random_encoder, "backend": "openvino", key: value}))


def test_an_unknown_backend_is_rejected(random_encoder):
    with pytest.raises(ValidationError, match="'onnxruntime' or 'openvino'"):
        ExtractConfig(encoder=random_encoder, backend="tensorflow")


def test_other_weights_are_refused(tmp_path, random_encoder):
    state = load_encoder(random_encoder).state_dict()
    state["layer3.0.conv1.weight"] = torch.zeros(256, 64, 3, 3)
    write_encoder(tmp_path / "other.safetensors", state, "other", "unit", {})
    with pytest.raises(CeflError, match=r"layer3.0.conv1.weight is \(256, 64, 3, 3\), expected \(256, 128, 3, 3\)"):
        OpenVINOEncoder(tmp_path / "other.safetensors", 64)


def test_without_the_package_the_error_has_the_install_command():
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from ceflpipe.stages.extract.encoder_openvino import openvino_precision\n"
        "openvino_precision('auto')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "ceflpipe[openvino]"' in done.stderr.splitlines()[-1]


def test_openvino_reports_nothing_to_its_makers(tmp_path):
    """Its telemetry would make an identity in ~/intel and send it; it leaves CI alone, so CI is not named here."""
    code = (
        "import sys\n"
        "from ceflpipe.stages.extract.encoder_openvino import openvino_precision\n"
        "print(openvino_precision('auto'), 'openvino_telemetry' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "False"
    assert not (tmp_path / "intel").exists()


def test_extract_with_openvino_does_not_import_torch():
    code = (
        "import sys\n"
        "import ceflpipe.pipeline.commands.cmd_extract, ceflpipe.pipeline.executor, ceflpipe.stages.extract.extract\n"
        "from ceflpipe.stages.extract.encoder_openvino import openvino_precision\n"
        "openvino_precision('auto')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_extract_command_runs_both_backends(tmp_path, face_video, random_encoder):
    (tmp_path / "list.csv").write_text(f"id,path,label\none,{face_video.name},fear\n")
    options = ["--manifest", "list.csv", "--root", face_video.parent, "--encoder", random_encoder, "--crop-size", "64"]
    tables = {}
    for backend in RESNET18_BACKENDS:
        out = tmp_path / f"{backend}.h5"
        done = run_cli("extract", *options, "--backend", backend, "--precision", "fp32", "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        tables[backend] = read_features(out)
    features = [tables[backend].features.astype(np.float64) for backend in RESNET18_BACKENDS]
    assert cosine(*features).min() > 0.9999
    assert tables["openvino"].settings.backend == "openvino"


def test_threads_that_share_an_encoder_get_their_own_features(random_encoder):
    encoder = OpenVINOEncoder(random_encoder, 64, "fp32", batch_size=2)
    batches = np.random.default_rng(1).integers(0, 256, (12, 2, 64, 64, 3), np.uint8)
    expected = [encoder(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for features, reference in zip(pool.map(encoder, [*batches] * 4), expected * 4, strict=True):
            assert np.array_equal(features, reference)


@pytest.mark.parametrize(("value", "threads"), [("", 0), ("3", 3), ("4,2", 4), ("many", 0), (None, 0)])
def test_omp_num_threads_is_read_like_other_libraries_read_it(monkeypatch, value, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert device.num_threads() == threads


def test_a_run_extracted_with_openvino_can_be_used_without_it(tmp_path, random_encoder, monkeypatch):
    settings = resolve_settings(ExtractConfig(encoder=random_encoder, backend="openvino", precision="fp32"))
    run = Run(tmp_path, {"features": {"settings": asdict(settings)}}, {})
    assert predict.extract_config_of(run, random_encoder, "cpu").backend == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder_openvino._import_openvino.cache_clear()
    assert predict.extract_config_of(run, random_encoder, "cpu").backend == "torch"


def test_auto_is_openvino_on_a_processor_if_it_is_installed(random_encoder, monkeypatch):
    config = ExtractConfig(encoder=random_encoder)
    assert resolve_backend(config) == "openvino"
    assert resolve_backend(config.model_copy(update={"device": "cuda"})) == "torch"
    assert resolve_backend(config.model_copy(update={"precision": "fp16"})) == "torch"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert resolve_backend(config.model_copy(update={"precision": "fp32"})) == "openvino"
    assert resolve_backend(config.model_copy(update={"precision": "bf16"})) == "torch", "which can emulate it"
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder_openvino._import_openvino.cache_clear()
    assert resolve_backend(config) == "torch"


def test_auto_asks_torch_if_there_may_be_a_gpu(random_encoder, monkeypatch):
    monkeypatch.setattr(device, "may_have_gpu", lambda: True)
    assert resolve_backend(ExtractConfig(encoder=random_encoder)) == "openvino", "a driver without a GPU"
    monkeypatch.setattr(device, "resolve_device", lambda name: torch.device("cuda"))
    assert resolve_backend(ExtractConfig(encoder=random_encoder)) == "torch"


def test_auto_is_the_backend_of_the_cache_that_is_there(random_encoder):
    """Or a second machine could not go on with it."""
    config = ExtractConfig(encoder=random_encoder, precision="fp32", crop_size=32)
    by_torch = resolve_settings(config.model_copy(update={"backend": "torch"}))
    resolved = resolve_config(config, by_torch)
    assert (resolved.settings, resolved.config.backend) == (by_torch, "torch")
    assert resolved.note.startswith("fp32 by torch, as the feature cache has; fp32 by openvino is this machine's own")
    assert resolve_config(config.model_copy(update={"backend": "openvino"}), by_torch).settings.backend == "openvino"
    other = resolve_config(config, replace(by_torch, crop_size=48))
    assert (other.settings.backend, other.note) == ("openvino", ""), "it has to be extracted again anyway"
    by_openvino = resolve_settings(config)
    assert resolve_config(config, by_openvino).note == ""
    assert not is_usable("openvino", "fp32", "cuda"), "so a GPU does not go on with this cache unless it is told to"


def test_the_normalization_of_openvino_is_rounded_once(random_encoder):
    """Features of caches that are there depend on the last digit of mean and deviation: 255 times them, then to float32."""
    network = encoder_openvino._build_network(*read_encoder(random_encoder), (1, 32, 32, 3))
    constants = [op.data.ravel().tolist() for op in network.get_ops() if op.get_type_name() == "Constant"]
    for values in NORMALIZATIONS["imagenet"]:
        assert (np.array(values) * 255).astype(np.float32).tolist() in constants
