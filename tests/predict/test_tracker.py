"""Multi-face tracking: one track per face, with the features that stage one would give it."""

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.fingerprint import ExtractionSettings
from ceflpipe.stages.extract.detection import Detections
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import MAX_GAP
from ceflpipe.stages.predict.tracker import MIN_HITS, track_faces

SETTINGS = ExtractionSettings("video", "scripted", "", 640, 0.5, "landmarks", 32, "none", "", "unit", "fp32", width=512)
POINTS = np.float32([[4, 6], [12, 6], [8, 10], [5, 14], [11, 14]])


class ScriptedDetector:
    """A detector that returns scripted faces: for each frame a list of upper left corners of 20 x 20 boxes."""

    name, sha256 = "scripted", ""

    def __init__(self, script):
        self._script = iter(script)

    def __call__(self, image):
        corners = np.float32(next(self._script)).reshape(-1, 2)
        boxes = np.concatenate([corners, corners + 20], axis=1)
        return Detections(boxes, corners[:, None] + POINTS, np.ones(len(corners), np.float32))


class BrightnessEncoder:
    """An encoder whose first feature is the crop's mean."""

    batch_size = 8

    def encode_async(self, crops):
        features = np.zeros((len(crops), 512), np.float16)
        features[:, 0] = crops.reshape(len(crops), -1).mean(axis=1)
        return lambda: features


@pytest.fixture
def gray_video(tmp_path):
    def write(frames):
        return write_video(tmp_path / "gray.mp4", [np.full((64, 128, 3), 100, np.uint8)] * frames)

    return write


def track(path, script):
    return list(track_faces(VideoJob(str(path), path), ScriptedDetector(script), BrightnessEncoder(), SETTINGS))


def test_two_faces_that_pass_each_other_keep_their_tracks(gray_video):
    script = [[(10 + 2 * i, 5), (90 - 2 * i, 35)] for i in range(40)]
    tracks = track(gray_video(40), script)
    assert [first for first, *_ in tracks] == [0, 0]
    left, right = sorted((video for _, video, *_ in tracks), key=lambda video: video.box[0, 0])
    np.testing.assert_allclose(left.box[:, 0], [10 + 2 * i for i in range(40)])
    np.testing.assert_allclose(right.box[:, 0], [90 - 2 * i for i in range(40)])
    assert len(left.features) == 40
    assert (left.frame_status == FrameStatus.DETECTED).all()


def test_a_track_begins_and_ends_with_its_face(gray_video):
    script = [[(10, 10)] if i < 30 else [(90, 10)] if i >= 50 else [] for i in range(80)]
    tracks = track(gray_video(80), script)
    assert [(first, len(video.features)) for first, video, *_ in tracks] == [(0, 30), (50, 30)]


def test_a_short_gap_is_interpolated_and_a_long_one_ends_the_track(gray_video):
    def script(gap):
        return [[] if 30 <= i < 30 + gap else [(10, 10)] for i in range(100)]

    (result,) = track(gray_video(100), script(MAX_GAP))
    assert len(result[1].features) == 100
    assert (result[1].frame_status == FrameStatus.INTERPOLATED).sum() == MAX_GAP
    tracks = track(gray_video(100), script(MAX_GAP + 1))
    assert [(first, len(video.features)) for first, video, *_ in tracks] == [
        (0, 30),
        (30 + MAX_GAP + 1, 100 - 30 - MAX_GAP - 1),
    ]


def test_short_tracks_are_discarded(gray_video):
    script = [
        [(10, 10), *([(90, 10)] if 5 <= i < 5 + MIN_HITS - 1 else []), *([(60, 40)] if i % 3 == 0 else [])]
        for i in range(40)
    ]
    tracks = track(gray_video(40), script)
    assert sorted((first, float(video.box[0, 0])) for first, video, *_ in tracks)[0] == (0, 10.0)
    assert not any(video.box[0, 0] == 90 for _, video, *_ in tracks)
    assert track(gray_video(20), [[]] * 20) == []


def test_the_track_of_a_single_face_has_the_features_of_stage_one(random_encoder, photographs, tmp_path):
    path = write_video(tmp_path / "one.mp4", panning(photographs["astronaut"], 40, (320, 320), (60, 0), (140, 30)))
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    detector, encoder, settings = build_detector(config), build_encoder(config), resolve_settings(config)
    (alone,) = extract_videos([VideoJob("one", path)], detector, encoder, settings)
    ((first, tracked, *_),) = track_faces(VideoJob("one", path), detector, encoder, settings)
    assert first == 0
    np.testing.assert_array_equal(tracked.frame_status, alone.frame_status)
    # all faces are detected in whole frames, the main face mostly in a region: see tests/extract/test_tracking.py
    eyes = np.linalg.norm(alone.landmarks[:, 0] - alone.landmarks[:, 1], axis=1)
    assert (np.linalg.norm(tracked.landmarks - alone.landmarks, axis=2).mean(axis=1) / eyes).mean() < 0.015
    lengths = np.linalg.norm(tracked.features, axis=1) * np.linalg.norm(alone.features, axis=1)
    assert ((tracked.features * alone.features).sum(axis=1) / lengths).min() > 0.98


