"""Scene cuts: marked at their frame, whatever the faces; never in motion, flashes, fades and noise."""

import itertools

import cv2
import numpy as np
import pytest
from helpers.fake_videos import performance
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob, extract_videos
from ceflpipe.stages.extract.scene_cuts import mark_scene_cuts

SIZE = (320, 240)


def cuts_of(frames):
    marked = list(mark_scene_cuts(list(enumerate(frames)), lambda frame: frame[1]))
    assert [number for (number, _), _ in marked] == list(range(len(frames)))  # every frame, in order
    return [number for (number, _), is_cut in marked if is_cut]


@pytest.fixture(scope="module")
def scenes(photographs):
    """Five scenes of 12 frames that move a little, and two actors before their own backgrounds."""
    six, astronaut = photographs["six"], cv2.resize(photographs["astronaut"], None, fx=1.4, fy=1.4)
    starts = [(six, (0, 150)), (six, (330, 100)), (six, (700, 200)), (six, (900, 500)), (astronaut, (60, 0))]
    scenes = [panning(image, 12, SIZE, start, (start[0] + 20, start[1] + 8)) for image, start in starts]
    actors = [[cv2.resize(frame, SIZE) for frame in performance(subject, "fear", 12)] for subject in (1, 3)]
    return [*scenes, *actors]


def test_every_cut_is_marked_at_its_frame(scenes):
    for first, second in itertools.permutations(scenes, 2):
        assert cuts_of([*first, *second]) == [12]
    assert cuts_of([frame for scene in scenes for frame in scene]) == [12, 24, 36, 48, 60, 72]


def test_a_cut_is_marked_near_both_ends_and_in_other_sizes(scenes):
    first, second = scenes[0], scenes[4]
    assert cuts_of([first[0], *second]) == [1]
    assert cuts_of([*first, second[0]]) == [12]
    for size in ((20, 30), (1300, 900)):
        assert cuts_of([cv2.resize(frame, size) for frame in [*first, *second]]) == [12]
    assert [cuts_of(first[:count]) for count in range(8)] == [[]] * 8


def flash(frames, count, change):
    return [change(frame) if 5 <= number < 5 + count else frame for number, frame in enumerate(frames)]


def brighten(frame):
    return np.clip(frame.astype(float) * 2.5 + 40, 0, 255).astype(np.uint8)


def test_flashes_and_changes_of_light_are_no_cuts(scenes):
    for scene in scenes:
        for count in (1, 2, 3):
            for change in (brighten, lambda frame: np.full_like(frame, 250), np.zeros_like):
                assert cuts_of(flash(scene, count, change)) == []
        assert cuts_of(flash(scene, 99, lambda frame: frame // 2)) == []  # a lamp goes out, for good


def test_fades_and_dissolves_are_no_cuts(scenes):
    for scene in scenes:
        for length in (6, 12):
            fade = [(frame * min(1.0, number / length)).astype(np.uint8) for number, frame in enumerate(scene)]
            assert cuts_of(fade) == []
            assert cuts_of(fade[::-1]) == []
    for first, second in itertools.pairwise(scenes):
        weights = np.linspace(0, 1, 12)
        mixed = [cv2.addWeighted(a, 1 - w, b, w, 0) for a, b, w in zip(first, second, weights, strict=True)]
        assert cuts_of([first[0], *mixed, second[-1]]) == []


def test_fast_motion_is_no_cut(photographs, scenes):
    six = photographs["six"]
    wide = np.hstack([six, six[:, ::-1]])
    for step in (40, 120, 250):  # pixels per frame, of a picture 640 pixels wide, between two rests
        count = 1700 // step
        pan = panning(wide, count, (640, 360), (0, 100), (step * (count - 1), 100))
        assert cuts_of([pan[0]] * 8 + pan + [pan[-1]] * 8) == [], step
    for scene in scenes:
        covered = []
        for number, frame in enumerate(scene):  # an arm passes the camera within four frames
            covered.append(frame.copy())
            covered[-1][:, max(0, (number - 6) * 110) : max(0, (number - 4) * 110)] = (60, 40, 30)
        assert cuts_of(covered) == []
        assert cuts_of([frame for frame in scene[::3] for _ in range(3)]) == []  # a third of the frame rate
        generator = np.random.default_rng(1)
        noisy = [np.clip(frame + generator.normal(0, 25, frame.shape), 0, 255).astype(np.uint8) for frame in scene]
        assert cuts_of(noisy) == []
        shaken = [np.roll(frame, tuple(generator.integers(-15, 16, 2)), (0, 1)) for frame in scene]
        assert cuts_of(shaken) == []


def test_a_cut_ends_the_track_of_the_main_face_and_is_noted(photographs, random_encoder, tmp_path):
    """Two faces in the same place, one before and one after the cut, with a few frames without a face on both sides."""
    config = ExtractConfig(encoder=random_encoder, crop_size=64)
    detect = build_detector(config)
    astronaut, six = cv2.resize(photographs["astronaut"], None, fx=0.9, fy=0.9), photographs["six"]
    centers = [detect(image).boxes[0].reshape(2, 2).mean(axis=0) for image in (astronaut, six)]
    corner = tuple((centers[1] - centers[0] + (40, 0)).round().astype(int))
    scenes = [
        panning(image, 16, SIZE, (x, y), (x + 4, y + 4)) for image, (x, y) in ((astronaut, (40, 0)), (six, corner))
    ]
    covered = [*scenes[0][-4:], *scenes[1][:4]]
    x1, y1, x2, y2 = detect(scenes[0][0]).boxes[0].astype(int)
    for frame in covered:
        frame[max(0, y1 - 10) : y2 + 10, x1 - 10 : x2 + 10] = 120  # something passes the face
    frames = [*scenes[0][:-4], *covered, *scenes[1][4:]]
    path = write_video(tmp_path / "cut.avi", frames, codec="MJPG")
    (video,) = extract_videos([VideoJob("v", path)], detect, build_encoder(config), resolve_settings(config))
    before, after = video.box[11], video.box[20]
    overlap = np.minimum(before[2:], after[2:]) - np.maximum(before[:2], after[:2])
    assert (overlap > 0).all()  # the second face is where the first was
    assert (video.frame_status[12:20] == FrameStatus.MISSING).all()
    assert (np.delete(video.frame_status, range(12, 20)) == FrameStatus.DETECTED).all()
    assert (video.status, video.note) == ("ok", "the main face may change at 0.80 s (scene cut)")
