"""What a GPU changes, tested without one: when a batch is fetched, which arithmetic is chosen, how many workers share it."""

import numpy as np
import pytest
import torch
from helpers.video import panning, write_video

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.commands import cmd_extract as command
from ceflpipe.stages.device import resolve_device, resolve_precision
from ceflpipe.stages.extract.encoder_base import BATCH_SIZE
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, resolve_config
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos


class Late(TorchEncoder):
    """An encoder that, like a GPU, takes the crops at once and has the features only when they are asked for."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.told = []

    def begin(self, crops):
        number, copied = sum(word == "begin" for word, _ in self.told), crops.copy()
        self.told.append(("begin", number))

        def fetch():
            self.told.append(("fetch", number))
            return TorchEncoder.encode_async(self, copied)()

        return fetch


def test_a_batch_is_fetched_only_after_the_next_has_begun(tmp_path, random_encoder, photographs):
    jobs = []
    for i, count in enumerate((40, 5, 70)):
        write_video(tmp_path / f"{i}.mp4", panning(photographs["astronaut"], count, (160, 160), (110, 20), (130, 25)))
        jobs.append(VideoJob(str(i), tmp_path / f"{i}.mp4"))
    wishes = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32")
    late = Late(random_encoder, precision="fp32")
    settings, detector = resolve_config(wishes), build_detector(wishes)
    usual = list(extract_videos(jobs, detector, TorchEncoder(random_encoder, precision="fp32"), settings))
    found = list(extract_videos(jobs, detector, late, settings))
    batches = -(-115 // BATCH_SIZE)
    expected = [("begin", 0)]
    for number in range(1, batches):
        expected += [("begin", number), ("fetch", number - 1)]
    assert late.told == [*expected, ("fetch", batches - 1)]
    for one, other in zip(found, usual, strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.features, other.features)


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_gets_the_arithmetic_it_has(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve_precision("auto", torch.device("cuda")) == chosen
    assert resolve_precision("fp32", torch.device("cuda")) == "fp32"


@pytest.mark.parametrize(("cores", "cpu", "gpu"), [(2, 2, 2), (16, 16, 12), (64, 64, 12)])
def test_workers_follow_the_cores_and_a_gpu_is_shared_by_a_dozen(monkeypatch, cores, cpu, gpu):
    monkeypatch.setattr(command, "cores", lambda: cores)
    assert command._who_works(None, "", None, "cpu")[1] == cpu
    assert command._who_works(None, "", None, "cuda")[1] == gpu
    assert command._who_works(None, "", 5, "cuda")[1] == 5


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_a_device_that_torch_knows_and_ceflpipe_does_not_is_said(device):
    with pytest.raises(CeflError, match="runs on cpu and cuda"):
        resolve_device(device)
