"""Videos of real faces through both stages: predict computes exactly the features that stage one wrote."""

import json

import numpy as np
import pytest
import torch
from helpers.run_cli import run_cli
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.orientation import face_tilt
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.predict.predict import extract_config_of, predict_videos


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photographs, random_encoder):
    """Twelve videos of real faces after both stages: a run to predict with."""
    home = tmp_path_factory.mktemp("real")
    entries = []
    for i in range(12):
        image, begin = (photographs["astronaut"], (70 + 3 * i, 0)) if i % 2 else (photographs["six"], (60 * i, 20))
        end = (begin[0] + 30, begin[1] + 15)
        write_video(home / f"v{i}.mp4", panning(image, 20, (320, 320), begin, end))
        entries.append(VideoEntry(f"v{i}", f"v{i}.mp4", ("fear", "happiness")[i % 2], f"S{i % 6}"))
    manifest = Manifest("real", home, tuple(entries), ("fear", "happiness"))
    extract_features(manifest, ExtractConfig(encoder=random_encoder, crop_size=96), home / "real.h5")
    config = TrainConfig(
        head="cefl", num_clips=7, frames_per_clip=5, epochs=3, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    cross_validate(
        manifest,
        read_features(home / "real.h5"),
        config,
        CVConfig(fold_scheme="subject", folds=3, seed=1),
        home / "run",
    )
    return home


def test_the_face_is_detected_in_every_frame(trained):
    table = read_features(trained / "real.h5")
    for name in ("v1", "v3", "v5"):
        rows = table.rows(name)
        assert (table.frame_status[rows] == FrameStatus.DETECTED).all()
        steps = np.linalg.norm(np.diff(table.landmarks[rows][:, 2], axis=0), axis=1)
        assert steps.max() < 12  # one face that moves slowly: its nose never jumps


def test_features_of_predict_equal_those_of_stage_one(trained, random_encoder):
    table, run = read_features(trained / "real.h5"), read_run(trained / "run")
    config = extract_config_of(run, random_encoder, "cpu")
    for name in ("v0", "v1"):
        job = VideoJob(name, trained / f"{name}.mp4")
        (video,) = extract_videos([job], build_detector(config), build_encoder(config), resolve_settings(config))
        np.testing.assert_array_equal(video.features, table.features[table.rows(name)])


def test_a_prediction_is_the_mean_over_the_calibrated_folds(trained, random_encoder):
    from ceflpipe.stages.heads.clip_sampling import sample_clips_test
    from ceflpipe.stages.heads.layers import BatchedDropout

    run, table = read_run(trained / "run"), read_features(trained / "real.h5")
    ((result,),) = predict_videos(run, [trained / "v1.mp4"], extract_config_of(run, random_encoder, "cpu"))
    frames = torch.from_numpy(table.features[table.rows("v1")]).float()
    clips = frames[sample_clips_test(torch.tensor([20]), 7, 5)]
    with torch.no_grad():
        logits = run.head()(clips[None].expand(3, *clips.shape), BatchedDropout(None)).logits
    expected = torch.softmax(logits / result.temperature, -1).mean(0)[0]
    assert [result.probabilities[label] for label in run.labels] == pytest.approx(expected.tolist(), abs=1e-5)
    assert result.temperature == pytest.approx(run.temperature)
    assert result.located_time is not None
    assert 0 <= result.located_time[0] < result.located_time[1] <= 20 / 25 + 1e-9
    assert len(result.intensity) == 7


@pytest.mark.slow
def test_videos_without_a_prediction_have_a_reason_and_do_not_stop_the_others(trained, random_encoder):
    write_video(trained / "no_face.mp4", [np.full((96, 96, 3), 99, np.uint8)] * 8)
    (trained / "broken.mp4").write_bytes(b"x" * 100)
    names = ["no_face.mp4", "v1.mp4", "broken.mp4", "gone.mp4"]
    result = run_cli("predict", *names, "--run", "run", "--encoder", random_encoder, "--json", cwd=trained)
    predictions = json.loads(result.stdout)
    assert result.returncode == 1
    assert [bool(p["label"]) for p in predictions] == [False, True, False, False]
    assert "no face in 8 of 8 frames" in predictions[0]["failure"]
    assert "no such file" in predictions[3]["failure"]


@pytest.mark.slow
def test_a_sideways_video_is_noted_and_turned_with_rotation_auto(trained, random_encoder, photographs):
    frames = panning(photographs["astronaut"], 20, (320, 320), (70, 0), (100, 15))
    write_video(trained / "upright.avi", frames, codec="MJPG")
    write_video(trained / "sideways.avi", [np.ascontiguousarray(np.rot90(frame)) for frame in frames], codec="MJPG")
    options = ("--run", "run", "--encoder", random_encoder, "--json")
    tilted, *_ = json.loads(run_cli("predict", "sideways.avi", *options, cwd=trained, check=True).stdout)
    assert "set rotation 90 in the manifest, or use --rotation auto" in tilted["note"]
    names = ["upright.avi", "sideways.avi"]
    turned = json.loads(
        run_cli(
            "predict", *names, *options, "--rotation", "auto", "--out", "out", "--overlay", cwd=trained, check=True
        ).stdout
    )
    assert [(p["note"], p["rotation"]) for p in turned] == [("", ""), ("", "90")]
    for label, probability in turned[0]["probabilities"].items():
        assert turned[1]["probabilities"][label] == pytest.approx(probability, abs=0.02)
    overlay = next(open_video(trained / "out" / "sideways.cefl.mp4").frames()).image
    detector = build_detector(extract_config_of(read_run(trained / "run"), random_encoder, "cpu"))
    assert abs(face_tilt(detector(overlay).landmarks[0])) < 30  # upright as well
