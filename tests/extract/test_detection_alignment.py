"""Detection, alignment and tracking, on real photographs and against the libraries they come from."""

import warnings

import numpy as np
import pytest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.align import ARCFACE_TEMPLATE, align_crop, center_crop, crop_box, estimate_similarity
from ceflpipe.stages.extract.detection import Detections
from ceflpipe.stages.extract.insightface_detector import InsightFaceDetector
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import MAX_GAP, Face, GapInterpolator, iou, select_face


def test_same_faces_as_the_package_whose_weights_these_are(photographs):
    from retinaface import detect_faces

    for picture in photographs.values():
        ours = RetinaFace(side=10_000, minimum_score=0.5)(picture)
        theirs = detect_faces(picture, score_threshold=0.5)
        assert len(ours) == len(theirs) > 0
        for n, face in enumerate(theirs):
            assert ours.scores[n] == pytest.approx(face.score, abs=1e-5)
            np.testing.assert_allclose(ours.boxes[n][:2], [face.x, face.y], atol=1.01)  # theirs are cut to whole pixels
            np.testing.assert_allclose(ours.landmarks[n], [(p.x, p.y) for p in face.landmarks], atol=1.01)


def test_six_people_are_six_faces_with_landmarks_in_order(photographs):
    faces = RetinaFace()(photographs["six"])
    assert len(faces) == 6
    for box, (eye, other_eye, nose, mouth, other_mouth) in zip(faces.boxes, faces.landmarks, strict=True):
        assert eye[0] < other_eye[0]
        assert mouth[0] < other_mouth[0]
        assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])
        assert faces.landmarks.shape[1:] == (5, 2)
        assert box[0] < nose[0] < box[2]


def test_a_large_picture_is_searched_small_and_answered_in_its_own_pixels(photographs):
    picture = photographs["astronaut"]
    large = np.repeat(np.repeat(picture, 4, axis=0), 4, axis=1)
    small, big = RetinaFace(side=512)(picture), RetinaFace(side=512)(large)
    eyes = np.linalg.norm(small.landmarks[0, 1] - small.landmarks[0, 0])
    assert np.abs(big.landmarks[0] / 4 - small.landmarks[0]).max() < 0.05 * eyes


def test_nothing_is_found_in_nothing():
    assert len(RetinaFace()(np.zeros((120, 160, 3), np.uint8))) == 0
    assert len(RetinaFace()(np.zeros((1, 1, 3), np.uint8))) == 0


def test_alignment_is_insightfaces():
    from insightface.utils import face_align

    np.testing.assert_array_equal(ARCFACE_TEMPLATE, face_align.arcface_dst.astype(np.float64).round(4))
    rng = np.random.default_rng(0)
    for size in (112, 224):
        for _ in range(50):
            landmarks = (ARCFACE_TEMPLATE + rng.normal(0, 8, (5, 2))) * rng.uniform(0.3, 5) + rng.uniform(-50, 500, 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-image has renamed what insightface calls
                theirs = face_align.estimate_norm(landmarks.astype(np.float32), size)
            np.testing.assert_allclose(estimate_similarity(landmarks, size), theirs, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("zoom", [0.4, 1.0, 3.3, 9.0])
def test_pixels_go_the_way_the_transform_says(zoom):
    """A soft dot drawn at each landmark has its centre of mass, in the crop, where the matrix sends the landmark."""
    rng = np.random.default_rng(0)
    landmarks = (ARCFACE_TEMPLATE + rng.normal(0, 3, (5, 2))) * zoom + 40
    side = int(landmarks.max() + 60)
    y, x = np.mgrid[:side, :side]
    matrix = estimate_similarity(landmarks, 112)
    for place in landmarks:
        dot = 250 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * (2.5 * zoom) ** 2))
        crop = align_crop(np.repeat(dot[..., None], 3, axis=2).astype(np.uint8), landmarks, 112)[..., 0].astype(float)
        rows, columns = np.mgrid[:112, :112]
        centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
        np.testing.assert_allclose(centre, matrix[:, :2] @ place + matrix[:, 2], atol=0.3)


def test_a_large_face_is_shrunk_without_aliasing(photographs):
    """The crop of a picture enlarged four times looks like the crop of the picture."""
    picture = photographs["astronaut"]
    large = np.repeat(np.repeat(picture, 4, axis=0), 4, axis=1)
    landmarks = RetinaFace()(picture).landmarks[0]
    one = align_crop(picture, landmarks, 64).astype(float)
    other = align_crop(large, (landmarks + 0.5) * 4 - 0.5, 64).astype(float)
    assert np.abs(one - other).mean() < 3.0


