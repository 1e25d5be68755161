"""Detectors on a GPU, tested with a CUDA provider that is this processor: settings, batches, digits, errors."""

import numpy as np
import pytest
from helpers.onnx_networks import FakeGPU, write_pack

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.extract.insightface_detector import InsightFaceDetector, PackNetwork
from ceflpipe.stages.extract.retinaface import FPN_LEVELS, RetinaFace, retinaface_networks
from ceflpipe.stages.onnx_session import GPU_BATCH


def assert_equal(faces, expected):
    for name in ("boxes", "landmarks", "scores"):
        np.testing.assert_array_equal(getattr(faces, name), getattr(expected, name))


@pytest.mark.parametrize("level", range(len(FPN_LEVELS)))
def test_several_images_have_the_digits_of_each_alone(level):
    """The oracle is the network on one image; shapes as in a whole frame and as around a face."""
    network = retinaface_networks()[level]
    for height, width in ((240, 320), (96, 160)):
        pixels = np.random.default_rng(level).integers(-120, 120, (5, 3, height, width)).astype(np.float32)
        together = network(pixels)
        for i in range(len(pixels)):
            for part, alone in zip(together, network(pixels[i : i + 1]), strict=True):
                np.testing.assert_array_equal(part[i : i + 1], alone)


def test_retinaface_on_a_gpu_computes_full_batches_in_ieee_arithmetic(photographs, monkeypatch):
    image = photographs["six"]
    expected = RetinaFace()(image)
    around = RetinaFace().detect_roi(image, expected.boxes[0])
    gpu = FakeGPU(monkeypatch)
    detector = RetinaFace(device="cuda:1")
    assert_equal(detector(image), expected)
    assert_equal(detector.detect_roi(image, expected.boxes[0]), around)
    assert gpu.batches == [GPU_BATCH, GPU_BATCH]
    assert len(gpu.sessions) == len(FPN_LEVELS)
    for settings in gpu.sessions:
        assert settings["device_id"] == 1
        assert settings["use_tf32"] == 0
        assert settings["cudnn_conv_algo_search"] == "DEFAULT"
    assert detector.device_type == "cuda"
    assert RetinaFace().device_type == "cpu"


@pytest.mark.parametrize("batch_axis", [False, True])
def test_a_pack_on_a_gpu_detects_as_on_a_processor_several_images_at_a_time(
    tmp_path, photographs, monkeypatch, batch_axis
):
    file = write_pack(tmp_path, batch_axis=batch_axis)
    expected = InsightFaceDetector(str(file), 128)(photographs["six"])
    assert len(expected) > 1
    gpu = FakeGPU(monkeypatch)
    detector = InsightFaceDetector(str(file), 128, device="cuda")
    gpu.batches.clear()
    assert_equal(detector(photographs["six"]), expected)
    assert gpu.batches == [GPU_BATCH]
    pixels = np.random.default_rng(1).standard_normal((3, 3, 96, 128)).astype(np.float32)
    network = PackNetwork(file)
    assert network.batches
    for i in range(3):
        for part, alone in zip(network(pixels), network(pixels[i : i + 1]), strict=True):
            np.testing.assert_array_equal(part[i : i + 1], alone)


def test_a_pack_that_holds_for_one_image_only_is_computed_one_by_one(tmp_path, monkeypatch):
    one = PackNetwork(write_pack(tmp_path / "one", one_image_only=True))
    other = PackNetwork(write_pack(tmp_path / "other"))
    assert not one.batches
    assert other.batches
    pixels = np.random.default_rng(1).standard_normal((3, 3, 64, 64)).astype(np.float32)
    for part, expected in zip(one(pixels), other(pixels), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_without_onnxruntime_gpu_the_error_has_the_package(monkeypatch):
    with pytest.raises(
        CeflError, match=r"runs on processors only; .*pip install onnxruntime-gpu, or use --detector-device cpu"
    ):
        RetinaFace(device="cuda")


def test_a_gpu_that_onnxruntime_cannot_use_is_an_error_and_never_a_processor(monkeypatch):
    FakeGPU(monkeypatch, falls_back=True)
    with pytest.raises(CeflError, match=r"device cuda: ONNX Runtime cannot use this GPU .* use --detector-device cpu"):
        RetinaFace(device="cuda")


def test_a_full_gpu_is_one_line_that_says_what_to_type(photographs, monkeypatch):
    FakeGPU(monkeypatch, fails_with="CUDA failure 2: out of memory ; GPU=0\n at cudaMalloc")
    with pytest.raises(
        CeflError, match=r"^--device cuda:0: out of GPU memory; .*or use --detector-device cpu"
    ) as error:
        RetinaFace(device="cuda:0")(photographs["six"])
    assert "\n" not in str(error.value)
