"""Both backends give torchvision's features, OpenVINO without torch; the oracle is torchvision's network in fp32."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.cli import run_cli

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features, read_settings
from ceflpipe.stages import device
from ceflpipe.stages.encoder.weights import NORMALIZATIONS, load_encoder, write_encoder
from ceflpipe.stages.extract.encoder_base import BACKENDS
from ceflpipe.stages.extract.encoder_openvino import (
    OpenVINOEncoder,
    _num_threads,
    openvino_available,
    openvino_precision,
)
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_encoder, resolve_config

NO_BF16 = "this processor has no bfloat16"
"""The one reason for which a test may be left out; .ci/run knows it."""


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 16, 16, 3), np.uint8).repeat(14, 1).repeat(14, 2)


@pytest.fixture(scope="module")
def lived_in(random_encoder, tmp_path_factory):
    """An encoder whose batch norms have means, variances, scales and shifts as after training."""
    state, rng = load_encoder(random_encoder).state_dict(), torch.Generator().manual_seed(1)
    for key, value in state.items():
        if "bn" in key or "downsample.1" in key:
            if key.endswith(("weight", "running_var")):
                state[key] = 0.5 + torch.rand(value.shape, generator=rng)
            elif key.endswith(("bias", "running_mean")):
                state[key] = 0.2 * torch.randn(value.shape, generator=rng)
    path = tmp_path_factory.mktemp("weights") / "lived-in.safetensors"
    write_encoder(path, state, "lived-in", "imagenet", {"source": "for tests"})
    return path


def by_torchvision(weights, crops):
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in NORMALIZATIONS["imagenet"])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return load_encoder(weights)((pixels - mean) / std).numpy()


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.9999)])
def test_features_are_torchvisions(lived_in, crops, backend, precision, least):
    if (backend, precision) == ("openvino", "bf16") and not openvino_available("bf16"):
        pytest.skip(NO_BF16)  # torch emulates bfloat16 where the processor has none, OpenVINO refuses
    expected = by_torchvision(lived_in, crops)
    got = build_encoder(ExtractConfig(encoder=lived_in, backend=backend, precision=precision))(crops).astype(np.float64)
    assert got.shape == (5, 512)
    assert cosine(got, expected).min() > least
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(expected, axis=-1), rtol=0.01)


def test_bf16_is_refused_by_openvino_where_the_processor_has_none(random_encoder, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # as on a processor without bfloat16
    assert openvino_precision("auto") == "fp32"
    with pytest.raises(CeflError, match="this processor has none that OpenVINO would use; take fp32, or auto"):
        resolve_config(ExtractConfig(encoder=random_encoder, backend="openvino", precision="bf16"))


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("", True), ("ALL", True), ("DEFAULT", True), ("AVX512_CORE_BF16", True), ("avx512_core_amx", True),
     ("AVX2", False), ("AVX2_VNNI_2", False), ("AVX512_CORE", False), ("SSE41", False)],
)  # fmt: skip
def test_auto_precision_follows_the_instructions_onednn_may_use(monkeypatch, limit, allowed):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    native = device.cpu_has_bf16()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert native == (allowed and device.cpu_has_bf16())
    assert device.resolve_precision("auto", torch.device("cpu")) == ("bf16" if device.cpu_has_bf16() else "fp32")


def test_a_crop_comes_out_the_same_whoever_stands_beside_it(lived_in, crops):
    encoder = OpenVINOEncoder(lived_in, 224, "fp32", batch_size=4)
    whole = encoder(crops)
    assert np.array_equal(whole[1:3], encoder(crops[1:3]))
    assert np.array_equal(whole[4], encoder(crops[4:])[0])


def test_a_cache_knows_which_backend_made_it(random_encoder):
    wishes = ExtractConfig(encoder=random_encoder, backend="openvino", precision="fp32")
    assert resolve_config(wishes).backend == "openvino"
    assert resolve_config(wishes) != resolve_config(ExtractConfig(encoder=random_encoder, precision="fp32"))
    assert isinstance(build_encoder(wishes), OpenVINOEncoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "processors only"),
        ({"precision": "fp16"}, "fp32 or bf16"),
        ({"backend": "tensorflow"}, "torch or openvino"),
    ],
)
def test_what_it_cannot_do_is_said(random_encoder, changes, message):
    with pytest.raises(CeflError, match=message):
        resolve_config(ExtractConfig(encoder=random_encoder, **{"backend": "openvino", **changes}))


def test_other_weights_are_refused(tmp_path, random_encoder):
    state = load_encoder(random_encoder).state_dict()
    state["layer3.0.conv1.weight"] = torch.zeros(256, 64, 3, 3)
    write_encoder(tmp_path / "odd.safetensors", state, "odd", "unit", {})
    with pytest.raises(CeflError, match=r"layer3.0.conv1.weight is \(256, 64, 3, 3\), wanted \(256, 128, 3, 3\)"):
        OpenVINOEncoder(tmp_path / "odd.safetensors", 64)


def test_without_the_package_the_line_says_what_to_type(random_encoder):
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from ceflpipe.stages.extract.encoder_openvino import openvino_precision\n"
        "openvino_precision('auto')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "ceflpipe[openvino]"' in done.stderr.splitlines()[-1]


def test_a_run_of_extract_needs_no_torch():
    code = (
        "import sys\n"
        "import ceflpipe.pipeline.commands.cmd_extract, ceflpipe.pipeline.executor, ceflpipe.stages.extract.extract\n"
        "from ceflpipe.stages.extract.encoder_openvino import openvino_precision\n"
        "openvino_precision('auto')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_extract_by_the_command(tmp_path, face_video, random_encoder):
    (tmp_path / "list.csv").write_text(f"id,path,label\none,{face_video.name},fear\n")
    common = [
        "extract",
        "--manifest",
        "list.csv",
        "--root",
        face_video.parent,
        "--encoder",
        random_encoder,
        "--crop-size",
        "64",
    ]
    for backend in ("torch", "openvino"):
        done = run_cli(*common, "--backend", backend, "--precision", "fp32", "--out", f"{backend}.h5", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, other = read_features(tmp_path / "torch.h5"), read_features(tmp_path / "openvino.h5")
    assert cosine(one.features.astype(np.float64), other.features.astype(np.float64)).min() > 0.9999
    assert '"backend": "openvino"' in read_settings(tmp_path / "openvino.h5")


def test_threads_that_share_an_encoder_get_their_own_features(random_encoder):
    from concurrent.futures import ThreadPoolExecutor

    encoder = OpenVINOEncoder(random_encoder, 64, "fp32", batch_size=2)
    crops = np.random.default_rng(1).integers(0, 256, (12, 2, 64, 64, 3), np.uint8)
    expected = [encoder(pair) for pair in crops]
    with ThreadPoolExecutor(3) as pool:
        for got, right in zip(pool.map(encoder, [*crops] * 4), expected * 4, strict=True):
            assert np.array_equal(got, right)


@pytest.mark.parametrize(("said", "threads"), [("", 0), ("3", 3), ("4,2", 4), ("many", 0), (None, 0)])
def test_the_share_of_the_cores_is_read_as_other_libraries_read_it(monkeypatch, said, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _num_threads() == threads


def test_a_run_made_with_it_is_read_without_it(tmp_path, random_encoder, monkeypatch):
    from ceflpipe.stages.heads.run_io import Run
    from ceflpipe.stages.predict import predict

    made = resolve_config(ExtractConfig(encoder=random_encoder, backend="openvino", precision="fp32"))
    run = Run(tmp_path, {"features": {"settings": made.to_json()}}, {})
    assert predict.extract_config_of(run, random_encoder, "cpu").backend == "openvino"
    monkeypatch.setattr(predict, "works_here", lambda precision: False)
    assert predict.extract_config_of(run, random_encoder, "cpu").backend == "torch"
