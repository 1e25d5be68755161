"""GPU logic, tested without a GPU: when a batch is fetched, which precision is chosen, how many workers share a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.video import panning, write_video

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.commands import cmd_extract
from ceflpipe.stages import onnx_session
from ceflpipe.stages.device import resolve_device, resolve_devices, resolve_precision
from ceflpipe.stages.extract.encoder_base import BATCH_SIZE
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract_config import (
    ExtractConfig,
    build_detector,
    resolve_config,
    resolve_detector_device,
    resolve_settings,
)
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos


class DeferredEncoder(TorchEncoder):
    """An encoder that, like a GPU, takes the crops at once and computes their features later; records both events."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.events = []

    def encode_async(self, crops):
        number, copied = sum(event == "start" for event, _ in self.events), crops.copy()
        self.events.append(("start", number))

        def fetch():
            self.events.append(("fetch", number))
            return TorchEncoder.encode_async(self, copied)()

        return fetch


def test_a_batch_is_fetched_only_after_the_next_is_started(tmp_path, random_encoder, photographs):
    jobs = []
    for i, count in enumerate((40, 5, 70)):
        write_video(tmp_path / f"{i}.mp4", panning(photographs["astronaut"], count, (160, 160), (110, 20), (130, 25)))
        jobs.append(VideoJob(str(i), tmp_path / f"{i}.mp4"))
    config = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32")
    settings, detector = resolve_settings(config), build_detector(config)
    encoder = DeferredEncoder(random_encoder, precision="fp32")
    expected = list(extract_videos(jobs, detector, TorchEncoder(random_encoder, precision="fp32"), settings))
    videos = list(extract_videos(jobs, detector, encoder, settings))
    last = -(-115 // BATCH_SIZE) - 1
    events = [("start", 0)]
    for number in range(last):
        events += [("start", number + 1), ("fetch", number)]
    assert encoder.events == [*events, ("fetch", last)]
    for video, reference in zip(videos, expected, strict=True):
        assert video.id == reference.id
        np.testing.assert_array_equal(video.features, reference.features)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_auto_precision_of_a_gpu_is_what_it_computes_natively(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve_precision("auto", torch.device("cuda")) == precision
    assert resolve_precision("fp32", torch.device("cuda")) == "fp32"


def test_workers_default_to_the_cores_also_on_gpus(monkeypatch):
    monkeypatch.setattr(cmd_extract, "num_cores", lambda: 16)
    assert cmd_extract._build_executor(None, "", None)[1] == 16
    assert cmd_extract._build_executor(None, "", 5)[1] == 5


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_other_devices_of_torch_are_refused(device):
    with pytest.raises(CeflError, match="runs on cpu and cuda"):
        resolve_device(device)


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize(
    ("device", "devices"),
    [("cuda", ("cuda:0", "cuda:1", "cuda:2")), ("auto", ("cuda:0", "cuda:1", "cuda:2")), ("cuda:1", ("cuda:1",)),
     ("cuda:2,cuda:0", ("cuda:2", "cuda:0")), ("cuda:0, cuda:1", ("cuda:0", "cuda:1")), ("cpu", ("cpu",))],
)  # fmt: skip
def test_cuda_is_every_visible_gpu_and_a_list_is_those_named(three_gpus, device, devices):
    assert resolve_devices(device) == devices


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:0,cuda:3", "has 3 CUDA devices"), ("cuda:1,cuda:1", "different GPUs"), ("cuda:0,cpu", "different GPUs"),
     ("cuda,cuda:1", "different GPUs"), ("cuda:0,", "unknown device"), ("cuda:0,mps", "runs on cpu and cuda")],
)  # fmt: skip
def test_a_list_of_anything_else_is_refused(three_gpus, device, message):
    with pytest.raises(CeflError, match=message):
        resolve_devices(device)


def test_without_a_gpu_auto_is_the_processor_and_cuda_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_devices("auto") == ("cpu",)
    with pytest.raises(CeflError, match="this machine has 0 CUDA devices that torch can use; use cpu"):
        resolve_devices("cuda")


def test_what_trains_on_one_device_refuses_a_list(three_gpus):
    with pytest.raises(
        CeflError, match="only extract uses several devices at a time; give one, such as --device cuda:0"
    ):
        resolve_device("cuda:0,cuda:2")


@pytest.mark.parametrize(("third", "warns"), [("A100", False), ("T4", True)])
def test_extract_takes_all_gpus_and_warns_of_different_models(three_gpus, monkeypatch, capsys, third, warns):
    names = {"cuda:0": "A100", "cuda:1": "A100", "cuda:2": third}
    monkeypatch.setattr(torch.cuda, "get_device_name", names.get)
    assert cmd_extract._gpus_of(ExtractConfig(device="cuda")) == ("cuda:0", "cuda:1", "cuda:2")
    assert ("GPUs of different models (A100, T4)" in capsys.readouterr().err) == warns
    assert cmd_extract._gpus_of(ExtractConfig(device="cuda:0,cuda:1")) == ("cuda:0", "cuda:1")
    assert cmd_extract._gpus_of(ExtractConfig(device="cpu")) == ()
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "device", "installed", "expected"),
    [({}, "cuda", True, "cuda"), ({}, "cuda:1", False, "cpu"), ({}, "cpu", True, "cpu"),
     ({"detector_device": "cpu"}, "cuda", True, "cpu"), ({"detector_device": "cuda"}, "cuda", False, "cuda"),
     ({"input": "crops"}, "cuda", True, "cpu")],
)  # fmt: skip
def test_faces_are_detected_on_the_gpu_where_it_and_onnxruntime_gpu_are(
    monkeypatch, config, device, installed, expected
):
    monkeypatch.setattr(onnx_session, "cuda_provider_available", lambda: installed)
    assert resolve_detector_device(ExtractConfig(**config), device) == expected


def test_detection_on_a_gpu_and_encoding_on_a_processor_are_refused():
    with pytest.raises(CeflError, match="give --device cuda as well"):
        resolve_detector_device(ExtractConfig(detector_device="cuda"), "cpu")


@pytest.mark.parametrize(
    ("detector_device", "installed", "line"),
    [("auto", True, "faces are detected on the GPU as well"), ("auto", False, "pip install onnxruntime-gpu"),
     ("cpu", False, "")],
)  # fmt: skip
def test_extract_says_where_faces_are_detected(monkeypatch, capsys, random_encoder, detector_device, installed, line):
    config = ExtractConfig(encoder=random_encoder, precision="fp32", device="cpu", detector_device=detector_device)
    resolved = resolve_config(config)
    detected = "cuda" if installed else "cpu"
    on_gpu = resolved.config.model_copy(update={"device": "cuda", "detector_device": detected})
    cmd_extract.log_detector_device(config, replace(resolved, config=on_gpu))
    printed = capsys.readouterr().err
    assert line in printed
    assert bool(printed) == bool(line)
    cmd_extract.log_detector_device(config, resolved)
    assert not capsys.readouterr().err
