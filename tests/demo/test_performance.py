"""Performances: one brief peak, its apex the peak frame, distractors outside it, eyes open at it; neutral has no peak."""

import dataclasses

import numpy as np
import pytest

from ceflpipe.stages.demo.action_units import EXPRESSIONS, PROTOTYPES, non_prototype_units
from ceflpipe.stages.demo.actor import make_actor
from ceflpipe.stages.demo.performance import MIN_FRAMES, NEUTRAL_VARIATION, sample_performance
from ceflpipe.stages.demo.render import NUM_BACKGROUNDS, Camera, render_frame


@pytest.mark.parametrize("label", EXPRESSIONS)
@pytest.mark.parametrize("num_frames", [60, 83, 100])
def test_performances_peak_once_and_briefly(label, num_frames):
    for seed in range(20):
        performance = sample_performance(label, np.random.default_rng(seed), num_frames)
        intensity = performance.intensity
        assert len(performance.units) == len(performance.cameras) == len(intensity) == num_frames
        assert int(intensity.argmax()) == performance.apex
        assert (intensity == intensity.max()).sum() == 1
        assert 0.25 <= performance.apex / num_frames <= 0.75
        assert 0.69 <= intensity.max() <= 1.1
        assert (intensity > 0.02).mean() <= 0.36
        assert 4 <= (intensity > 0.9 * intensity.max()).sum() <= 16
        assert intensity[0] == intensity[-1] == 0
        rising, falling = np.diff(intensity[: performance.apex + 1]), np.diff(intensity[performance.apex :])
        assert (rising >= 0).all()
        assert (falling <= 0).all()


@pytest.mark.parametrize("label", EXPRESSIONS)
def test_the_apex_is_the_frame_whose_expression_changes_the_face_most(label):
    """Measured in pixels, by a camera that stands still and apart from units of other expressions."""
    performance = sample_performance(label, np.random.default_rng(8), 60)
    prototype, camera = PROTOTYPES[label], Camera(noise_std=0)
    rest = render_frame(make_actor(5), {}, camera)[0].astype(int)
    changes = []
    for units in performance.units:
        image = render_frame(make_actor(5), {unit: units.get(unit, 0.0) for unit in prototype}, camera)[0]
        changes.append(np.abs(image - rest).sum())
    peak = np.flatnonzero(np.array(changes) >= 0.995 * max(changes))
    assert performance.apex in peak  # units that reach their greatest intensity stay equal for a few frames
    assert np.ptp(peak) <= 10


def test_the_same_generator_gives_the_same_performance():
    one, other = (sample_performance("anger", np.random.default_rng(4), 60) for _ in range(2))
    assert one.units == other.units
    assert one.cameras == other.cameras
    assert one.units != sample_performance("anger", np.random.default_rng(5), 60).units


def test_performances_hold_distractors_outside_the_event():
    videos = 0
    for seed in range(30):
        performance = sample_performance("happiness", np.random.default_rng(seed), 80)
        others = non_prototype_units("happiness")
        outside = [
            units for units, strength in zip(performance.units, performance.intensity, strict=True) if strength == 0
        ]
        resting = {unit: min(units.get(unit, 0.0) for units in outside) for unit in others}
        assert max(resting.values()) <= NEUTRAL_VARIATION
        videos += any(units.get(unit, 0) > resting[unit] + 0.25 for units in outside for unit in others)
    assert videos > 20


def has_flicker(label: str, seed: int, num_frames: int = 80) -> bool:
    """Return whether outside the event a unit of another expression rises well above its resting intensity."""
    performance = sample_performance(label, np.random.default_rng(seed), num_frames)
    outside = [units for units, strength in zip(performance.units, performance.intensity, strict=True) if strength == 0]
    curves = np.array([[units.get(unit, 0.0) for unit in non_prototype_units(label)] for units in outside])
    return bool((np.ptp(curves, axis=0) > 0.25).any())


def test_a_neutral_performance_has_no_apex_and_never_an_expression():
    """At rest and in a flicker at most two units of an expression that has more are active together at full strength."""
    for seed in range(30):
        performance = sample_performance("neutral", np.random.default_rng(seed), 80)
        assert performance.apex is None
        assert len(performance.units) == len(performance.cameras) == len(performance.intensity) == 80
        assert not performance.intensity.any()
        for prototype in map(PROTOTYPES.get, EXPRESSIONS):
            assert prototype
            strength = [np.mean([min(units.get(unit, 0.0), 1.0) for unit in prototype]) for units in performance.units]
            assert max(strength) < 0.7  # an expression at its apex: 0.7 or more, with all of its units
            assert np.mean(strength) < 0.3


def test_a_neutral_face_flickers_and_blinks_as_the_others_do():
    seeds = range(30)
    assert sum(has_flicker("neutral", seed) for seed in seeds) >= sum(has_flicker("fear", seed) for seed in seeds) > 20
    shut = [
        max(units.get(45, 0.0) for units in sample_performance("neutral", np.random.default_rng(seed), 90).units)
        for seed in seeds
    ]
    assert (np.array(shut) > 0.9).sum() > 20


def test_eyes_blink_but_not_at_the_apex():
    blinks = 0
    for seed in range(30):
        performance = sample_performance("fear", np.random.default_rng(seed), 90)
        shut = np.array([units.get(45, 0.0) for units in performance.units])
        assert shut[performance.intensity > 0.5 * performance.intensity.max()].max() < 0.5
        assert shut[performance.apex] == 0
        blinks += (shut > 0.9).any()
    assert blinks > 20


def test_cameras_stay_in_their_ranges_and_move_smoothly():
    for seed in range(30):
        cameras = sample_performance("sadness", np.random.default_rng(seed), 90).cameras
        poses = np.array([(camera.yaw, camera.pitch, camera.roll) for camera in cameras])
        assert (np.abs(poses) <= (20, 12, 12)).all()
        assert np.abs(np.diff(poses, axis=0)).max() < 2
        assert 0 <= cameras[0].background < NUM_BACKGROUNDS
        assert len({dataclasses.astuple(camera)[6] for camera in cameras}) == 1  # contrast


def test_too_short_a_performance_is_refused():
    sample_performance("fear", np.random.default_rng(0), MIN_FRAMES)
    with pytest.raises(ValueError, match="24 frames"):
        sample_performance("fear", np.random.default_rng(0), MIN_FRAMES - 1)
