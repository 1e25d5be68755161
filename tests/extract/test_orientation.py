"""Looking at videos: the view in which a face stands upright and looks at the camera is found, whatever the rule says."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.fake_videos import film, lying, performance, side_by_side
from helpers.video import panning

from ceflpipe.pipeline.config import ExtractConfig
from ceflpipe.stages.extract.orientation import build_probe_detector, estimate_orientations, frontal_upright_score
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.manifest.scan import ViewTransform

TURNS = (ViewTransform("90"), ViewTransform(), ViewTransform("270"))
LEFT, RIGHT = ViewTransform(region="0 0 160 160"), ViewTransform(region="160 0 160 160")


def faces(*points, scores=None):
    return SimpleNamespace(landmarks=np.array(points, np.float32), scores=np.array(scores or [1.0] * len(points)))


FRONT = np.array([[-1, 0], [1, 0], [0, 1], [-0.8, 2], [0.8, 2]])


def turned(points, degrees):
    angle = np.deg2rad(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def test_a_face_counts_by_how_upright_and_how_frontal_it_is():
    assert frontal_upright_score(faces(FRONT)) == pytest.approx(1)
    assert frontal_upright_score(faces(FRONT + 300, scores=[0.7])) == pytest.approx(0.7)
    for degrees in (-60, -30, 30, 60):
        assert frontal_upright_score(faces(turned(FRONT, degrees))) == pytest.approx(
            np.cos(np.deg2rad(degrees)), abs=1e-4
        )
    for degrees in (90, 180, 270):
        assert frontal_upright_score(faces(turned(FRONT, degrees))) < 1e-4
    aside = FRONT + np.array([[0, 0], [0, 0], [0.5, 0], [0, 0], [0, 0]])
    assert frontal_upright_score(faces(aside)) == pytest.approx(0.5)
    assert frontal_upright_score(faces(np.add(aside, [[0, 0], [0, 0], [0.6, 0], [0, 0], [0, 0]]))) == 0
    assert frontal_upright_score(faces(aside, FRONT)) == pytest.approx(1)
    nothing = SimpleNamespace(landmarks=np.zeros((0, 5, 2)), scores=np.zeros(0))
    assert frontal_upright_score(nothing) == 0


def looked_at(root, views):
    rows = tuple(VideoEntry(name, name, "fear") for name in views)
    return {
        one.id: one
        for one in estimate_orientations(Manifest("x", root, rows, ()), views, build_probe_detector(ExtractConfig()))
    }


def test_lying_videos_are_found_out(tmp_path, photographs):
    real = tuple(panning(photographs["astronaut"], 4, (320, 320), (60, 0), (70, 5)))
    film(tmp_path / "lying.avi", lying(performance(1, "fear")))
    film(tmp_path / "upright.avi", performance(2, "fear"))
    film(tmp_path / "other.avi", tuple(np.ascontiguousarray(np.rot90(frame, -1)) for frame in performance(3, "fear")))
    film(tmp_path / "real.avi", lying(real))
    film(tmp_path / "wall.avi", tuple(np.full((64, 64, 3), 90, np.uint8) for _ in range(4)))
    (tmp_path / "broken.avi").write_bytes(b"no video")
    views = dict.fromkeys(
        ("lying.avi", "upright.avi", "other.avi", "real.avi", "wall.avi", "broken.avi", "gone.avi"), TURNS
    )
    settled = looked_at(tmp_path, views)
    best = {name: one.best.rotation for name, one in settled.items() if not one.error}
    assert best == {"lying.avi": "90", "upright.avi": "", "other.avi": "270", "real.avi": "90"}
    assert [name for name, one in settled.items() if one.changed] == ["upright.avi", "other.avi"]
    trouble = {name: one.error for name, one in settled.items() if one.error}
    assert trouble["wall.avi"] == "no view shows a face"
    assert "no such file" in trouble["gone.avi"]
    assert trouble["broken.avi"]
    assert settled["wall.avi"].best == ViewTransform("90")


def test_the_frontal_half_is_found(tmp_path):
    front, aside = performance(1, "happiness"), performance(1, "happiness", yaw=70.0)
    film(tmp_path / "l.avi", side_by_side(front, aside))
    film(tmp_path / "r.avi", side_by_side(aside, front))
    settled = looked_at(tmp_path, {"l.avi": (LEFT, RIGHT), "r.avi": (LEFT, RIGHT)})
    assert {name: one.best for name, one in settled.items()} == {"l.avi": LEFT, "r.avi": RIGHT}
