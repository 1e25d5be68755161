"""Face tracking: as accurate as searching the whole image, never another person; short gaps are interpolated."""

import cv2
import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.extract.detection import Detections, iou
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import (
    FULL_DETECT_INTERVAL,
    MAX_GAP,
    Change,
    Face,
    FaceTracker,
    GapInterpolator,
    describe_changes,
    describe_starts,
    select_face,
)


class CountingDetector:
    """RetinaFace that counts the searches of the whole image."""

    def __init__(self):
        self.detector, self.num_full = RetinaFace(), 0

    def __call__(self, image):
        self.num_full += 1
        return self.detector(image)

    def detect_roi(self, image, box):
        return self.detector.detect_roi(image, box)


@pytest.fixture(scope="module")
def enlarged(photographs):
    return cv2.resize(photographs["astronaut"], None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)


def mean_distance(landmarks, reference):
    """Return the mean distance of landmarks to reference ones, in units of the distance between the eyes."""
    return np.linalg.norm(landmarks - reference, axis=1).mean() / np.linalg.norm(reference[0] - reference[1])


def landmarks_of_same_face(faces, box):
    return faces.landmarks[iou(faces.boxes, box).argmax()]


def test_landmarks_are_as_accurate_as_from_the_whole_image(photographs, enlarged):
    group = photographs["six"]
    videos = {
        "640 x 480, one face": panning(enlarged, 30, (640, 480), (20, 0), (170, 120)),
        "640 x 480, six faces": panning(group, 30, (640, 480), (0, 100), (group.shape[1] - 640, 250)),
        "1280 x 720": panning(cv2.resize(group, None, fx=1.6, fy=1.6), 30, (1280, 720), (0, 200), (400, 400)),
    }
    for name, frames in videos.items():
        detector = CountingDetector()
        tracker, distances = FaceTracker(detector), []
        for frame in frames:
            face = tracker(frame)
            reference = landmarks_of_same_face(detector.detector(frame), face.box)
            distances.append(mean_distance(face.landmarks, reference))
        assert np.mean(distances) <= 0.015, name
        assert detector.num_full <= 6, name  # in most frames only the region was searched


def test_a_region_is_searched_only_if_that_is_faster(enlarged):
    detector = RetinaFace()
    box = detector(enlarged).boxes[0]
    assert detector.detect_roi(enlarged, box) is not None
    close_up = enlarged[int(box[1]) - 20 : int(box[3]) + 20, int(box[0]) - 20 : int(box[2]) + 20]
    assert detector.detect_roi(close_up, detector(close_up).boxes[0]) is None  # the face fills the image
    outside = np.array([enlarged.shape[1] + 50, 10, enlarged.shape[1] + 90, 60], np.float32)
    assert detector.detect_roi(enlarged, outside) is None  # a box from a larger image


def test_the_track_never_switches_to_another_person(photographs):
    """Each of six people is tracked through a pan in which the others are visible as well."""
    image = photographs["six"]
    count = 24
    faces = RetinaFace()(image)
    for index in range(len(faces)):
        x = faces.boxes[index, [0, 2]].mean()
        start = int(np.clip(x - 400, 0, image.shape[1] - 640))
        end = int(np.clip(x - 240, 0, image.shape[1] - 640))
        tracker = FaceTracker(RetinaFace())
        first, *others = panning(image, count, (640, 480), (start, 100), (end, 100))
        # in the first frame all other faces are covered
        covered = np.zeros_like(first)
        x1, y1, x2, y2 = (faces.boxes[index] - np.tile([start, 100], 2)).astype(int)
        visible = np.s_[max(0, y1 - 15) : y2 + 15, max(0, x1 - 15) : x2 + 15]
        covered[visible] = first[visible]
        assert tracker(covered) is not None
        for i, frame in enumerate(others, 1):
            left = round(start + (end - start) * i / (count - 1))
            expected = faces.boxes[index] - np.tile([left, 100], 2)
            assert iou(tracker(frame).box[None], expected)[0] > 0.5, (index, i)