def test_each_of_six_faces_has_one_track(random_encoder, photographs, tmp_path):
    path = write_video(tmp_path / "six.mp4", [photographs["six"]] * (MIN_HITS + 1))
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    tracks = list(
        track_faces(VideoJob("six", path), build_detector(config), build_encoder(config), resolve_settings(config))
    )
    assert len(tracks) == 6
    centers = np.array([video.box.mean(axis=0).reshape(2, 2).mean(axis=0) for _, video, *_ in tracks])
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + np.eye(6) * 1e3
    assert distances.min() > 60
    assert tracks[0][1].id == "six"


def test_a_scene_cut_ends_all_tracks(photographs, tmp_path):
    """The faces are scripted, in the same places before and after the cut."""
    six = photographs["six"]
    scenes = [panning(six, 20, (320, 240), (x, 150), (x + 10, 150)) for x in (0, 700)]
    path = write_video(tmp_path / "cut.mp4", [frame for scene in scenes for frame in scene])
    tracks = track(path, [[(100, 60), (200, 60)] if i not in (18, 19, 20, 21) else [] for i in range(40)])
    # no track has frames of both scenes, nor frames before or after its face
    assert sorted((first, len(video.features)) for first, video, *_ in tracks) == [(0, 18), (0, 18), (22, 18), (22, 18)]
    assert all((video.frame_status == FrameStatus.DETECTED).all() for _, video, *_ in tracks)


def crossing(count):
    """Return the faces of two that cross, the second hidden by the first in the middle for more than MAX_GAP frames."""
    pairs = [((10 + 1.5 * i, 12), (100 - 1.5 * i, 14)) for i in range(count)]
    return [[first] if abs(first[0] - second[0]) < 24 else [first, second] for first, second in pairs]


def test_a_hidden_face_keeps_its_track_and_a_doubt_is_noted(gray_video):
    tracks = track(gray_video(60), crossing(60))
    assert [(first, len(video.features)) for first, video, *_ in tracks] == [(0, 60), (0, 60)]
    for (_, video, *_), slope in zip(tracks, (1.5, -1.5), strict=True):
        detected = video.frame_status == FrameStatus.DETECTED
        expected = (10 if slope > 0 else 100) + slope * np.arange(60)
        np.testing.assert_allclose(video.box[detected, 0], expected[detected])
    hidden = tracks[1][1]
    assert (hidden.frame_status == FrameStatus.MISSING).sum() > MAX_GAP
    assert np.isnan(hidden.box[hidden.frame_status == FrameStatus.MISSING]).all()
    assert "may be another face from 1." in hidden.note  # all is gray, so colors cannot tell


def test_colors_distinguish_faces_that_overlapped(tmp_path):
    script, frames = crossing(60), []
    for faces in script:
        frame = np.full((64, 128, 3), 100, np.uint8)
        for (x, y), color in zip(faces, ((40, 40, 220), (220, 40, 40)), strict=False):
            frame[round(y) : round(y) + 20, round(x) : round(x) + 20] = color
        frames.append(frame)
    tracks = track(write_video(tmp_path / "colors.avi", frames, codec="MJPG"), script)
    assert [(first, len(video.features), video.note) for first, video, *_ in tracks] == [(0, 60, ""), (0, 60, "")]


def test_colors_distinguish_faces_that_meet_and_turn_back(tmp_path):
    """By their motion they would have passed each other."""
    left = [5, 12, 19, 26, 33, *[40] * 6, *range(38, 8, -2)]
    right = [92 - x for x in left]
    frames = []
    for positions in zip(left, right, strict=True):
        frame = np.full((64, 128, 3), 100, np.uint8)
        for x, color in zip(positions, ((40, 40, 220), (220, 40, 40)), strict=True):
            frame[20:40, x : x + 20] = color
        frames.append(frame)
    path = write_video(tmp_path / "colors.avi", frames, codec="MJPG")
    tracks = track(path, [[(a, 20), (b, 20)] for a, b in zip(left, right, strict=True)])
    assert [video.box[:, 0].tolist() for _, video, *_ in tracks] == [left, right]


def test_two_real_faces_that_cross_keep_their_tracks(random_encoder, photographs, tmp_path):
    faces = RetinaFace()(photographs["six"])
    boxes = faces.boxes[np.argsort(faces.boxes[:, 0])][[1, 4]]
    heads = [photographs["six"][int(y1) - 50 : int(y2) + 40, int(x1) - 30 : int(x2) + 30] for x1, y1, x2, y2 in boxes]
    frames = []
    for i in range(80):
        frame = np.full((260, 640, 3), (120, 130, 110), np.uint8)
        for head, x in zip(heads, (10 + 5 * i, 420 - 5 * i), strict=True):
            frame[10 : 10 + head.shape[0], max(0, x) : x + head.shape[1]] = head[:, max(0, -x) : 640 - x]
        frames.append(frame)
    path = write_video(tmp_path / "cross.mp4", frames)
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    tracks = list(
        track_faces(VideoJob("cross", path), build_detector(config), build_encoder(config), resolve_settings(config))
    )
    assert [first for first, *_ in tracks] == [0, 0]
    for _, video, *_ in tracks:
        detected = np.flatnonzero(video.frame_status == FrameStatus.DETECTED)
        assert len(detected) > 50
        centers = video.box[detected][:, [0, 2]].mean(axis=1)
        speed = 5 if centers[-1] > centers[0] else -5
        offsets = centers - speed * detected  # of the face in its head, if it is the same head all the time
        assert np.abs(offsets - np.median(offsets)).max() < 40
