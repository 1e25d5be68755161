"""Videos that overflow in fp16 get the features of fp32, and say so; others keep those of fp16."""

import numpy as np
import onnx
import pytest
from helpers.onnx_encoders import SIZE, Graph
from helpers.video import write_video
from onnx import TensorProto, helper, numpy_helper

from ceflpipe.cache.features import VideoStatus
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions
from ceflpipe.stages.encoder.onnx_graph import parse_graph, tensors_of, widen_fp16
from ceflpipe.stages.encoder.weights import load_encoder, write_encoder
from ceflpipe.stages.extract.encoder_onnx import OnnxEncoder
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


def test_a_cache_of_fp16_names_the_videos_in_fp32(jobs, overflowing_encoder, random_encoder, tmp_path):
    """With weights that overflow inside the network; the oracle is the extraction in fp32."""
    manifest = Manifest("x", tmp_path, tuple(VideoEntry(job.id, f"{job.id}.mp4", "fear") for job in jobs), ("fear",))
    tables = {}
    for precision in ("fp16", "fp32"):
        config = ExtractConfig(
            encoder=overflowing_encoder, crop_size=64, precision=precision, input="crops", device="cpu", backend="torch"
        )
        assert not extract_features(manifest, config, tmp_path / f"{precision}.h5").failed
        tables[precision] = read_features(tmp_path / f"{precision}.h5")
    assert tables["fp16"].settings.precision == "fp16"
    np.testing.assert_array_equal(tables["fp16"].features, tables["fp32"].features)
    assert all(note.endswith(OVERFLOW) for note in read_index(tmp_path / "fp16.h5").note)
    assert not any(read_index(tmp_path / "fp32.h5").note)


def test_another_encoder_that_takes_the_faces_of_such_a_cache_does_not_take_the_note(
    face_video, overflowing_encoder, random_encoder, tmp_path
):
    manifest = Manifest("x", face_video.parent, (VideoEntry("a", face_video.name, "fear"),), ("fear",))
    config = ExtractConfig(encoder=overflowing_encoder, crop_size=64, precision="fp16", device="cpu")
    extract_features(manifest, config, tmp_path / "fp16.h5")
    assert OVERFLOW in read_index(tmp_path / "fp16.h5").note[0]
    other = config.model_copy(update={"encoder": random_encoder, "precision": "fp32"})
    plans = []
    extract_features(
        manifest, other, tmp_path / "b.h5", detections=[tmp_path / "fp16.h5"],
        on_plan=lambda plan, _: plans.extend(plan.pending),
    )  # fmt: skip
    assert [job.detections for job in plans] == [tmp_path / "fp16.h5"]
    assert OVERFLOW not in read_index(tmp_path / "b.h5").note[0]


def test_the_fp32_form_of_an_encoder_is_built_of_the_same_file(random_encoder):
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    encoder = TorchEncoder(random_encoder, precision="fp16")
    precise = encoder.in_fp32()
    assert precise is encoder.in_fp32()
    np.testing.assert_array_equal(precise(crops), TorchEncoder(random_encoder, precision="fp32")(crops))
    assert TorchEncoder(random_encoder, precision="fp32").in_fp32() is None


def fp16_network(path, dtype):
    """Write a network with weights of fp16 values, a constant in a node, and a graph within a node; ``dtype`` holds them."""
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    graph, rng = Graph(), np.random.default_rng(0)
    kernel = rng.standard_normal((24, 3, 4, 4)).astype(np.float16).astype(dtype)
    x = graph.add("Relu", graph.add("Conv", "pixels", graph.constant(kernel), strides=[4, 4]))
    factor = graph.add("Constant", value=numpy_helper.from_array(np.array(1.5, dtype)))
    x = graph.add("Cast", graph.add("Mul", x, factor), to=kind)
    branches = {}
    for name, value in (("then_branch", 0.25), ("else_branch", 4.0)):
        shift = helper.make_node("Add", [x, f"{name}_shift"], [f"{name}_result"])
        weight = numpy_helper.from_array(np.array(value, dtype), f"{name}_shift")
        result = helper.make_tensor_value_info(f"{name}_result", kind, None)
        branches[name] = helper.make_graph([shift], name, [], [result], [weight])
    x = graph.add("If", graph.constant(np.array(True)), **branches)
    graph.add("Flatten", graph.add("GlobalAveragePool", x), name="features")
    onnx.save(graph.model(("N", 3, SIZE, SIZE), "features", kind=kind), str(path))
    target = path.with_name(f"{path.stem}-encoder.onnx")
    build_onnx_encoder(path, target, path.stem, OnnxOptions(mean=(0.5,) * 3, std=(0.5,) * 3))
    return target


def test_the_fp32_form_of_an_onnx_network_is_the_same_network_in_fp32(tmp_path):
    """The oracle is a file that was written in fp32 with the same numbers."""
    encoder = OnnxEncoder(fp16_network(tmp_path / "half.onnx", np.float16))
    expected = OnnxEncoder(fp16_network(tmp_path / "single.onnx", np.float32))
    crops = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    assert encoder.precision == "fp16"
    assert expected.in_fp32() is None
    precise = encoder.in_fp32()
    assert precise is encoder.in_fp32()
    assert (precise.precision, precise.sha256) == ("fp32", encoder.sha256)
    np.testing.assert_array_equal(precise(crops), expected(crops))
    widened = widen_fp16(parse_graph((tmp_path / "half.onnx").read_bytes(), "half.onnx"))
    types = {tensor.data_type for tensor in tensors_of(onnx.load_from_string(widened))}
    assert TensorProto.FLOAT in types
    assert TensorProto.FLOAT16 not in types
