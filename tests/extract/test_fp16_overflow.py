"""Videos that overflow in fp16 get the features of fp32, and say so; others keep those of fp16."""

import numpy as np
import pytest
from helpers.video import write_video

from ceflpipe.cache.features import VideoStatus
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.stages.encoder.weights import load_encoder, write_encoder
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.extract.extractor import OVERFLOW, extract_videos
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


@pytest.fixture(scope="module")
def overflowing_encoder(random_encoder, tmp_path_factory):
    """The random encoder with a stem a million times as large, and all paths after the first layer as much smaller.

    Its features are those of the random encoder, but values inside are beyond 65504, the largest number of fp16.
    """
    state = load_encoder(random_encoder).state_dict()
    for name, factor in (("bn1", 1e6), ("layer2.0.conv1", 1e-6), ("layer2.0.downsample.0", 1e-6)):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in state:
                state[f"{name}.{part}"] = state[f"{name}.{part}"] * factor
    path = tmp_path_factory.mktemp("weights") / "overflowing.safetensors"
    write_encoder(path, state, "overflowing", "imagenet", {"source": "for tests"})
    return path


class BrightOverflows(TorchEncoder):
    """An encoder in fp16 whose features of bright crops are infinite, though ``in_fp32`` they are not."""

    def __init__(self, weights):
        super().__init__(weights, precision="fp32")
        self.precision = "fp16"

    def encode_async(self, crops):
        features, bright = super().encode_async(crops)(), crops.mean(axis=(1, 2, 3)) > 127
        return lambda: np.where(bright[:, None], np.float16(np.inf), features)


@pytest.fixture
def jobs(tmp_path):
    """Three videos of 40 frames, more than a batch: dark, bright, dark."""
    rng = np.random.default_rng(0)
    for name, low in (("a", 10), ("b", 160), ("c", 20)):
        write_video(tmp_path / f"{name}.mp4", list(rng.integers(low, low + 60, (40, 64, 64, 3), np.uint8)))
    return [VideoJob(name, tmp_path / f"{name}.mp4") for name in "abc"]


@pytest.fixture
def settings(random_encoder):
    return resolve_settings(ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp16", input="crops"))


def test_only_the_video_that_overflows_is_encoded_in_fp32(jobs, settings, random_encoder):
    expected = list(extract_videos(jobs, None, TorchEncoder(random_encoder, precision="fp32"), settings))
    videos = list(extract_videos(jobs, None, BrightOverflows(random_encoder), settings))
    assert [video.id for video in videos] == ["a", "b", "c"]
    for video, reference in zip(videos, expected, strict=True):
        np.testing.assert_array_equal(video.features, reference.features)
        assert video.status == VideoStatus.OK
        assert video.fingerprint == reference.fingerprint
    assert [OVERFLOW in video.note for video in videos] == [False, True, False]


def test_a_video_that_overflows_in_fp32_as_well_is_unreadable_with_both_reasons(jobs, settings, random_encoder):
    encoder = BrightOverflows(random_encoder)
    encoder.in_fp32 = lambda: Always(random_encoder)
    video = list(extract_videos(jobs, None, encoder, settings))[1]
    assert video.status == VideoStatus.UNREADABLE
    assert video.note == f"the encoder produced NaN or Inf; {OVERFLOW}"


class Always(TorchEncoder):
    """An encoder in fp32 whose features are NaN."""

    def __init__(self, weights):
        super().__init__(weights, precision="fp32")

    def encode_async(self, crops):
        features = super().encode_async(crops)() * np.float16(np.nan)
        return lambda: features


def test_a_cache_of_fp16_says_which_video_is_fp32(jobs, overflowing_encoder, random_encoder, tmp_path):
    """With weights that overflow inside the network; the oracle is the extraction in fp32."""
    manifest = Manifest("x", tmp_path, tuple(VideoEntry(job.id, f"{job.id}.mp4", "fear") for job in jobs), ("fear",))
    tables = {}
    for precision in ("fp16", "fp32"):
        config = ExtractConfig(
            encoder=overflowing_encoder, crop_size=64, precision=precision, input="crops", device="cpu"
        )
        assert not extract_features(manifest, config, tmp_path / f"{precision}.h5").failed
        tables[precision] = read_features(tmp_path / f"{precision}.h5")
    assert tables["fp16"].settings.precision == "fp16"
    np.testing.assert_array_equal(tables["fp16"].features, tables["fp32"].features)
    assert all(note.endswith(OVERFLOW) for note in read_index(tmp_path / "fp16.h5").note)
    assert not any(read_index(tmp_path / "fp32.h5").note)


def test_the_fp32_form_of_an_encoder_is_built_of_the_same_file(random_encoder):
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    encoder = TorchEncoder(random_encoder, precision="fp16")
    precise = encoder.in_fp32()
    assert precise is encoder.in_fp32()
    np.testing.assert_array_equal(precise(crops), TorchEncoder(random_encoder, precision="fp32")(crops))
    assert TorchEncoder(random_encoder, precision="fp32").in_fp32() is None
