"""Scene cuts: marked at their frame, whatever the faces; never in motion, flashes, fades and noise."""

import itertools

import cv2
import numpy as np
import pytest
import skimage.data
from helpers.fake_videos import performance
from helpers.video import panning, write_video
from sklearn.datasets import load_sample_image

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


def synthetic_scene(rng):
    """Return an image (480, 640, 3): a wall and a floor with texture, things of one color, and a person."""
    image = (
        np.ones((480, 640, 3), np.float32)
        * rng.uniform(0.1, 0.9, 3)
        * np.linspace(0.8, rng.uniform(0.8, 1.2), 480)[:, None, None]
    )
    horizon = int(rng.integers(240, 420))
    image[horizon:] = rng.uniform(0.05, 0.8, 3)
    texture = rng.random((480 // int(rng.integers(6, 60)), 12, 3)).astype(np.float32)
    image += 0.15 * (cv2.resize(texture, (640, 480), interpolation=cv2.INTER_CUBIC) - 0.5)
    image = np.ascontiguousarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    for _ in range(int(rng.integers(2, 9))):
        x, y, width, height = (int(value) for value in (*rng.integers(0, 500, 2), *rng.integers(20, 160, 2)))
        color = rng.integers(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + width, y + height), color, -1)
        else:
            cv2.ellipse(image, (x, y), (width // 2, height // 2), float(rng.integers(180)), 0, 360, color, -1)
    x, y, radius = int(rng.integers(200, 440)), int(rng.integers(140, 260)), int(rng.integers(50, 110))
    cv2.ellipse(
        image, (x, y + 2 * radius), (int(1.6 * radius), radius), 0, 0, 360, rng.integers(0, 255, 3).tolist(), -1
    )
    cv2.ellipse(
        image,
        (x, y),
        (int(0.75 * radius), radius),
        0,
        0,
        360,
        rng.integers((120, 80, 60), (245, 215, 195)).tolist(),
        -1,
    )
    for side in (-1, 1):
        cv2.circle(image, (x + side * radius // 3, y - radius // 6), radius // 9, (20, 20, 20), -1)
    return cv2.GaussianBlur(image, (0, 0), 1)


def camera_shot(image, rng, count=16, zoom=0.0):
    """Return ``count`` frames of a camera that pans and zooms, with the noise of a sensor."""
    position, speed, frames = rng.uniform(40, 80, 2), rng.uniform(-2, 2, 2), []
    noise = rng.normal(0, 4, (120, 160, 3)).round().astype(np.int16)
    for number in range(count):
        width, height = (round(side / (1 + zoom * number)) for side in (400, 300))
        x, y = (position + speed * number).astype(int)
        frame = cv2.resize(image[y : y + height, x : x + width], (160, 120))
        frames.append(np.clip(frame + np.roll(noise, 7 * number, 0), 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def held_out():
    """Images on which no threshold was set: drawn rooms, and photographs of scikit-image and scikit-learn."""
    photographs = [getattr(skimage.data, name)() for name in ("chelsea", "coffee", "rocket")]
    photographs += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    generated = [synthetic_scene(np.random.default_rng(seed)) for seed in range(6)]
    return [*generated, *(cv2.resize(image, (640, 480)) for image in photographs)]


def test_cuts_between_images_that_were_not_used_to_set_the_thresholds(held_out):
    rng = np.random.default_rng(0)
    pairs = [pair for pair in itertools.permutations(range(len(held_out)), 2) if sum(pair) % 4 == 0]
    results = [cuts_of([*camera_shot(held_out[a], rng, 8), *camera_shot(held_out[b], rng, 8)]) for a, b in pairs]
    assert len(results) > 20
    assert sum(cuts == [8] for cuts in results) >= 0.98 * len(results)


def test_no_cut_within_a_scene_that_was_not_used_to_set_the_thresholds(held_out):
    def bright(frame, factor, offset=0):
        return np.clip(frame * factor + offset, 0, 255).astype(np.uint8)

    rng, results = np.random.default_rng(1), {}
    for number, image in enumerate(held_out):
        frames = camera_shot(image, rng)
        change, dark, light, tint = (
            rng.integers(4, 9),
            rng.uniform(0.3, 0.7),
            rng.uniform(1.2, 1.6),
            rng.uniform(0.6, 1.3, 3),
        )
        others = camera_shot(held_out[number - 1], rng)
        weights = np.clip((np.arange(16) - 3) / rng.integers(6, 11), 0, 1)
        scenes = {
            "pan": frames,
            "zoom": camera_shot(image, rng, zoom=0.04),
            "flash": flash(frames, 2, lambda frame: bright(frame, 2, 60)),
            "lamp off": [bright(frame, dark if i >= change else 1) for i, frame in enumerate(frames)],
            "lamp on": [bright(frame, light if i >= change else 1) for i, frame in enumerate(frames)],
            "colored lamp": [bright(frame, tint if i >= change else 1) for i, frame in enumerate(frames)],
            "fade in": [bright(frame, min(1, i / 8)) for i, frame in enumerate(frames)],
            "fade out": [bright(frame, max(0, 1 - i / 8)) for i, frame in enumerate(frames)],
            "dissolve": [cv2.addWeighted(a, 1 - w, b, w, 0) for a, b, w in zip(frames, others, weights, strict=True)],
        }
        results |= {(number, name): cuts_of(scene) for name, scene in scenes.items()}
    wrong = {key: cuts for key, cuts in results.items() if cuts}
    assert len(wrong) <= 0.02 * len(results), wrong


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
