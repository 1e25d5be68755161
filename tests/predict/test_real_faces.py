"""A video of real people goes the whole way, and predict sees exactly what stage one wrote."""

import json

import numpy as np
import pytest
import torch
from helpers.cli import run_cli
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_config
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.predict.predict import extract_config_of, predict


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photographs, random_encoder):
    """Twelve videos of real faces, stage one, stage two: a run to predict with."""
    home = tmp_path_factory.mktemp("real")
    rows = []
    for i in range(12):
        picture, begin = (photographs["astronaut"], (70 + 3 * i, 0)) if i % 2 else (photographs["six"], (60 * i, 20))
        end = (begin[0] + 30, begin[1] + 15)
        write_video(home / f"v{i}.mp4", panning(picture, 20, (320, 320), begin, end))
        rows.append(VideoEntry(f"v{i}", f"v{i}.mp4", ("fear", "happiness")[i % 2], f"S{i % 6}"))
    manifest = Manifest("real", home, tuple(rows), ("fear", "happiness"))
    extract_features(manifest, ExtractConfig(encoder=random_encoder, crop_size=96), home / "real.h5")
    recipe = TrainConfig(
        head="cefl", num_clips=7, frames_per_clip=5, epochs=3, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    cross_validate(
        manifest,
        read_features(home / "real.h5"),
        recipe,
        CVConfig(fold_scheme="subject", folds=3, seed=1),
        home / "run",
    )
    return home


def test_the_face_is_followed_in_every_frame(trained):
    table = read_features(trained / "real.h5")
    for name in ("v1", "v3", "v5"):
        rows = table.rows(name)
        assert (table.frame_status[rows] == FrameStatus.DETECTED).all()
        steps = np.linalg.norm(np.diff(table.landmarks[rows][:, 2], axis=0), axis=1)
        assert steps.max() < 12  # one person, gliding: the nose never jumps


def test_prediction_features_equal_stage_ones_to_the_byte(trained, random_encoder):
    table, run = read_features(trained / "real.h5"), read_run(trained / "run")
    wishes = extract_config_of(run, random_encoder, "cpu")
    for name in ("v0", "v1"):
        job = VideoJob(name, trained / f"{name}.mp4")
        (video,) = extract_videos([job], build_detector(wishes), build_encoder(wishes), resolve_config(wishes))
        np.testing.assert_array_equal(video.features, table.features[table.rows(name)])


def test_a_prediction_is_the_mean_over_the_folds(trained, random_encoder):
    from ceflpipe.stages.heads.clip_sampling import sample_clips_test
    from ceflpipe.stages.heads.layers import BatchedDropout

    run, table = read_run(trained / "run"), read_features(trained / "real.h5")
    (said,) = predict(run, [trained / "v1.mp4"], weights=random_encoder, device="cpu")
    frames = torch.from_numpy(table.features[table.rows("v1")]).float()
    clips = frames[sample_clips_test(torch.tensor([20]), 7, 5)]
    with torch.no_grad():
        logits = run.head()(clips[None].expand(3, *clips.shape), BatchedDropout(None)).logits
    expected = torch.softmax(logits, -1).mean(0)[0]
    assert [said.probabilities[label] for label in run.labels] == pytest.approx(expected.tolist(), abs=1e-5)
    assert said.located is not None
    assert 0 <= said.located[0] < said.located[1] <= 20 / 25 + 1e-9
    assert len(said.intensity) == 7


def test_videos_that_cannot_be_judged_are_said_and_the_rest_goes_on(trained, random_encoder):
    write_video(trained / "nobody.mp4", [np.full((96, 96, 3), 99, np.uint8)] * 8)
    (trained / "broken.mp4").write_bytes(b"x" * 100)
    names = ["nobody.mp4", "v1.mp4", "broken.mp4", "gone.mp4"]
    result = run_cli("predict", *names, "--run", "run", "--weights", random_encoder, "--json", cwd=trained)
    said = json.loads(result.stdout)
    assert result.returncode == 1
    assert [bool(p["label"]) for p in said] == [False, True, False, False]
    assert "no face in 8 of 8 frames" in said[0]["failure"]
    assert "no such file" in said[3]["failure"]
