"""Runs exported to ONNX: ONNX Runtime alone gives what the run's own test and stage one give, for every head and encoder."""

import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.onnx_encoders import SIZE, write_small
from helpers.run_cli import ROOT, run_cli, run_cli_in_process
from helpers.runs import make_small_dataset

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FeatureTable
from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions
from ceflpipe.stages.encoder.onnx_export import export_encoder, read_metadata
from ceflpipe.stages.extract.encoder_onnx import OnnxEncoder
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.heads.registry import HEADS
from ceflpipe.stages.predict import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory, random_encoder):
    """A working folder with runs of all heads, exported by one process, which loads no shape checks of the tests."""
    home = tmp_path_factory.mktemp("export")
    script = home / "make.py"
    script.write_text(SCRIPT.format(heads=list(HEADS), encoder=str(random_encoder)))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=home, capture_output=True, text=True, timeout=580,
        env={**os.environ, "PYTHONPATH": f"{ROOT.parent}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return home


SCRIPT = """
import json
from dataclasses import replace
from pathlib import Path
from helpers.runs import make_small_dataset, SETTINGS
from ceflpipe.cache.atomic import sha256_of
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from functools import lru_cache
from ceflpipe.stages.predict import export
from ceflpipe.stages.predict.export import export_run
export.export_encoder = lru_cache(export.export_encoder)  # the same for all heads
encoder = Path({encoder!r})
data = make_small_dataset(Path("."), with_videos=False)
settings = replace(SETTINGS, encoder_sha256=sha256_of(encoder), normalization="imagenet", detector_sha256="")
table = replace(data.table, settings=settings)
results = {{}}
for head in {heads!r}:
    config = TrainConfig(head=head, epochs=2, warmup_epochs=0, learning_rate=0.001, precision="fp32",
                         long_videos="center" if head == "cefl" else "resample" if head == "fan" else "first",
                         test_view="end" if head == "cefl" else "middle")
    cv = CVConfig(folds=3, seed=1, tta_views=3 if head == "cefl" else 1)
    run = cross_validate(data.manifest, table, config, cv, Path("runs") / head)
    result = export_run(run, encoder, table, Path("onnx") / f"{{head}}.onnx")
    results[head] = [result.difference, result.feature_difference]
    if head == "cefl":
        result = export_run(run, encoder, None, Path("onnx/one.onnx"), fold="2")
        results["one"] = [result.difference, result.checked_on]
Path("results.json").write_text(json.dumps(results))
"""


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def padded(table: FeatureTable, ids):
    """Return features (B, T, D), padded with numbers that must not matter, and lengths."""
    parts = [table[video_id] for video_id in ids]
    features = np.full((len(parts), max(map(len, parts)) + 3, parts[0].shape[1]), 7, np.float16)
    for row, part in enumerate(parts):
        features[row, : len(part)] = part
    return {"features": features, "length": np.array([len(part) for part in parts])}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_those_of_the_test_for_any_batch(exported, head):
    """The oracle is the run itself: the predictions of each fold's model, which the exported mean of all is made of."""
    from ceflpipe.stages.heads.run_io import read_run
    from ceflpipe.stages.predict.inference import Predictor

    run = read_run(exported / "runs" / head)
    data = make_small_dataset(exported, with_videos=False)
    network = session(exported / "onnx" / f"{head}.onnx")
    names = [output.name for output in network.get_outputs()]
    ids = data.table.videos.id[:5]
    results = dict(zip(names, network.run(None, padded(data.table, ids)), strict=True))
    predictor = Predictor(run, "cpu", run.temperature)
    for row, video_id in enumerate(ids):
        features = data.table[video_id]
        probabilities, intensity = predictor._infer(features, [0], len(features))
        np.testing.assert_allclose(results["probabilities"][row], probabilities[0], atol=2e-5)
        alone = dict(zip(names, network.run(None, padded(data.table, [video_id])), strict=True))
        np.testing.assert_allclose(alone["probabilities"][0], results["probabilities"][row], atol=1e-6)
        assert ("intensity" in results) == (intensity is not None)
        if intensity is not None:
            np.testing.assert_allclose(results["intensity"][row], intensity[0], atol=2e-5)
    difference, feature_difference = json.loads((exported / "results.json").read_text())[head]
    assert difference < 1e-4
    assert feature_difference < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cefl", "fan", "mean"])
@pytest.mark.parametrize("length", [1, 12, 105, 106, 250])
def test_videos_of_any_length_are_sampled_as_by_the_run(exported, head, length):
    from ceflpipe.stages.heads.clip_sampling import clip_frame_spans, map_start
    from ceflpipe.stages.heads.run_io import read_run
    from ceflpipe.stages.predict.inference import Predictor

    run = read_run(exported / "runs" / head)
    features = np.random.default_rng(length).normal(size=(length, 512)).astype(np.float16)
    network = session(exported / "onnx" / f"{head}.onnx")
    probabilities, clips = network.run(
        ["probabilities", "clips"], {"features": features[None], "length": np.array([length])}
    )
    expected, _ = Predictor(run, "cpu", run.temperature)._infer(features, [0], length)
    np.testing.assert_allclose(probabilities, expected, atol=2e-5)
    config = run.train_config
    spans = clip_frame_spans(
        torch.tensor([length]), config.num_clips, config.long_videos, map_start(config, run.cv.tta_views)
    )
    np.testing.assert_array_equal(clips, spans)


@pytest.mark.slow
def test_one_fold_is_that_model_alone(exported):
    from ceflpipe.stages.heads.run_io import read_run

    run = read_run(exported / "runs/cefl")
    predictions = run.predictions().set_index("id")
    data = make_small_dataset(exported, with_videos=False)
    ids = list(predictions.index[predictions.fold == "2"])
    (probabilities,) = session(exported / "onnx/one.onnx").run(["probabilities"], padded(data.table, ids))
    powers = predictions.loc[ids, [f"p_{label}" for label in run.labels]].to_numpy(float) ** (1 / run.temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert json.loads((exported / "results.json").read_text())["one"][1] == "random features of 6 lengths"


@pytest.mark.slow
def test_the_encoder_gives_the_features_of_stage_one_for_any_batch(exported, random_encoder):
    crops = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    network = session(exported / "onnx/mean.encoder.onnx")
    (features,) = network.run(None, {"crops": crops})
    expected = TorchEncoder(random_encoder, precision="fp32")(crops)
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, expected, rtol=5e-3, atol=5e-3)
    (alone,) = network.run(None, {"crops": crops[:1]})
    np.testing.assert_allclose(alone[0], features[0], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_files_say_what_they_are_and_belong_together(exported):
    head, encoder = (read_metadata(exported / "onnx" / name) for name in ("mean.onnx", "mean.encoder.onnx"))
    assert json.loads(head["labels"]) == ["anger", "fear", "joy"]
    assert head["encoder_file_sha256"] == sha256_of(exported / "onnx/mean.encoder.onnx")
    assert (head["encoder_file"], encoder["head_file"]) == ("mean.encoder.onnx", "mean.onnx")
    assert head["run_sha256"] == encoder["run_sha256"] == sha256_of(exported / "runs/mean/SHA256SUMS")
    assert 0 <= float(head["max_difference"]) < 1e-4
    assert head["checked_on"] == "features of 18 videos of the cache"
    assert "mean" in json.loads(head["scores"])["war"]
    assert json.loads(head["temperature"]) == json.loads(head["calibration"])["temperature"] != 1


@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("batch", "dtype"), [("N", np.float32), ("N", np.float16), (32, np.float32)])
def test_an_onnx_encoder_takes_crops_as_they_are(tmp_path, layout, color_order, batch, dtype):
    """Normalization, order of colors and axes are in the graph: the oracle is stage one, which does them outside."""
    write_small(tmp_path / "n.onnx", batch=batch, layout=layout, dtype=dtype)
    options = OnnxOptions(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), layout=layout, color_order=color_order)
    build_onnx_encoder(tmp_path / "n.onnx", tmp_path / "e.onnx", "e", options)
    (tmp_path / "x.onnx").write_bytes(export_encoder(tmp_path / "e.onnx", SIZE))
    count = 5 if batch == "N" else batch
    crops = np.random.default_rng(2).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    (features,) = session(tmp_path / "x.onnx").run(None, {"crops": crops})
    np.testing.assert_allclose(features, OnnxEncoder(tmp_path / "e.onnx")(crops), rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_a_file_that_differs_from_torch_is_not_written(exported, random_encoder, monkeypatch, tmp_path):
    from ceflpipe.stages.heads.run_io import read_run

    run = read_run(exported / "runs/mean")
    encoder_network = (exported / "onnx/mean.encoder.onnx").read_bytes()
    monkeypatch.setattr(export, "export_encoder", lambda path, size: encoder_network)
    wrong = (exported / "onnx/sal.onnx").read_bytes()  # a head, but another one
    monkeypatch.setattr(export, "export_module", lambda *arguments: wrong)
    with pytest.raises(CeflError, match="the ONNX file of the head differs from torch by"):
        export.export_run(run, random_encoder, None, tmp_path / "x.onnx")
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.slow
def test_what_cannot_be_exported_ends_in_one_line(exported, random_encoder):
    command = ("export", "runs/mean", "--encoder", random_encoder)
    for arguments, text in (
        (command, "give the format, --onnx"),
        ((*command, "--onnx", "--out", "x.bin"), "ends in .onnx"),
        ((*command, "--onnx", "--features", "missing.h5"), "missing.h5"),
        (("export", "runs/mean", "--onnx", "--encoder", "faces"), "not the encoder this run was trained with"),
        ((*command, "--onnx", "--fold", "9"), "the run has the folds 1, 2, 3"),
        (("export", "runs", "--onnx"), "not a run folder"),
    ):
        done = run_cli_in_process(*arguments, "--quiet", cwd=exported)
        assert done.returncode == 2, arguments
        assert text in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    (exported / "mine.onnx").write_text("mine")
    refused = run_cli_in_process(*command, "--onnx", "--out", "mine.onnx", cwd=exported)
    assert "mine.onnx: exists, and ceflpipe did not write it" in refused.stderr


@pytest.mark.slow
def test_the_run_of_the_package_is_exported_by_the_command(tmp_path):
    done = run_cli("export", "faces", "--onnx", "--json", cwd=tmp_path, check=True)
    result = json.loads(done.stdout)
    assert result["head"] == "artifacts/onnx/composed/faces/faces.onnx"
    assert result["max_difference"] < 1e-4
    crops = np.zeros((2, 96, 96, 3), np.uint8)
    (features,) = session(tmp_path / result["encoder"]).run(None, {"crops": crops})
    inputs = {"features": features[None], "length": np.array([2])}
    (probabilities,) = session(tmp_path / result["head"]).run(["probabilities"], inputs)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
