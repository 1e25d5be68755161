"""Rendered frames: the same bytes every time, true landmarks, visible action units, faces that RetinaFace finds."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from ceflpipe.stages.demo.action_units import (
    ACTION_UNITS,
    EXPRESSIONS,
    EYE_UNITS,
    LABELS,
    MAX_INTENSITY,
    PROTOTYPES,
    combine_units,
    expression_units,
    gaze_units,
    non_prototype_units,
)
from ceflpipe.stages.demo.actor import make_actor
from ceflpipe.stages.demo.demo_config import DemoConfig
from ceflpipe.stages.demo.demo_dataset import VideoSpec, performance_of
from ceflpipe.stages.demo.face import build_head
from ceflpipe.stages.demo.render import Camera, render_frame

CLEAN = Camera(noise_std=0)


def patch(image: np.ndarray, point: np.ndarray, half: int) -> np.ndarray:
    x, y = np.round(point).astype(int)
    return image[y - half : y + half + 1, x - half : x + half + 1].astype(float)


def test_the_same_arguments_render_the_same_bytes():
    camera = Camera(yaw=8, light_angle=20, noise_index=3)
    first, points = render_frame(make_actor(3), expression_units("fear", 0.8), camera)
    render_frame(make_actor(4), {}, Camera())
    build_head.cache_clear()
    second, again = render_frame(make_actor(3), expression_units("fear", 0.8), camera)
    assert first.dtype == np.uint8
    assert first.shape == (256, 256, 3)
    assert points.shape == (5, 2)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(points, again)


def test_the_number_of_threads_changes_no_byte():
    before, images = cv2.getNumThreads(), []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            build_head.cache_clear()
            images.append(
                render_frame(make_actor(11), expression_units("disgust", 1.0), Camera(yaw=-9, roll=5), 400)[0]
            )
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*images)


def test_different_numbers_are_different_faces():
    faces = [render_frame(make_actor(number), {}, CLEAN)[0][60:220, 60:200].astype(float) for number in range(1, 9)]
    for index, face in enumerate(faces):
        for other in faces[:index]:
            assert np.abs(face - other).mean() > 6


@pytest.mark.parametrize("size", [96, 250, 256, 400])
def test_an_image_has_the_requested_size(size):
    image, points = render_frame(make_actor(1), {}, Camera(), size)
    assert image.shape == (size, size, 3)
    fraction = points / size
    assert ((fraction > 0.2) & (fraction < 0.8)).all()
    reference = render_frame(make_actor(1), {}, Camera(), 256)[1] / 256
    np.testing.assert_allclose(fraction, reference, atol=0.004)


@pytest.mark.parametrize("shift", [(0.6, 0.0), (-0.6, 0.3), (0.0, -0.7), (3.0, 3.0)])
def test_a_head_may_leave_the_image(shift):
    image, points = render_frame(make_actor(1), expression_units("surprise", 1.0), Camera(shift=shift))
    assert image.shape == (256, 256, 3)
    centered = render_frame(make_actor(1), expression_units("surprise", 1.0), Camera())[1]
    np.testing.assert_allclose(points, centered + 256 * np.float32(shift), atol=0.01)


@pytest.mark.parametrize("number", [1, 2, 5, 8, 13, 21])
def test_eye_landmarks_lie_on_dark_irises(number):
    image, points = render_frame(make_actor(number), {}, dataclasses.replace(CLEAN, light_angle=0))
    across = np.linalg.norm(points[1] - points[0])
    for eye in points[:2]:
        pupil = patch(image, eye + np.float32([0, 0.02 * across]), 1).mean()
        whites = [patch(image, eye + np.float32([side * 0.165 * across, 0.03 * across]), 1).mean() for side in (-1, 1)]
        assert pupil < 0.6 * min(whites)


def test_landmarks_follow_the_head():
    still = render_frame(make_actor(2), {}, Camera())[1]
    right = render_frame(make_actor(2), {}, Camera(yaw=15))[1]
    # a nose stands out: it moves further than the point between the eyes
    assert right[2, 0] - still[2, 0] > right[:2, 0].mean() - still[:2, 0].mean() + 2
    along = np.diff(render_frame(make_actor(2), {}, Camera(roll=10))[1][:2], axis=0)[0]
    assert np.degrees(np.arctan2(along[1], along[0])) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("camera", [Camera(yaw=15, noise_std=0), Camera(pitch=-10, roll=8, noise_std=0)])
def test_landmarks_move_as_the_pixels_do(camera):
    """The eye that template matching finds in a turned head is where its landmark is."""
    front, still = render_frame(make_actor(6), {}, CLEAN)
    turned, points = render_frame(make_actor(6), {}, camera)
    for eye in (0, 1):
        x, y = np.round(still[eye]).astype(int)
        template = front[y - 9 : y + 10, x - 12 : x + 13]
        scores = cv2.matchTemplate(turned, template, cv2.TM_CCOEFF_NORMED)
        near = np.round(points[eye]).astype(int)
        area = scores[near[1] - 9 - 12 : near[1] - 9 + 13, near[0] - 12 - 12 : near[0] - 12 + 13]
        row, column = np.unravel_index(area.argmax(), area.shape)
        assert np.hypot(column - 12, row - 12) <= 2.5


def test_a_smile_raises_and_widens_the_mouth_and_shows_teeth():
    actor = make_actor(13)
    rest, still = render_frame(actor, {}, CLEAN)
    smile, points = render_frame(actor, expression_units("happiness", 1.0), CLEAN)
    assert points[4, 0] - points[3, 0] > 1.15 * (still[4, 0] - still[3, 0])
    assert points[3, 1] < still[3, 1] - 2
    below = points[3:].mean(0) + np.float32([0, 0.12 * (points[1, 0] - points[0, 0])])
    assert patch(smile, below, 5).max() > 190
    assert np.abs(smile.astype(int) - rest).max() > 60


def test_a_dropped_jaw_opens_a_dark_mouth():
    image, points = render_frame(make_actor(13), {26: 1.0}, CLEAN)
    column = image[int(points[2, 1]) : int(points[2, 1]) + 70, int(points[2, 0])].astype(float).mean(-1)
    assert column.min() < 40


def test_a_blink_closes_the_lids_and_a_gaze_moves_the_irises():
    camera = dataclasses.replace(CLEAN, light_angle=0)
    opened, points = render_frame(make_actor(5), {}, camera)
    closed, _ = render_frame(make_actor(5), {45: 1.0}, camera)
    right, _ = render_frame(make_actor(5), gaze_units(1.0, 0.0), camera)
    for eye in points[:2]:
        above = eye - np.float32([0, 2])
        assert np.ptp(patch(closed, above, 2)) < 0.6 * np.ptp(patch(opened, above, 2))
        darkness = [(255 - patch(image, eye, 6).mean(-1)).clip(130) - 130 for image in (opened, right)]
        columns = [(dark.sum(0) * np.arange(13)).sum() / dark.sum() for dark in darkness]
        assert columns[1] > columns[0] + 1


def test_every_unit_changes_the_face():
    base = render_frame(make_actor(9), {}, CLEAN)[0].astype(int)
    for unit in (*ACTION_UNITS, *EYE_UNITS):
        moved = render_frame(make_actor(9), {unit: 1.0}, CLEAN)[0].astype(int)
        assert np.abs(moved - base).max() > 20, unit


@pytest.mark.parametrize("label", EXPRESSIONS)
def test_a_stronger_expression_moves_more_pixels(label):
    base = render_frame(make_actor(4), {}, CLEAN)[0].astype(int)
    changes = [
        np.abs(render_frame(make_actor(4), expression_units(label, strength), CLEAN)[0] - base).sum()
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert changes[0] == 0
    assert (np.diff(changes) > 0).all()


def test_prototypes_use_known_units_and_intensities_stay_bounded():
    assert set(PROTOTYPES) == set(LABELS)
    for label in LABELS:
        assert set(PROTOTYPES[label]) <= set(ACTION_UNITS)
        assert not set(non_prototype_units(label)) & set(PROTOTYPES[label])
        assert expression_units(label, 0.0) == dict.fromkeys(PROTOTYPES[label], 0.0)
        assert expression_units(label, 1.0, {4: 0.5}).get(4) == (PROTOTYPES[label].get(4) and PROTOTYPES[label][4] / 2)
    assert combine_units({1: 0.9}, {1: 0.9, 2: 0.1}) == {1: MAX_INTENSITY, 2: 0.1}


def detect(images: list[np.ndarray]) -> list[np.ndarray | None]:
    retinaface = pytest.importorskip("retinaface")
    results = []
    for image in images:
        faces = retinaface.detect_faces(image, score_threshold=0.5)
        best = max(faces, key=lambda face: face.score, default=None)
        results.append(None if best is None else np.array([(point.x, point.y) for point in best.landmarks], float))
    return results


def compare(frames: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The fraction of frames in which RetinaFace finds a face, and the mean distance of its landmarks from the true
    ones as a fraction of the distance between the eyes."""
    results = detect([image for image, _ in frames])
    distances = [
        np.linalg.norm(points - true, axis=1).mean() / np.linalg.norm(true[1] - true[0])
        for points, (_, true) in zip(results, frames, strict=True)
        if points is not None
    ]
    return len(distances) / len(frames), float(np.mean(distances))


