"""Crops aligned by landmarks, by the box or by the center, against insightface."""

import warnings

import numpy as np
import pytest
from insightface.utils import face_align

from ceflpipe.stages.align import ARCFACE_TEMPLATE, align_crop, center_crop, crop_box, estimate_similarity
from ceflpipe.stages.extract.retinaface import RetinaFace


def test_alignment_equals_insightfaces():
    np.testing.assert_array_equal(ARCFACE_TEMPLATE, face_align.arcface_dst.astype(np.float64).round(4))
    rng = np.random.default_rng(0)
    for size in (112, 224):
        for _ in range(50):
            landmarks = (ARCFACE_TEMPLATE + rng.normal(0, 8, (5, 2))) * rng.uniform(0.3, 5) + rng.uniform(-50, 500, 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-image has renamed a function that insightface calls
                expected = face_align.estimate_norm(landmarks.astype(np.float32), size)
            np.testing.assert_allclose(estimate_similarity(landmarks, size), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("zoom", [0.4, 1.0, 3.3, 9.0])
def test_align_crop_moves_pixels_like_the_matrix(zoom):
    """A blurred dot at each landmark has its center of mass, in the crop, where the matrix maps the landmark."""
    rng = np.random.default_rng(0)
    landmarks = (ARCFACE_TEMPLATE + rng.normal(0, 3, (5, 2))) * zoom + 40
    side = int(landmarks.max() + 60)
    y, x = np.mgrid[:side, :side]
    matrix = estimate_similarity(landmarks, 112)
    for landmark in landmarks:
        dot = 250 * np.exp(-((x - landmark[0]) ** 2 + (y - landmark[1]) ** 2) / (2 * (2.5 * zoom) ** 2))
        crop = align_crop(np.repeat(dot[..., None], 3, axis=2).astype(np.uint8), landmarks, 112)[..., 0].astype(float)
        rows, columns = np.mgrid[:112, :112]
        center = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
        np.testing.assert_allclose(center, matrix[:, :2] @ landmark + matrix[:, 2], atol=0.3)


def test_a_large_face_is_shrunk_without_aliasing(photographs):
    """The crop of an image enlarged four times equals the crop of the image."""
    image = photographs["astronaut"]
    enlarged = np.repeat(np.repeat(image, 4, axis=0), 4, axis=1)
    landmarks = RetinaFace()(image).landmarks[0]
    expected = align_crop(image, landmarks, 64).astype(float)
    crop = align_crop(enlarged, (landmarks + 0.5) * 4 - 0.5, 64).astype(float)
    assert np.abs(crop - expected).mean() < 3.0


def test_degenerate_landmarks_do_not_crash(photographs):
    for landmarks in (np.full((5, 2), 40.0), np.array([[1e6, 1e6]] * 4 + [[0, 0]])):
        assert align_crop(photographs["astronaut"], landmarks, 112).shape == (112, 112, 3)


def test_a_box_beyond_the_edge_is_padded_black():
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_box(image, np.array([-50.0, -50, 50, 50]), 100)
    assert crop[:49, :49].max() == 0
    assert crop[51:, 51:].min() == 200
    assert crop_box(image, np.array([500.0, 500, 600, 600]), 10).max() == 0


def test_center_crop_of_a_wide_image():
    image = np.zeros((50, 150, 3), np.uint8)
    image[:, 50:100] = 255
    assert center_crop(image, 32).min() == 255
