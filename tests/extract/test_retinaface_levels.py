"""The network's grids: leaving the fine ones out changes no number of the others; the oracle is the whole network."""

import numpy as np
import onnxruntime
import pytest
from retinaface.weights import WEIGHTS

from ceflpipe.stages.extract.retinaface import FPN_LEVELS, RetinaFace, RetinaFaceONNX, first_level_for, prior_boxes


@pytest.fixture(scope="module")
def pixels(photographs):
    return (photographs["six"][None, 100:420, 200:600].transpose(0, 3, 1, 2).astype(np.float32) - 117).copy()


@pytest.mark.parametrize(("side", "level"), [(0, 0), (60, 0), (64, 1), (255, 1), (256, 2), (5000, 2)])
def test_what_is_computed_is_what_the_whole_network_says(pixels, side, level):
    session = onnxruntime.InferenceSession(WEIGHTS, providers=["CPUExecutionProvider"])
    boxes, scores, landmarks = (np.asarray(part)[0] for part in session.run(None, {"input": pixels}))
    offsets, score, points, where = RetinaFaceONNX()(pixels, side)
    count = sum(2 * -(-320 // stride) * -(-400 // stride) for stride, _ in FPN_LEVELS[level:])
    assert len(offsets) == len(score) == len(points) == len(where) == count
    np.testing.assert_array_equal(offsets, boxes[-count:])
    np.testing.assert_array_equal(points, landmarks[-count:])
    np.testing.assert_allclose(score, scores[-count:, 1], atol=1e-6)


def test_an_anchor_is_left_out_only_when_it_shares_less_than_a_quarter_with_the_face():
    for side in range(1, 700):
        level = first_level_for(side)
        for _, sizes in FPN_LEVELS[:level]:
            assert all(size**2 / side**2 <= 0.25 for size in sizes)
        assert level == 2 or max(FPN_LEVELS[level][1]) ** 2 / side**2 > 0.25


def test_anchors_lie_where_the_grids_are():
    found, place = prior_boxes(64, 96), 0
    for stride, sizes in FPN_LEVELS:
        for row in range(64 // stride):
            for column in range(96 // stride):
                for size in sizes:
                    assert found[place].tolist() == [(column + 0.5) * stride, (row + 0.5) * stride, size, size]
                    place += 1
    assert place == len(found)
    np.testing.assert_array_equal(prior_boxes(64, 96, 1), found[-len(prior_boxes(64, 96, 1)) :])


def test_a_face_of_known_place_is_found_the_same_with_fewer_grids(photographs):
    """Every one of six people: the region's answer with all grids against the one that leaves fine grids out."""
    detector, six = RetinaFace(), photographs["six"]
    for box in detector(six).boxes:
        x1, y1, x2, y2 = (int(v) // 32 * 32 for v in (*(box[:2] - 40), *(box[2:] + 60)))
        region = six[max(0, y1) : y2, max(0, x1) : x2]
        side = float(np.sqrt(np.prod(box[2:] - box[:2])))
        everything, fewer = detector._forward(region), detector._forward(region, side)
        np.testing.assert_array_equal(fewer.landmarks[0], everything.landmarks[0])