def test_retinaface_detects_a_few_faces_at_their_landmarks():
    fraction, distance = compare([render_frame(make_actor(n), {}, Camera(background=n)) for n in range(1, 9)])
    assert fraction == 1
    assert distance < 0.06


@pytest.mark.slow
def test_retinaface_detects_every_actor_in_the_videos():
    rng = np.random.default_rng(1)
    frames = []
    for subject in range(1, 25):
        for label in LABELS:
            performance = performance_of(VideoSpec(Path(), subject, label, DemoConfig()))
            apex = [] if performance.apex is None else [performance.apex]
            for frame in (*apex, *rng.integers(0, len(performance.units), 3)):
                frames.append(render_frame(make_actor(subject), performance.units[frame], performance.cameras[frame]))
    fraction, distance = compare(frames)
    assert fraction == 1
    assert distance < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("yaw", "pitch"), [(-20, -12), (20, -12), (-20, 12), (20, 12)])
def test_retinaface_detects_turned_heads(yaw, pitch):
    frames = [
        render_frame(
            make_actor(n), expression_units(EXPRESSIONS[n % 6], 1.0), Camera(yaw=yaw, pitch=pitch, background=n)
        )
        for n in range(1, 25)
    ]
    fraction, distance = compare(frames)
    assert fraction >= 0.97
    assert distance < 0.09
