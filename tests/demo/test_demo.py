"""The demo set: determinism, true landmarks, timing of the apex, faces that the detector finds."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ceflpipe.stages.demo import make as making
from ceflpipe.stages.demo.actors import cast
from ceflpipe.stages.demo.make import make, script
from ceflpipe.stages.demo.motion import perform
from ceflpipe.stages.demo.render import View, render
from ceflpipe.stages.demo.stills import ENCODER_CAST, stills
from ceflpipe.stages.demo.units import LABELS, PROTOTYPES, UNITS, foreign, mix, pose

FRAMES = (24, 30)


def patch(image: np.ndarray, point: np.ndarray, half: int) -> np.ndarray:
    x, y = np.round(point).astype(int)
    return image[y - half : y + half + 1, x - half : x + half + 1].astype(float)


def test_an_actor_is_the_same_every_time_and_unlike_the_others():
    assert cast(7) == cast(7)
    company = [cast(number) for number in range(1, 25)]
    assert len({dataclasses.replace(actor, number=0) for actor in company}) == 24
    assert len({actor.hair_style for actor in company}) >= 10
    brightness = [sum(actor.skin) for actor in company]
    assert max(brightness) > 2.5 * min(brightness)


def test_the_same_arguments_draw_the_same_picture():
    first, points = render(cast(3), pose("fear", 0.8), View(yaw=8, light=20, grain=3))
    render(cast(4), {}, View())
    second, again = render(cast(3), pose("fear", 0.8), View(yaw=8, light=20, grain=3))
    assert first.dtype == np.uint8
    assert first.shape == (256, 256, 3)
    assert points.shape == (5, 2)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(points, again)


def test_different_numbers_are_different_faces():
    view = View(noise=0)
    faces = [render(cast(number), {}, view)[0][60:220, 60:200].astype(float) for number in range(1, 7)]
    for index, face in enumerate(faces):
        for other in faces[:index]:
            assert np.abs(face - other).mean() > 6


@pytest.mark.parametrize("size", [96, 256, 400])
def test_the_picture_has_the_size_asked_for(size):
    image, points = render(cast(1), {}, View(), size)
    assert image.shape == (size, size, 3)
    share = points / size
    assert ((share > 0.2) & (share < 0.8)).all()
    reference = render(cast(1), {}, View(), 256)[1] / 256
    np.testing.assert_allclose(share, reference, atol=0.004)


@pytest.mark.parametrize("number", [1, 2, 5, 8, 13])
def test_eye_landmarks_lie_on_dark_irises(number):
    image, points = render(cast(number), {}, View(noise=0, light=0))
    across = np.linalg.norm(points[1] - points[0])
    for eye in points[:2]:
        pupil = patch(image, eye + np.float32([0, 0.02 * across]), 1).mean()
        whites = [patch(image, eye + np.float32([side * 0.165 * across, 0.03 * across]), 1).mean() for side in (-1, 1)]
        assert pupil < 0.6 * min(whites)


def test_landmarks_follow_the_head():
    still = render(cast(2), {}, View())[1]
    right = render(cast(2), {}, View(yaw=15))[1]
    # A nose stands out: it moves further than the point between the eyes.
    assert right[2, 0] - still[2, 0] > right[:2, 0].mean() - still[:2, 0].mean() + 2
    rolled = render(cast(2), {}, View(roll=10))[1]
    along = rolled[1] - rolled[0]
    assert np.degrees(np.arctan2(along[1], along[0])) == pytest.approx(10, abs=0.5)


def test_a_smile_raises_and_widens_the_mouth_and_shows_teeth():
    actor = cast(13)
    rest, still = render(actor, {}, View(noise=0))
    smile, points = render(actor, pose("happiness", 1.0), View(noise=0))
    assert points[4, 0] - points[3, 0] > 1.15 * (still[4, 0] - still[3, 0])
    assert points[3, 1] < still[3, 1] - 2
    middle = points[3:].mean(0)
    below = middle + np.float32([0, 0.12 * (points[1, 0] - points[0, 0])])
    assert patch(smile, below, 5).max() > 200
    assert np.abs(smile.astype(int) - rest).max() > 60


def test_a_dropped_jaw_opens_a_dark_mouth():
    image, points = render(cast(13), {26: 1.0}, View(noise=0))
    column = image[int(points[2, 1]) : int(points[2, 1]) + 70, int(points[2, 0])].astype(float).mean(-1)
    assert column.min() < 40


def test_lids_close():
    view = View(noise=0, light=0)
    opened, points = render(cast(5), {}, view)
    closed, _ = render(cast(5), {}, dataclasses.replace(view, blink=1.0))
    for eye in points[:2]:
        above = eye - np.float32([0, 2])
        assert np.ptp(patch(closed, above, 2)) < 0.6 * np.ptp(patch(opened, above, 2))


def test_every_unit_changes_the_face():
    base = render(cast(9), {}, View(noise=0))[0].astype(int)
    for unit in UNITS:
        moved = render(cast(9), {unit: 1.0}, View(noise=0))[0].astype(int)
        assert np.abs(moved - base).max() > 20, unit


def test_prototypes_use_known_units_and_strengths_stay_bounded():
    assert set(PROTOTYPES) == set(LABELS)
    for label in LABELS:
        assert set(PROTOTYPES[label]) <= set(UNITS)
        assert not set(foreign(label)) & set(PROTOTYPES[label])
        assert pose(label, 0.0) == dict.fromkeys(PROTOTYPES[label], 0.0)
    assert mix({1: 0.9}, {1: 0.9, 2: 0.1}) == {1: 1.15, 2: 0.1}


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("frames", [60, 83, 100])
def test_performances_peak_once_and_briefly(label, frames):
    for seed in range(20):
        performance = perform(label, np.random.default_rng(seed), frames)
        intensity = performance.intensity
        assert len(performance.units) == len(performance.views) == len(intensity) == frames
        assert int(intensity.argmax()) == performance.apex
        assert (intensity == intensity.max()).sum() == 1
        assert 0.25 <= performance.apex / frames <= 0.75
        assert 0.69 <= intensity.max() <= 1.1
        assert (intensity > 0.02).mean() <= 0.36
        assert 4 <= (intensity > 0.9 * intensity.max()).sum() <= 16
        assert intensity[0] == intensity[-1] == 0


def test_performances_hold_distractions_outside_the_event():
    stray = 0
    for seed in range(30):
        performance = perform("happiness", np.random.default_rng(seed), 80)
        others = foreign("happiness")
        outside = [
            units for units, strength in zip(performance.units, performance.intensity, strict=True) if strength == 0
        ]
        stray += any(units.get(unit, 0) > 0.4 for units in outside for unit in others)
    assert stray > 20


def test_too_short_a_performance_is_refused():
    with pytest.raises(ValueError, match="24 frames"):
        perform("fear", np.random.default_rng(0), 10)


def test_stills_are_reproducible_and_played_by_others(monkeypatch):
    met = []
    monkeypatch.setattr("ceflpipe.stages.demo.stills.cast", lambda number: met.append(number) or cast(number))
    drawn = stills(12, 5, 96)
    assert drawn.images.shape == (12, 96, 96, 3)
    assert drawn.landmarks.shape == (12, 5, 2)
    assert drawn.intensity.shape == (12, 6)
    assert drawn.units.shape == (12, len(UNITS))
    assert drawn.intensity.dtype == np.float32
    assert drawn.intensity.min() >= 0
    assert drawn.intensity.max() <= 1
    assert min(met) >= ENCODER_CAST
    np.testing.assert_array_equal(drawn.images, stills(12, 5, 96).images)
    assert (stills(12, 6, 96).images != drawn.images).any()
    assert stills(0, 5, 96).images.shape == (0, 96, 96, 3)


def tiny(root: Path, **changes: object) -> Path:
    settings = {"subjects": 1, "size": 160, "frames": FRAMES} | changes
    return make(root, **settings)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    return tiny(root)


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def test_the_table_lists_videos_that_decode_fully(data_set):
    with data_set.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "subject", "split", "fold", "apex"]
    assert [row["label"] for row in rows] == list(LABELS)
    for row in rows:
        performance = script(1, row["label"], FRAMES, 3456)
        assert row["path"] == f"videos/S01/S01_{row['label']}.mp4"
        assert (row["subject"], row["split"], row["fold"]) == ("S01", "", "")
        assert int(row["apex"]) == performance.apex
        assert count_frames(data_set.parent / row["path"]) == len(performance.intensity)
    assert not list(data_set.parent.rglob("*.part*"))


def test_a_second_run_renders_only_what_is_missing(data_set):
    root = data_set.parent
    videos = sorted(root.rglob("*.mp4"))
    gone = videos[2]
    content = gone.read_bytes()
    before = {video: os.stat(video).st_mtime_ns for video in videos}
    calls = []
    gone.unlink()
    tiny(root, on_video=lambda done, total: calls.append((done, total)))
    assert calls == [(6, 6)]
    assert gone.read_bytes() == content
    tiny(root, on_video=lambda done, total: calls.append((done, total)))
    assert len(calls) == 1
    after = {video: os.stat(video).st_mtime_ns for video in videos}
    assert {video for video in videos if before[video] != after[video]} <= {gone}


def test_other_settings_render_everything_again(tmp_path):
    tiny(tmp_path)
    stranger = tmp_path / "videos" / "S01" / "mine.mp4"
    stranger.write_bytes(b"kept")
    calls = []
    tiny(tmp_path, seed=4, on_video=lambda done, total: calls.append(done))
    assert calls == [1, 2, 3, 4, 5, 6]
    assert stranger.read_bytes() == b"kept"
    assert json.loads((tmp_path / making.MARKER).read_text())["seed"] == 4


def find(images: list[np.ndarray]) -> list[np.ndarray | None]:
    retinaface = pytest.importorskip("retinaface")
    found = []
    for image in images:
        faces = retinaface.detect_faces(image, score_threshold=0.5)
        best = max(faces, key=lambda face: face.score, default=None)
        found.append(None if best is None else np.array([(point.x, point.y) for point in best.landmarks], float))
    return found


def compare(pictures: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The share of pictures in which RetinaFace finds a face, and the mean distance of its landmarks from the true
    ones as a share of the distance between the eyes."""
    found = find([image for image, _ in pictures])
    distances = [
        np.linalg.norm(seen - true, axis=1).mean() / np.linalg.norm(true[1] - true[0])
        for seen, (_, true) in zip(found, pictures, strict=True)
        if seen is not None
    ]
    return len(distances) / len(pictures), float(np.mean(distances))


def test_retinaface_finds_a_few_faces_where_they_were_drawn():
    share, distance = compare([render(cast(number), {}, View(place=number)) for number in range(1, 9)])
    assert share == 1
    assert distance < 0.06


@pytest.mark.slow
def test_retinaface_finds_the_whole_cast_in_its_videos():
    rng = np.random.default_rng(1)
    pictures = []
    for subject in range(1, 25):
        for label in LABELS:
            performance = script(subject, label, (60, 100), 3456)
            for frame in (performance.apex, int(rng.integers(0, len(performance.units)))):
                pictures.append(render(cast(subject), performance.units[frame], performance.views[frame]))
    share, distance = compare(pictures)
    assert share >= 0.97
    assert distance < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("yaw", "pitch"), [(-20, -12), (20, -12), (-20, 12), (20, 12)])
def test_retinaface_finds_turned_heads(yaw, pitch):
    view = View(yaw=yaw, pitch=pitch)
    pictures = [
        render(cast(number), pose(LABELS[number % 6], 1.0), dataclasses.replace(view, place=number))
        for number in range(1, 25)
    ]
    share, distance = compare(pictures)
    assert share >= 0.97
    assert distance < 0.09
