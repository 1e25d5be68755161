"""Orientation: the view in which the face is upright and frontal is estimated, whatever the default is."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.fake_videos import performance, rotate_sideways, side_by_side, write_clip
from helpers.run_cli import run_cli_in_process
from helpers.video import encode_video, panning, write_video

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.align import ARCFACE_TEMPLATE
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.orientation import (
    build_probe_detector,
    describe_tilt,
    estimate_orientations,
    estimate_rotation,
    face_tilt,
    frontal_upright_score,
    may_be_turned,
)
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.manifest.scan import ViewTransform
from ceflpipe.stages.predict.tracker import track_faces

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


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 30, 45, 90, 135, 180])
def test_the_tilt_is_the_angle_of_a_face_that_is_turned_clockwise(degrees):
    turned = rotated(ARCFACE_TEMPLATE, degrees) * 1.7 + 40
    assert (face_tilt(turned) - degrees + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)


def test_the_note_names_the_rotation_that_makes_faces_upright():
    def note(degrees, rotation="", others=()):
        return describe_tilt([rotated(FRONTAL, d) for d in (degrees, degrees, degrees, *others)], rotation)

    assert note(0) == note(40) == note(-40) == describe_tilt([]) == ""
    assert note(80) == "faces are tilted by about 90 degrees; set rotation 270 in the manifest, or use --rotation auto"
    assert "set rotation 90 " in note(-70)
    assert note(170).startswith("faces are upside down; set rotation 180 ")
    assert "set rotation 0 " in note(90, rotation="90")
    assert note(90, others=(0, 0)) != ""
    assert note(90, others=(0, 0, 0, 0)) == ""


@pytest.fixture(scope="module")
def turned_videos(tmp_path_factory, photographs):
    """Videos of a real face by the rotation that makes it upright."""
    root = tmp_path_factory.mktemp("turned")
    frames = panning(photographs["astronaut"], 26, (320, 320), (60, 0), (90, 15))
    for rotation in (0, 90, 180, 270):
        turned = [np.ascontiguousarray(np.rot90(frame, rotation // 90)) for frame in frames]
        write_video(root / f"{rotation}.avi", turned, codec="MJPG")
    return root


def extract(path, random_encoder, rotation=""):
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    job = VideoJob("v", path, rotation)
    (video,) = extract_videos([job], build_detector(config), build_encoder(config), resolve_settings(config))
    return video


def test_a_sideways_face_is_noted_with_the_rotation_that_cures_it(turned_videos, random_encoder):
    assert extract(turned_videos / "0.avi", random_encoder).note == ""
    for rotation in ("90", "180", "270"):
        path = turned_videos / f"{rotation}.avi"
        tilted = extract(path, random_encoder)
        assert (tilted.status, tilted.rotation) == ("ok", "")
        assert f"set rotation {rotation} in the manifest" in tilted.note
        cured = extract(path, random_encoder, rotation)
        assert (cured.note, cured.rotation) == ("", rotation)
        assert (cured.frame_status == FrameStatus.DETECTED).all()


def test_a_turned_face_that_is_not_detected_is_noted_with_the_rotation_that_cures_it(
    tmp_path, photographs, random_encoder
):
    """Small faces are found upright only; turned, most are missed, or other parts are taken for eyes and mouth."""
    detector = build_detector(ExtractConfig())
    for name in ("six", "astronaut"):
        image = photographs[name]
        box = detector(image).boxes[0]
        x1, y1, x2, y2 = (box + np.array([-1, -0.5, 1, 0.5]) * (box[2] - box[0])).clip(0).astype(int)
        scale = 120 / max(x2 - x1, y2 - y1)
        face = cv2.resize(image[y1:y2, x1:x2], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frame = np.full((240, 320, 3), 110, np.uint8)
        frame[60 : 60 + face.shape[0], 100 : 100 + face.shape[1]] = face
        for rotation in ("", "90", "180", "270"):
            turned = np.ascontiguousarray(np.rot90(frame, int(rotation or 0) // 90))
            path = encode_video(tmp_path / f"{name}{rotation}.mkv", [turned] * 12, codec="ffv1", pix_fmt="bgr0")
            is_detected = len(detector(turned)) > 0
            video = extract(path, random_encoder)
            assert (video.status == "ok") == is_detected
            cure = f"set rotation {rotation} in the manifest, or use --rotation auto"
            assert (cure in video.note) if rotation else video.note == "", (name, rotation)
            assert extract(path, random_encoder, rotation).note == ""
        assert "set rotation 270 in" in extract(path, random_encoder, "90").note
    empty = encode_video(tmp_path / "empty.mkv", [frame * 0 + 110] * 12, codec="ffv1", pix_fmt="bgr0")
    assert extract(empty, random_encoder, "90").note == "no face in 12 of 12 frames"


def test_faces_that_may_be_turned_are_looked_at_again():
    upright = [ARCFACE_TEMPLATE + offset for offset in range(20)]
    clear = [0.99] * 20
    assert not may_be_turned(upright, clear, 20)
    assert not may_be_turned(upright[:11], clear[:11], 20)
    assert not may_be_turned([], [], 0)
    assert may_be_turned(upright[:9], clear[:9], 20)
    assert may_be_turned(upright, [0.8] * 10 + [0.99] * 10, 20)
    assert not may_be_turned(upright, [0.8] * 9 + [0.99] * 11, 20)
    assert may_be_turned([rotated(points, 40) for points in upright], clear, 20)
    assert not may_be_turned([rotated(points, 20) for points in upright], clear, 20)
    assert may_be_turned([points[[0, 3, 2, 1, 4]] for points in upright], clear, 20)


def test_rotation_auto_turns_each_video_upright(turned_videos, random_encoder, tmp_path):
    detector = build_detector(ExtractConfig())
    expected = {"0.avi": "", "90.avi": "90", "180.avi": "180", "270.avi": "270"}
    assert {name: estimate_rotation(turned_videos / name, "", detector) for name in expected} == expected
    manifest = Manifest("turned", turned_videos, tuple(VideoEntry(n, n, "fear") for n in expected), ("fear",))
    config = ExtractConfig(encoder=random_encoder, crop_size=64, rotation="auto")
    result = extract_features(manifest, config, tmp_path / "turned.h5")
    assert (result.failed, result.notes) == ([], [])
    table = read_features(tmp_path / "turned.h5")
    assert dict(zip(table.videos.id, table.videos.rotation, strict=True)) == expected
    for name, rotation in expected.items():
        by_hand = extract(turned_videos / name, random_encoder, rotation)
        np.testing.assert_array_equal(table[name], by_hand.features)
    assert extract_features(manifest, config, tmp_path / "turned.h5").num_extracted == 0
    # what the manifest says is kept
    fixed = Manifest("turned", turned_videos, (VideoEntry("180.avi", "180.avi", "fear", rotation="90"),), ("fear",))
    extract_features(fixed, config, tmp_path / "fixed.h5")
    assert read_features(tmp_path / "fixed.h5").videos.rotation == ["90"]


def test_rotation_auto_of_all_faces(turned_videos, random_encoder):
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    parts = build_detector(config), build_encoder(config), resolve_settings(config)
    ((_, tilted, *_),) = track_faces(VideoJob("v", turned_videos / "270.avi"), *parts)
    assert "set rotation 270" in tilted.note
    ((_, upright, *_),) = track_faces(VideoJob("v", turned_videos / "270.avi", "auto"), *parts)
    assert (upright.note, upright.rotation, len(upright.features)) == ("", "270", 26)


def test_no_face_and_a_late_face_with_rotation_auto(tmp_path, photographs):
    gray = [np.full((200, 200, 3), 90, np.uint8)] * 30
    face = cv2.rotate(cv2.resize(photographs["astronaut"][0:300, 80:380], (200, 200)), cv2.ROTATE_180)
    detector = build_detector(ExtractConfig())
    assert estimate_rotation(write_video(tmp_path / "none.avi", gray, codec="MJPG"), "", detector) == ""
    late = write_video(tmp_path / "late.avi", [*gray, *[face] * 30], codec="MJPG")
    assert estimate_rotation(late, "", detector) == "180"
    wide = write_video(tmp_path / "wide.avi", [np.hstack([frame, frame // 3]) for frame in [face] * 12], codec="MJPG")
    assert estimate_rotation(wide, "200 0 200 200", detector) == "180"


def test_check_looks_at_the_videos_of_every_list(turned_videos, tmp_path):
    rows = [f"{turned_videos / name}.avi,fear,S{name}" for name in ("0", "90", "180", "270")]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,subject", *rows]) + "\n")
    result = run_cli_in_process("check", "--manifest", "mine.csv", "--probe", "--allow-external-paths", cwd=tmp_path)
    for rotation in ("90", "180", "270"):
        assert (
            f"{rotation}: in the manifest as recorded, detected orientation: rotated by {rotation} degrees"
            in result.stdout
        )
    assert result.stdout.count("detected orientation") == 3
    assert "ceflpipe extract --rotation auto" in result.stdout


def test_extract_and_inspect_print_the_notes(turned_videos, random_encoder, tmp_path):
    rows = [f"{turned_videos / name}.avi,fear,{name}" for name in ("0", "90")]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,id", *rows]) + "\n")
    options = ("--manifest", "mine.csv", "--allow-external-paths", "--out", "mine.h5", "--workers", "1")
    note = "90: faces are tilted by about 90 degrees; set rotation 90 in the manifest, or use --rotation auto"
    extracted = run_cli_in_process("extract", *options, "--encoder", random_encoder, cwd=tmp_path, check=True)
    inspected = run_cli_in_process("inspect", "mine.h5", cwd=tmp_path, check=True)
    for output in (extracted.stdout, inspected.stdout):
        assert note in output
        assert "\n0: " not in output
    turned = run_cli_in_process(
        "extract", *options, "--encoder", random_encoder, "--rotation", "auto", "--redo", cwd=tmp_path, check=True
    )
    assert "tilted" not in turned.stdout
    assert "tilted" not in run_cli_in_process("inspect", "mine.h5", cwd=tmp_path, check=True).stdout