def test_degenerate_landmarks_do_not_crash(photographs):
    assert align_crop(photographs["astronaut"], np.full((5, 2), 40.0), 112).shape == (112, 112, 3)
    assert align_crop(photographs["astronaut"], np.array([[1e6, 1e6]] * 4 + [[0, 0]]), 112).shape == (
        112,
        112,
        3,
    )


def test_a_box_that_hangs_over_the_edge_is_padded_black():
    picture = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_box(picture, np.array([-50.0, -50, 50, 50]), 100)
    assert crop[:49, :49].max() == 0
    assert crop[51:, 51:].min() == 200
    assert crop_box(picture, np.array([500.0, 500, 600, 600]), 10).max() == 0


def test_the_middle_of_a_wide_picture():
    picture = np.zeros((50, 150, 3), np.uint8)
    picture[:, 50:100] = 255
    assert center_crop(picture, 32).min() == 255


def faces(*boxes):
    b = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(b, np.zeros((len(b), 5, 2), np.float32), np.ones(len(b), np.float32))


def test_iou_by_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.array([*p, *(p + rng.integers(1, 15, 2))]) for p in rng.integers(0, 10, (2, 2)))
        grid = np.zeros((2, 40, 40), bool)
        for layer, box in zip(grid, (a, b), strict=True):
            layer[box[1] : box[3], box[0] : box[2]] = True
        assert iou(a[None].astype(float), b.astype(float))[0] == pytest.approx(
            (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()
        )


def test_the_person_who_goes_on_is_chosen_before_a_larger_one():
    found = faces([0, 0, 30, 30], [100, 50, 200, 150])
    assert select_face(found, None, (200, 300)) == 1  # larger and more central
    assert select_face(found, np.array([2, 2, 32, 32], np.float32), (200, 300)) == 0  # who was there before
    assert select_face(found, np.array([250, 0, 280, 30], np.float32), (200, 300)) == 1  # the last one is gone
    assert select_face(faces(), None, (200, 300)) is None


def at(x, score=0.9):
    return Face(np.array([x, 0, x + 50, 50], np.float32), np.full((5, 2), x, np.float32), score, FrameStatus.DETECTED)


def fill(sequence):
    filler, out = GapInterpolator(), []
    for i, face in enumerate(sequence):
        out += list(filler.push(np.full((1, 1, 3), i % 250, np.uint8), face))
    return out + list(filler.flush())


def test_a_short_gap_is_bridged_in_equal_steps():
    out = fill([at(0), None, None, None, at(8)])
    assert [f.status for _, f in out] == [FrameStatus.DETECTED, *[FrameStatus.INTERPOLATED] * 3, FrameStatus.DETECTED]
    assert [float(f.landmarks[0, 0]) for _, f in out] == [0, 2, 4, 6, 8]
    assert all(np.isnan(f.score) for _, f in out[1:4])


@pytest.mark.parametrize(
    "pattern", ["", "-", "f", "--f--", "f" + "-" * 30 + "f", "-" * 40, "f-f-f", "-" * 13 + "f", "f" + "-" * 12 + "f"]
)
def test_every_frame_comes_out_in_order(pattern):
    out = fill([at(0) if c == "f" else None for c in pattern])
    assert [int(p[0, 0, 0]) for p, _ in out] == list(range(len(pattern)))
    assert [f is not None and f.status == FrameStatus.DETECTED for _, f in out] == [c == "f" for c in pattern]


def test_a_long_gap_and_the_ends_are_missing_with_the_nearest_landmarks():
    out = fill([None, at(0), *[None] * (MAX_GAP + 1), at(9), None])
    statuses = [f.status for _, f in out]
    assert statuses[0] == FrameStatus.MISSING
    assert statuses[-1] == FrameStatus.MISSING
    assert set(statuses[2:-2]) == {FrameStatus.MISSING}
    assert [float(f.landmarks[0, 0]) for _, f in out[2:-2]] == [0.0] * (MAX_GAP + 1)


def test_two_faces_far_apart_are_not_bridged():
    out = fill([at(0), None, at(500)])
    assert out[1][1].status == FrameStatus.MISSING
    assert float(out[1][1].landmarks[0, 0]) == 0.0


def test_an_insightface_pack_that_is_not_there_says_where_to_put_it():
    with pytest.raises(CeflError, match=r"~/\.insightface/models/buffalo_nowhere"):
        InsightFaceDetector("buffalo_nowhere", download=False)


def test_an_onnx_file_that_is_no_detector_is_refused(tmp_path):
    from retinaface.weights import WEIGHTS

    (tmp_path / "det_x.onnx").write_bytes(WEIGHTS)  # RetinaFace, but with outputs that insightface does not know
    with pytest.raises(CeflError, match="not a face detection model of insightface"):
        InsightFaceDetector(str(tmp_path), download=False)
