"""RetinaFace's pyramid levels: pruning the fine ones does not change the others; the oracle is the unpruned network."""

import numpy as np
import onnxruntime
import pytest
from retinaface.weights import WEIGHTS

from ceflpipe.stages.extract.retinaface import FPN_LEVELS, RetinaFace, RetinaFaceONNX, first_level_for, prior_boxes


@pytest.fixture(scope="module")
def pixels(photographs):
    return (photographs["six"][None, 100:420, 200:600].transpose(0, 3, 1, 2).astype(np.float32) - 117).copy()


@pytest.mark.parametrize(("face_size", "level"), [(0, 0), (60, 0), (64, 1), (255, 1), (256, 2), (5000, 2)])
def test_outputs_equal_those_of_the_unpruned_network(pixels, face_size, level):
    session = onnxruntime.InferenceSession(WEIGHTS, providers=["CPUExecutionProvider"])
    expected_offsets, expected_scores, expected_points = (
        np.asarray(part)[0] for part in session.run(None, {"input": pixels})
    )
    offsets, scores, points, anchors = RetinaFaceONNX()(pixels, face_size)
    count = sum(2 * -(-320 // stride) * -(-400 // stride) for stride, _ in FPN_LEVELS[level:])
    assert len(offsets) == len(scores) == len(points) == len(anchors) == count
    np.testing.assert_array_equal(offsets, expected_offsets[-count:])
    np.testing.assert_array_equal(points, expected_points[-count:])
    np.testing.assert_allclose(scores, expected_scores[-count:, 1], atol=1e-6)


def test_an_anchor_is_skipped_only_if_its_iou_with_the_face_is_below_a_quarter():
    for face_size in range(1, 700):
        level = first_level_for(face_size)
        for _, sizes in FPN_LEVELS[:level]:
            assert all(size**2 / face_size**2 <= 0.25 for size in sizes)
        assert level == 2 or max(FPN_LEVELS[level][1]) ** 2 / face_size**2 > 0.25


def test_prior_boxes_are_at_the_centers_of_the_cells():
    expected = [
        [(column + 0.5) * stride, (row + 0.5) * stride, size, size]
        for stride, sizes in FPN_LEVELS
        for row in range(64 // stride)
        for column in range(96 // stride)
        for size in sizes
    ]
    anchors = prior_boxes(64, 96)
    assert anchors.tolist() == expected
    np.testing.assert_array_equal(prior_boxes(64, 96, 1), anchors[-len(prior_boxes(64, 96, 1)) :])


def test_a_face_of_known_size_is_detected_the_same_with_fewer_levels(photographs):
    """For each of six people: the detection in their region with all levels and with the fine ones skipped."""
    detector, image = RetinaFace(), photographs["six"]
    for box in detector(image).boxes:
        x1, y1, x2, y2 = (int(v) // 32 * 32 for v in (*(box[:2] - 40), *(box[2:] + 60)))
        region = image[max(0, y1) : y2, max(0, x1) : x2]
        face_size = float(np.sqrt(np.prod(box[2:] - box[:2])))
        complete, pruned = detector._forward(region), detector._forward(region, face_size)
        np.testing.assert_array_equal(pruned.landmarks[0], complete.landmarks[0])