def test_a_lost_face_is_missing_at_once_and_detected_again_anywhere(enlarged):
    tracker, detector = FaceTracker(RetinaFace()), RetinaFace()
    visible = panning(enlarged, 6, (640, 480), (20, 0), (60, 30))
    covered = [np.full_like(visible[0], 90)] * 4
    elsewhere = panning(enlarged, 6, (640, 480), (170, 60), (150, 60))
    faces = [tracker(frame) for frame in [*visible, *covered, *elsewhere]]
    assert [face is not None for face in faces] == [True] * 6 + [False] * 4 + [True] * 6
    for face, frame in zip(faces[10:], elsewhere, strict=True):
        assert iou(face.box[None], detector(frame).boxes[0])[0] > 0.9


def test_a_cut_to_a_face_of_another_size_searches_the_whole_image(enlarged):
    """At a cut the region of the old face contains a part of the new one, which must not be taken for a face."""
    far, near = cv2.resize(enlarged, (640, 480)), cv2.resize(enlarged[0:420, 150:640], (640, 480))
    detector = CountingDetector()
    tracker = FaceTracker(detector)
    tracker(far), tracker(far)
    before = detector.num_full
    face = tracker(near)
    assert detector.num_full == before + 1
    assert iou(face.box[None], detector(near).boxes[0])[0] > 0.9


def test_the_whole_image_is_searched_at_fixed_intervals(enlarged):
    detector = CountingDetector()
    tracker = FaceTracker(detector)
    for _ in range(2 * (FULL_DETECT_INTERVAL + 1) + 1):
        assert tracker(enlarged) is not None
    assert detector.num_full == 3


