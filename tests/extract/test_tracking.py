"""Searching where the face was last: as good as searching everywhere, never another person, and back after a loss."""

import cv2
import numpy as np
import pytest
from helpers.video import panning

from ceflpipe.stages.extract.detection import Detections
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import FULL_DETECT_INTERVAL, FaceTracker, iou


class Watched:
    """The real detector, with the pixels that it searched and the times it searched the whole picture."""

    def __init__(self):
        self.detector, self.whole, self.near_found = RetinaFace(), 0, 0

    def __call__(self, picture):
        self.whole += 1
        return self.detector(picture)

    def near(self, picture, box):
        faces = self.detector.detect_roi(picture, box)
        self.near_found += faces is not None and len(faces) > 0
        return faces


@pytest.fixture(scope="module")
def enlarged(photographs):
    return cv2.resize(photographs["astronaut"], None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)


def eyes_apart(landmarks):
    return np.linalg.norm(landmarks[0] - landmarks[1])


def same_person(faces, box):
    return int(iou(faces.boxes, box).argmax())


def test_landmarks_are_as_good_as_those_of_the_whole_picture(photographs, enlarged):
    six = photographs["six"]
    videos = {
        "640 x 480, one face": panning(enlarged, 30, (640, 480), (20, 0), (170, 120)),
        "640 x 480, six faces": panning(six, 30, (640, 480), (0, 100), (six.shape[1] - 640, 250)),
        "1280 x 720": panning(cv2.resize(six, None, fx=1.6, fy=1.6), 30, (1280, 720), (0, 200), (400, 400)),
    }
    for name, video in videos.items():
        watched = Watched()
        follow, distances = FaceTracker(watched), []
        for picture in video:
            face, everyone = follow(picture), watched.detector(picture)
            reference = everyone.landmarks[same_person(everyone, face.box)]
            distances.append(np.linalg.norm(face.landmarks - reference, axis=1).mean() / eyes_apart(reference))
        assert np.mean(distances) <= 0.015, name
        assert watched.whole <= 6, name  # most pictures were not searched as a whole


def test_a_region_is_searched_only_where_that_is_less_work(enlarged):
    detector = RetinaFace()
    box = detector(enlarged).boxes[0]
    assert detector.detect_roi(enlarged, box) is not None
    close = enlarged[int(box[1]) - 20 : int(box[3]) + 20, int(box[0]) - 20 : int(box[2]) + 20]
    assert detector.detect_roi(close, detector(close).boxes[0]) is None  # the face fills the picture
    beside = np.array([enlarged.shape[1] + 50, 10, enlarged.shape[1] + 90, 60], np.float32)
    assert detector.detect_roi(enlarged, beside) is None  # a box from a larger picture


def test_never_the_other_person(photographs):
    """Each of six people in turn is followed through a pan, while the others are in view as well."""
    six = photographs["six"]
    steps = 24
    everyone = RetinaFace()(six)
    for place in range(len(everyone)):
        x = everyone.boxes[place, [0, 2]].mean()
        start = int(np.clip(x - 400, 0, six.shape[1] - 640))
        end = int(np.clip(x - 240, 0, six.shape[1] - 640))
        follow = FaceTracker(RetinaFace())
        first, *others = panning(six, steps, (640, 480), (start, 100), (end, 100))
        # the person is alone at first: everyone else is covered
        alone = np.zeros_like(first)
        x1, y1, x2, y2 = (everyone.boxes[place] - np.tile([start, 100], 2)).astype(int)
        alone[max(0, y1 - 15) : y2 + 15, max(0, x1 - 15) : x2 + 15] = first[
            max(0, y1 - 15) : y2 + 15, max(0, x1 - 15) : x2 + 15
        ]
        assert follow(alone) is not None
        for i, picture in enumerate(others, 1):
            left = round(start + (end - start) * i / (steps - 1))
            expected = everyone.boxes[place] - np.tile([left, 100], 2)
            face = follow(picture)
            assert iou(face.box[None], expected)[0] > 0.5, (place, i)


def test_a_lost_face_is_missed_at_once_and_found_again_anywhere(enlarged):
    follow = FaceTracker(RetinaFace())
    seen = panning(enlarged, 6, (640, 480), (20, 0), (60, 30))
    covered = [np.full_like(seen[0], 90)] * 4
    elsewhere = panning(enlarged, 6, (640, 480), (170, 60), (150, 60))
    found = [follow(picture) for picture in [*seen, *covered, *elsewhere]]
    assert [face is not None for face in found] == [True] * 6 + [False] * 4 + [True] * 6
    detector = RetinaFace()
    for face, picture in zip(found[10:], elsewhere, strict=True):
        assert iou(face.box[None], detector(picture).boxes[0])[0] > 0.9


def test_a_cut_to_a_face_of_another_size_goes_to_the_whole_picture(enlarged):
    """At a cut the region of the old face holds a part of the new one; that part must not be taken for a face."""
    far, near = cv2.resize(enlarged, (640, 480)), cv2.resize(enlarged[0:420, 150:640], (640, 480))
    watched = Watched()
    follow = FaceTracker(watched)
    follow(far), follow(far)
    before = watched.whole
    face = follow(near)
    assert watched.whole == before + 1
    assert iou(face.box[None], watched.detector(near).boxes[0])[0] > 0.9


def test_the_whole_picture_is_searched_at_fixed_intervals(enlarged):
    watched = Watched()
    follow = FaceTracker(watched)
    for _ in range(2 * (FULL_DETECT_INTERVAL + 1) + 1):
        assert follow(enlarged) is not None
    assert watched.whole == 3


def test_a_picture_of_another_size_in_the_same_video_and_one_without_colour(enlarged):
    follow = FaceTracker(RetinaFace())
    grey = np.repeat(cv2.cvtColor(enlarged, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    pictures = [enlarged, grey, cv2.resize(enlarged, (300, 300)), cv2.resize(enlarged, (1000, 1000)), enlarged[:, 200:]]
    for picture in pictures:
        face, best = follow(picture), RetinaFace()(picture)
        reference = best.landmarks[same_person(best, face.box)]
        assert np.linalg.norm(face.landmarks - reference, axis=1).mean() < 0.03 * eyes_apart(reference)


def test_a_face_that_gets_doubtful_in_the_region_is_looked_for_everywhere():
    """A stand-in for the detector, because a score has to be chosen: 0.95 at first, then 0.6 in the region."""

    class Scores:
        def __init__(self):
            self.searched = []

        def faces(self, score):
            return Detections(
                np.array([[10, 10, 50, 60]], np.float32), np.zeros((1, 5, 2), np.float32), np.array([score], np.float32)
            )

        def __call__(self, picture):
            self.searched.append("whole")
            return self.faces(0.95)

        def near(self, picture, box):
            self.searched.append("near")
            return self.faces(0.6)

    detector = Scores()
    follow = FaceTracker(detector)
    for _ in range(2):
        follow(np.zeros((100, 100, 3), np.uint8))
    assert detector.searched == ["whole", "near", "whole"]
