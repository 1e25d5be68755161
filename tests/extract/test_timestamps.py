"""Repair of times: whatever a container gives, times are finite and increase, and right ones are kept."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.video import encode_video
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ceflpipe.cache.features import frame_edges
from ceflpipe.stages.extract.timestamps import DEFAULT_FPS, ShownTimes, describe_gaps, increasing_indices, repair_times
from ceflpipe.stages.extract.video_reader import open_video

ANY_TIMES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([float("nan"), float("inf"), 0.0])), max_size=60)
GAPS = st.lists(st.floats(0.002, 30), min_size=1, max_size=60)


@given(ANY_TIMES, st.floats(allow_nan=True))
@example([0.0, 0.0, 0.0], 1e-308)
def test_times_are_finite_and_increase_whatever_is_given(times, fps):
    repaired, note = repair_times(times, fps)
    assert len(repaired) == len(times)
    assert np.isfinite(repaired).all()
    assert (np.diff(repaired) > 0).all()
    assert (repaired >= 0).all()
    if len(times) > 1:
        unchanged = np.array_equal(repaired, times) or (
            times[0] < 0 and np.array_equal(repaired, np.array(times) - times[0])
        )
        assert unchanged == (note == "") or not note.startswith("times not usable")


@given(GAPS, st.floats(-10, 10))
def test_right_times_are_returned_as_they_are_unless_they_begin_before_the_file(gaps, start):
    times = start + np.cumsum(gaps)
    repaired, note = repair_times(times, 25)
    np.testing.assert_array_equal(repaired, times if times[0] >= 0 else times - times[0])
    assert note == ""


@given(GAPS.filter(lambda gaps: len(gaps) > 5), st.data())
def test_single_wrong_times_lie_between_their_neighbors(gaps, data):
    times = np.cumsum(gaps)
    wrong = data.draw(st.integers(2, len(times) - 2))
    damaged = times.copy()
    damaged[wrong] = data.draw(st.sampled_from([float("nan"), times[wrong - 1], 0.0, 1e9, -5.0]))
    repaired, note = repair_times(damaged, 25)
    others = np.arange(len(times)) != wrong
    np.testing.assert_array_equal(repaired[others], times[others])
    assert times[wrong - 1] < repaired[wrong] < times[wrong + 1]
    assert note == f"1 of {len(times)} times missing or not increasing: interpolated"


@pytest.mark.parametrize(
    "times", [[0.0] * 30, [float("nan")] * 30, [i / 2000 for i in range(30)], list(range(30, 0, -1))]
)
def test_unusable_times_become_the_given_rate_and_are_named(times):
    repaired, note = repair_times(times, 50)
    np.testing.assert_allclose(repaired, np.arange(30) / 50)
    assert note.startswith("times not usable")
    assert note.endswith("50 frames per second assumed")
    repaired, note = repair_times(times, 837.0)
    np.testing.assert_allclose(repaired, np.arange(30) / DEFAULT_FPS)
    assert note.endswith("25 frames per second assumed")


def test_a_camera_of_1000_frames_per_second_keeps_its_times():
    times = np.arange(300) / 1000
    assert repair_times(times, 1000)[1] == ""


def test_the_last_frame_lasts_as_long_as_the_one_before_but_not_longer_than_usual():
    assert frame_edges(np.array([0, 0.5, 5.0, 5.04]), 0.6)[-1] == pytest.approx(5.08)
    assert frame_edges(np.array([0, 0.1, 0.2, 60.2]), 0.05)[-1] == pytest.approx(80.2)
    assert frame_edges(np.array([1.0]), 25).tolist() == [1.0, 1.04]


def test_missing_times_at_the_ends_are_continued():
    times = [float("nan"), float("nan"), 1.0, 1.1, 1.2, 1.3, float("nan")]
    np.testing.assert_allclose(repair_times(times, 25)[0], [0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4])
    times = [float("nan"), float("nan"), 0.05, 0.15, 0.25, 0.35]  # as of a Matroska file that begins before zero
    np.testing.assert_allclose(repair_times(times, 25)[0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-12)


@given(st.integers(0, 3), st.sets(st.integers(8, 40)), st.integers(0, 4), st.booleans())
def test_a_frame_has_the_time_of_its_packet_though_others_give_none(depth, lost, first, is_reported):
    """A decoder that holds ``depth`` frames back begins with packet ``first``, and some after its first frame give none, with
    an error or not."""
    clock, held, times, expected = ShownTimes(), [], [], []
    for dts in range(60):
        if dts < first or dts in lost:
            if not is_reported:
                assert clock(dts, 0, depth) == []
            continue
        held.append(dts)
        shown = [held.pop(0)] if len(held) > depth else []
        expected += shown
        times += clock(dts, len(shown), depth)
    times += clock(None, len(held), 0)
    assert times == expected + held


@given(st.lists(st.integers(0, 8).map(float), max_size=9))
def test_no_increasing_series_is_longer(values):
    series = increasing_indices(np.array(values))
    assert (np.diff(np.array(values)[series]) > 0).all()
    lengths = [
        len(choice)
        for size in range(len(values) + 1)
        for choice in itertools.combinations(values, size)
        if all(a < b for a, b in itertools.pairwise(choice))
    ]
    assert len(series) == max(lengths)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 4000), min_size=1, max_size=25),
    name=st.sampled_from(["mkv", "mp4", "nut", "webm", "mov"]),
)
def test_written_times_are_read_to_the_millisecond(tmp_path, gaps, name):
    ticks = np.cumsum([0, *gaps]).tolist()
    images = [np.full((32, 48, 3), 10 * (i % 20), np.uint8) for i in range(len(ticks))]
    path = encode_video(tmp_path / f"a.{name}", images, codec="libvpx" if name == "webm" else "mpeg4", ticks=ticks)
    times = [frame.time for frame in open_video(path).frames()]
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=1e-6)


def transport_stream(path, starts):
    """Write MPEG-TS parts of ten frames that start at the given seconds, one after the other, to one file."""
    content = b""
    for number, start in enumerate(starts):
        part = encode_video(path.with_name(f"part{number}.ts"), IMAGES, codec="mpeg2video")
        with av.open(str(part)) as source, av.open(str(part.with_suffix(".moved.ts")), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    ticks = round(start / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, stream
                    target.mux(packet)
        content += part.with_suffix(".moved.ts").read_bytes()
    path.write_bytes(content)
    return path


IMAGES = [np.full((64, 96, 3), 20 * i, np.uint8) for i in range(10)]


@pytest.mark.parametrize("shift", [5000.0, 60.0, -0.4 * 3])
def test_a_jump_of_a_transport_stream_is_taken_out_and_named(tmp_path, shift):
    reader = open_video(transport_stream(tmp_path / "a.ts", [10 + i * (0.4 + shift) for i in range(3)]))
    times = np.array([frame.time for frame in reader.frames()])
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.002)
    assert len(times) == 30
    assert f"timestamps jump by {shift:+.1f} s at 0.40 s" in reader.remarks()
    assert reader.truncation() == ""


def test_times_that_wrap_around_go_on(tmp_path):
    """The clock of MPEG streams has 33 bits: it begins again after 26.5 hours."""
    wrap = Fraction(1 << 33, 90_000)
    reader = open_video(transport_stream(tmp_path / "a.ts", [wrap - Fraction(6, 25) - Fraction(7, 5)]))
    np.testing.assert_allclose([frame.time for frame in reader.frames()], np.arange(10) / 25, atol=0.002)
    assert reader.remarks() == ""


def test_a_long_gap_is_noted_unless_it_is_usual():
    assert describe_gaps(np.array([0, 0.1, 0.2, 60.2, 60.3])) == "no frame from 0.20 to 60.20 s"
    assert describe_gaps(np.arange(0, 600, 20.0)) == ""
    assert describe_gaps(np.array([0, 0.1, 5.0])) == describe_gaps(np.zeros(0)) == ""
