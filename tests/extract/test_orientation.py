"""Orientation: the view in which the face is upright and frontal is estimated, whatever the default is."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.fake_videos import performance, rotate_sideways, side_by_side, write_clip
from helpers.video import panning

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.orientation import build_probe_detector, estimate_orientations, frontal_upright_score
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.manifest.scan import ViewTransform

ROTATIONS = (ViewTransform("90"), ViewTransform(), ViewTransform("270"))
LEFT, RIGHT = ViewTransform(region="0 0 160 160"), ViewTransform(region="160 0 160 160")


FRONTAL = np.array([[-1, 0], [1, 0], [0, 1], [-0.8, 2], [0.8, 2]])


def detections(*landmarks, scores=None):
    return SimpleNamespace(
        landmarks=np.array(landmarks, np.float32).reshape(-1, 5, 2), scores=np.array(scores or [1.0] * len(landmarks))
    )


def rotated(landmarks, degrees):
    angle = np.deg2rad(degrees)
    return landmarks @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def with_nose_at(landmarks, x):
    """Return the landmarks with the nose moved by ``x`` times the distance from the center to an eye."""
    return landmarks + np.array([[0, 0], [0, 0], [x, 0], [0, 0], [0, 0]])


def test_score_decreases_with_rotation_and_profile():
    assert frontal_upright_score(detections(FRONTAL)) == pytest.approx(1)
    assert frontal_upright_score(detections(FRONTAL + 300, scores=[0.7])) == pytest.approx(0.7)
    for degrees in (-60, -30, 30, 60):
        expected = np.cos(np.deg2rad(degrees))
        assert frontal_upright_score(detections(rotated(FRONTAL, degrees))) == pytest.approx(expected, abs=1e-4)
    for degrees in (90, 180, 270):
        assert frontal_upright_score(detections(rotated(FRONTAL, degrees))) < 1e-4
    profile = with_nose_at(FRONTAL, 0.5)
    assert frontal_upright_score(detections(profile)) == pytest.approx(0.5)
    assert frontal_upright_score(detections(with_nose_at(FRONTAL, 1.1))) == 0
    assert frontal_upright_score(detections(profile, FRONTAL)) == pytest.approx(1)
    assert frontal_upright_score(detections()) == 0


def estimate(root, views):
    manifest = Manifest("x", root, tuple(VideoEntry(name, name, "fear") for name in views), ())
    results = estimate_orientations(manifest, views, build_probe_detector(ExtractConfig()))
    return {result.id: result for result in results}


def test_rotation_is_estimated(tmp_path, photographs):
    photograph = tuple(panning(photographs["astronaut"], 4, (320, 320), (60, 0), (70, 5)))
    counterclockwise = tuple(np.ascontiguousarray(np.rot90(frame, -1)) for frame in performance(3, "fear"))
    write_clip(tmp_path / "sideways.avi", rotate_sideways(performance(1, "fear")))
    write_clip(tmp_path / "upright.avi", performance(2, "fear"))
    write_clip(tmp_path / "opposite.avi", counterclockwise)
    write_clip(tmp_path / "photograph.avi", rotate_sideways(photograph))
    write_clip(tmp_path / "faceless.avi", tuple(np.full((64, 64, 3), 90, np.uint8) for _ in range(4)))
    (tmp_path / "broken.avi").write_bytes(b"no video")
    names = ("sideways.avi", "upright.avi", "opposite.avi", "photograph.avi", "faceless.avi", "broken.avi", "gone.avi")
    results = estimate(tmp_path, dict.fromkeys(names, ROTATIONS))
    rotations = {name: result.best.rotation for name, result in results.items() if not result.error}
    assert rotations == {"sideways.avi": "90", "upright.avi": "", "opposite.avi": "270", "photograph.avi": "90"}
    assert [name for name, result in results.items() if result.changed] == ["upright.avi", "opposite.avi"]
    errors = {name: result.error for name, result in results.items() if result.error}
    assert errors["faceless.avi"] == "no view shows a face"
    assert "no such file" in errors["gone.avi"]
    assert errors["broken.avi"]
    assert results["faceless.avi"].best == ViewTransform("90")


def test_the_frontal_half_of_a_dual_view_is_estimated(tmp_path):
    frontal, profile = performance(1, "happiness"), performance(1, "happiness", yaw=70.0)
    write_clip(tmp_path / "l.avi", side_by_side(frontal, profile))
    write_clip(tmp_path / "r.avi", side_by_side(profile, frontal))
    results = estimate(tmp_path, {"l.avi": (LEFT, RIGHT), "r.avi": (LEFT, RIGHT)})
    assert {name: result.best for name, result in results.items()} == {"l.avi": LEFT, "r.avi": RIGHT}


def test_face_crops_have_no_orientation():
    with pytest.raises(CeflError, match=r"set extract\.input: video"):
        build_probe_detector(ExtractConfig(input="crops"))
