"""Everyone in a video is followed by their own face, with the features stage one would give them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.fingerprint import ExtractionSettings
from ceflpipe.stages.extract.detection import Detections
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_config
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.tracking import MAX_GAP
from ceflpipe.stages.predict.tracker import MIN_HITS, track_faces

SETTINGS = ExtractionSettings("video", "scripted", "", 640, 0.5, "landmarks", 32, "none", "", "unit", "fp32")
POINTS = np.float32([[4, 6], [12, 6], [8, 10], [5, 14], [11, 14]])


class Scripted:
    """A detector that says what the script has for each frame: lists of left upper corners of 20 x 20 faces."""

    name, sha256 = "scripted", ""

    def __init__(self, script):
        self._script = iter(script)

    def __call__(self, picture):
        corners = np.float32(next(self._script)).reshape(-1, 2)
        boxes = np.concatenate([corners, corners + 20], axis=1)
        return Detections(boxes, corners[:, None] + POINTS, np.ones(len(corners), np.float32))


class Brightness:
    """An encoder whose first number is the crop's mean."""

    batch = 8

    def __call__(self, crops):
        features = np.zeros((len(crops), 512), np.float16)
        features[:, 0] = crops.reshape(len(crops), -1).mean(axis=1)
        return features


@pytest.fixture
def film(tmp_path):
    def make(frames):
        return write_video(tmp_path / "film.mp4", [np.full((64, 128, 3), 100, np.uint8)] * frames)

    return make


def follow(path, script):
    return list(track_faces(path, Scripted(script), Brightness(), SETTINGS))


def test_two_who_walk_past_each_other_in_rows_keep_their_own_tracks(film):
    script = [[(10 + 2 * i, 5), (90 - 2 * i, 35)] for i in range(40)]
    people = follow(film(40), script)
    assert [first for first, _ in people] == [0, 0]
    left, right = sorted((video for _, video in people), key=lambda video: video.box[0, 0])
    np.testing.assert_allclose(left.box[:, 0], [10 + 2 * i for i in range(40)])
    np.testing.assert_allclose(right.box[:, 0], [90 - 2 * i for i in range(40)])
    assert len(left.features) == 40
    assert (left.frame_status == FrameStatus.DETECTED).all()


def test_who_comes_later_begins_later_and_who_goes_ends(film):
    script = [[(10, 10)] if i < 30 else [(90, 10)] if i >= 50 else [] for i in range(80)]
    people = follow(film(80), script)
    assert [(first, len(video.features)) for first, video in people] == [(0, 30), (50, 30)]


def test_a_short_absence_is_bridged_and_a_long_one_makes_somebody_new(film):
    def script(gone):
        return [[] if 30 <= i < 30 + gone else [(10, 10)] for i in range(100)]

    (once,) = follow(film(100), script(MAX_GAP))
    assert len(once[1].features) == 100
    assert (once[1].frame_status == FrameStatus.INTERPOLATED).sum() == MAX_GAP
    twice = follow(film(100), script(MAX_GAP + 1))
    assert [(first, len(video.features)) for first, video in twice] == [
        (0, 30),
        (30 + MAX_GAP + 1, 100 - 30 - MAX_GAP - 1),
    ]


def test_passers_by_and_flickers_are_nobody(film):
    script = [
        [(10, 10), *([(90, 10)] if 5 <= i < 5 + MIN_HITS - 1 else []), *([(60, 40)] if i % 3 == 0 else [])]
        for i in range(40)
    ]
    people = follow(film(40), script)
    assert sorted((first, float(video.box[0, 0])) for first, video in people)[0] == (0, 10.0)
    assert not any(video.box[0, 0] == 90 for _, video in people)
    assert follow(film(20), [[]] * 20) == []


def test_one_person_alone_has_the_features_of_stage_one(random_encoder, photographs, tmp_path):
    path = write_video(tmp_path / "one.mp4", panning(photographs["astronaut"], 40, (320, 320), (60, 0), (140, 30)))
    wishes = ExtractConfig(encoder=random_encoder, crop_size=64)
    detector, encoder, settings = build_detector(wishes), build_encoder(wishes), resolve_config(wishes)
    (alone,) = extract_videos([VideoJob("one", path)], detector, encoder, settings)
    ((first, followed),) = track_faces(path, detector, encoder, settings)
    assert first == 0
    np.testing.assert_array_equal(followed.frame_status, alone.frame_status)
    # everyone is looked for in whole pictures, one person mostly in a region: see test_follow.py
    eyes = np.linalg.norm(alone.landmarks[:, 0] - alone.landmarks[:, 1], axis=1)
    assert (np.linalg.norm(followed.landmarks - alone.landmarks, axis=2).mean(axis=1) / eyes).mean() < 0.015
    lengths = np.linalg.norm(followed.features, axis=1) * np.linalg.norm(alone.features, axis=1)
    assert ((followed.features * alone.features).sum(axis=1) / lengths).min() > 0.98


def test_everyone_in_a_photograph_of_six_is_found_once(random_encoder, photographs, tmp_path):
    picture = photographs["six"]
    path = write_video(tmp_path / "six.mp4", [picture] * (MIN_HITS + 1))
    wishes = ExtractConfig(encoder=random_encoder, crop_size=64)
    people = list(track_faces(path, build_detector(wishes), build_encoder(wishes), resolve_config(wishes)))
    assert len(people) == 6
    centres = np.array([video.box.mean(axis=0).reshape(2, 2).mean(axis=0) for _, video in people])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + np.eye(6) * 1e3
    assert apart.min() > 60
    assert Path(people[0][1].id) == path