def test_frames_of_other_sizes_and_without_color(enlarged):
    tracker, detector = FaceTracker(RetinaFace()), RetinaFace()
    gray = np.repeat(cv2.cvtColor(enlarged, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    frames = [enlarged, gray, cv2.resize(enlarged, (300, 300)), cv2.resize(enlarged, (1000, 1000)), enlarged[:, 200:]]
    for frame in frames:
        face = tracker(frame)
        assert mean_distance(face.landmarks, landmarks_of_same_face(detector(frame), face.box)) < 0.03


def test_a_low_score_in_the_region_searches_the_whole_image():
    """A fake detector, because the scores must be given: 0.95 in the whole image, 0.6 in the region."""

    class FakeDetector:
        def __init__(self):
            self.searches = []

        def faces(self, score):
            box, landmarks = np.array([[10, 10, 50, 60]], np.float32), np.zeros((1, 5, 2), np.float32)
            return Detections(box, landmarks, np.array([score], np.float32))

        def __call__(self, image):
            self.searches.append("full")
            return self.faces(0.95)

        def detect_roi(self, image, box):
            self.searches.append("roi")
            return self.faces(0.6)

    detector = FakeDetector()
    tracker = FaceTracker(detector)
    for _ in range(2):
        tracker(np.zeros((100, 100, 3), np.uint8))
    assert detector.searches == ["full", "roi", "full"]


def detections(*boxes):
    b = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(b, np.zeros((len(b), 5, 2), np.float32), np.ones(len(b), np.float32))


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


class ScriptedDetector:
    """A detector that returns scripted faces: for each frame a list of upper left corners of 40 x 40 boxes.

    ``searches_regions``: around a box, else always in the whole image.
    """

    def __init__(self, script, searches_regions=False):
        self._script, self.number, self._searches_regions = script, 0, searches_regions

    def __call__(self, image):
        return detections(*[(x, y, x + 40, y + 40) for x, y in self._script[self.number]])

    def detect_roi(self, image, box):
        if not self._searches_regions:
            return None
        near = [(x, y) for x, y in self._script[self.number] if abs(x - box[0]) < 40]
        return detections(*[(x, y, x + 40, y + 40) for x, y in near])


def track_scripted(script, cuts=(), image=None, starts=None, searches_regions=False):
    """Return the left edges of the main face, None where there is none, and the tracker."""
    detector = ScriptedDetector(script, searches_regions)
    tracker, faces = FaceTracker(detector, starts), []
    image = np.full((200, 400, 3), 90, np.uint8) if image is None else image
    for detector.number in range(len(script)):
        faces.append(tracker(image, detector.number in cuts))
    return [None if face is None else float(face.box[0]) for face in faces], tracker


def test_a_bystander_is_not_taken_for_a_lost_face():
    script = [[(180, 80), (320, 80)] if not 10 <= i < 10 + MAX_GAP else [(320, 80)] for i in range(40)]
    lefts, tracker = track_scripted(script)
    assert lefts == [None if 10 <= i < 10 + MAX_GAP else 180.0 for i in range(40)]
    assert tracker.changes == []


def test_a_bystander_is_followed_when_the_main_face_is_gone_and_the_change_is_noted():
    lefts, tracker = track_scripted([[(180, 80), (320, 80)] if i < 10 else [(320, 80)] for i in range(40)])
    assert lefts == [180.0] * 10 + [None] * (MAX_GAP + 1) + [320.0] * (29 - MAX_GAP)
    assert tracker.changes == [(11 + MAX_GAP, Change.JUMP)]
    times = np.arange(40) / 25
    assert describe_changes(tracker.changes, times) == "the main face may change at 0.92 s (another place)"


def test_a_face_hidden_by_another_one_is_waited_for():
    def positions(i):
        left, right = (100 + 4 * i, 80), (260 - 4 * i, 84)
        return [left] if abs(left[0] - right[0]) < 60 else [left, right]

    # the face from the right is the main one: it is first alone
    script = [[(260, 84)]] + [positions(i) for i in range(40)]
    lefts, tracker = track_scripted(script)
    expected = [260.0] + [260.0 - 4 * i if len(positions(i)) == 2 else None for i in range(40)]
    assert lefts == expected
    assert lefts.count(None) > MAX_GAP
    # all is gray, so colors cannot tell whose face it is
    assert [change for _, change in tracker.changes] == [Change.MEETING]


def track_twice(script, cuts=(), **options):
    """Return the left edges of the main face of the second pass, of the only one if it needs no other, and its tracker."""
    lefts, tracker = track_scripted(script, cuts, **options)
    starts = tracker.better_starts()
    return track_scripted(script, cuts, starts=starts, **options) if starts else (lefts, tracker)


def test_the_main_face_is_the_one_that_is_there_for_much_longer():
    """The first one is nearer to the center, and leaves."""
    script = [[(180, 80)]] * 5 + [[(180, 80), (320, 80)]] * 10 + [[(320, 80)]] * 60
    assert track_scripted(script)[0][:15] == [180.0] * 15
    lefts, tracker = track_twice(script)
    assert lefts == [None] * 5 + [320.0] * 70
    assert tracker.changes == []
    times = np.arange(75) / 25
    note = describe_starts(tracker.starts, times)
    assert note == "another face was left out before the main one came at 0.20 s"
    assert describe_starts({}, times) == ""


def test_another_person_at_the_position_of_the_main_face_before_it_is_left_out():
    script = [[(180, 80), (320, 80)]] * 10 + [[(180, 80)]] * 20 + [[(180, 80), (320, 80)]] * 10 + [[(320, 80)]] * 80
    lefts, tracker = track_twice(script)
    assert {start.earliest for start in tracker.starts.values()} == {30}
    assert lefts == [None] * 30 + [320.0] * 90


def test_the_main_face_is_tracked_from_its_first_frame_if_it_was_detected_later():
    """While the region around one face is searched, others are seen only every FULL_DETECT_INTERVAL frames."""
    script = [[(180, 80)]] * 7 + [[(180, 80), (320, 80)]] * 30 + [[(320, 80)]] * 100
    lefts, tracker = track_twice(script, searches_regions=True)
    (start,) = tracker.starts.values()
    assert start.earliest < 7 < start.frame
    assert lefts == [None] * 7 + [320.0] * 130


def test_each_scene_has_its_own_main_face():
    scene = [[(180, 80), (320, 80)]] * 5 + [[(320, 80)]] * 40
    lefts, _ = track_twice([*scene, *[[(60, 80)]] * 20, *scene], cuts=(45, 65))
    assert lefts == [320.0] * 45 + [60.0] * 20 + [320.0] * 45


@pytest.mark.parametrize(
    "script",
    [
        [[(180, 80)]] * 60,
        [[(180, 80), (320, 80)]] * 60,
        [[(180, 80), (320, 80)]] * 40 + [[(320, 80)]] * 15,  # there for hardly longer
        [[(180, 80)]] * 10 + [[]] * 20 + [[(320, 80)]] * 60,  # perhaps the same person
        # lost for a time, and in all longer than the other one
        [[(180, 80), (320, 80)]] * 20 + [[(320, 80)]] * 5 + [[(100, 80), (320, 80)]] * 50,
        [],
    ],
)
def test_the_first_face_stays_the_main_one_unless_another_one_is_clearly_it(script):
    lefts, tracker = track_scripted(script)
    assert tracker.better_starts() == {}
    assert track_twice(script)[0] == lefts


def test_a_passer_by_is_left_out_of_the_features(photographs, random_encoder, tmp_path):
    detect = RetinaFace()
    six = photographs["six"]
    boxes = detect(six).boxes
    box = boxes[select_face(detect(six), None, six.shape)]
    frames = [six.copy() for _ in range(60)]
    x1, y1, x2, y2 = (box + np.array([-15, -30, 15, 15])).astype(int)
    for frame in frames[12:]:
        frame[y1:y2, x1:x2] = 120  # the most central one leaves
    path = write_video(tmp_path / "six.avi", frames, codec="MJPG")
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    (video,) = extract_videos([VideoJob("v", path)], detect, build_encoder(config), resolve_settings(config))
    assert (video.frame_status == FrameStatus.DETECTED).all()
    assert iou(video.box, box).max() < 0.3
    assert iou(video.box, video.box[0]).min() > 0.8
    assert len(video.features) == len(video.time) == 60
    assert video.note == "another face was left out before the main one came at 0.00 s"


def test_a_cut_forgets_the_face_and_notes_that_it_may_be_another_one():
    lefts, tracker = track_scripted([[(180, 80)]] * 5 + [[]] * 3 + [[(40, 80), (180, 80)]] * 5, cuts=(5,))
    assert lefts == [180.0] * 5 + [None] * 3 + [180.0] * 5
    assert tracker.changes == [(8, Change.SCENE_CUT)]
    assert describe_changes([(i, Change.JUMP) for i in range(9)], np.arange(9.0)).endswith(
        "(another place), 4 more times"
    )
    assert describe_changes([], []) == ""


def test_nothing_is_interpolated_across_a_cut():
    interpolator = GapInterpolator()
    script = [(face_at(0), False), (None, False), (None, False), (None, True), (None, False), (face_at(8), False)]
    output = [pair for face, is_cut in script for pair in interpolator.push("frame", face, is_cut)]
    faces = [face for _, face in [*output, *interpolator.flush()]]
    assert [face.status for face in faces[1:5]] == [FrameStatus.MISSING] * 4
    assert [float(face.box[0]) for face in faces] == [0, 0, 0, 8, 8, 8]  # each from its own scene


def heads_of(image, indices):
    """Return a head with hair (H, W, 3) per index of the faces from left to right, all of one height."""
    faces = RetinaFace()(image)
    boxes = faces.boxes[np.argsort(faces.boxes[:, 0])][list(indices)]
    margin = np.array([-0.35, -0.5, 0.35, 0.3])
    boxes = boxes + margin * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    parts = [image[int(y1) : int(y2), int(x1) : int(x2)] for x1, y1, x2, y2 in np.maximum(boxes, 0)]
    return [cv2.resize(part, (round(160 * part.shape[1] / part.shape[0]), 160)) for part in parts]


def test_the_main_face_is_not_exchanged_when_two_real_faces_cross(photographs):
    behind, front = heads_of(photographs["six"], (1, 4))
    tracker, centers, truth = FaceTracker(RetinaFace()), [], []
    for i in range(100):
        frame = np.full((240, 640, 3), (120, 130, 110), np.uint8)
        x = round(280 + 200 * np.cos(np.pi * i / 99))  # the one behind is nearer to the center at first
        frame[40:200, x : x + behind.shape[1]] = behind
        y = 20 + 5 * i
        if i >= 1:
            frame[40:200, y : y + front.shape[1]] = front[:, : 640 - y]
        face = tracker(frame)
        truth.append(x + behind.shape[1] / 2)
        centers.append(np.nan if face is None else face.box[[0, 2]].mean())
    detected = np.isfinite(centers)
    assert detected.mean() > 0.6
    assert np.abs(np.array(centers) - truth)[detected].max() < 40  # never the face in front
    assert detected[:20].all()
    assert detected[-20:].all()
