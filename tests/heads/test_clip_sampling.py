"""Section 4.1 of the paper, by counting slots one at a time."""

import numpy as np
import pytest
import torch

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.clip_sampling import (
    NUM_SLOTS,
    check_sampling,
    clip_frame_spans,
    sample_clips_test,
    sample_clips_train,
    slot_to_frame,
    span,
    start_count,
    unique_frames,
    view_starts,
)


def frame_of_slot(slot: int, length: int, longer: str) -> int:
    """The rule in words, as plain arithmetic: the frame whose share of the video holds the slot's middle."""
    if length <= NUM_SLOTS or longer == "resample":
        return int(np.floor((slot + 0.5) * length / NUM_SLOTS))
    return slot + (length - NUM_SLOTS) // 2 if longer == "center" else slot


def test_the_papers_numbers():
    assert span(7) == 75
    assert start_count(7) == 30
    assert start_count(9) == 11  # 95 slots leave starts 0 … 10
    assert view_starts(7, 1) == [15]


@pytest.mark.parametrize("longer", ["clip", "center", "resample"])
@pytest.mark.parametrize("length", [1, 2, 16, 74, 104, 105, 106, 300])
def test_slots_map_to_frames(length, longer):
    slots = torch.arange(NUM_SLOTS)
    got = slot_to_frame(slots, torch.full((NUM_SLOTS,), length), longer)
    assert got.tolist() == [frame_of_slot(s, length, longer) for s in range(NUM_SLOTS)]
    assert got.min() >= 0
    assert got.max() < length
    assert (got.diff() >= 0).all()  # time never runs backwards
    if length <= NUM_SLOTS:
        assert set(got.tolist()) == set(range(length))  # no frame is lost


def test_test_view_is_that_of_the_released_code():
    got = sample_clips_test(torch.tensor([105]), 7, 5)
    assert got[0].tolist() == [[15 + 10 * i + j for j in (0, 3, 6, 9, 12)] for i in range(7)]


@pytest.mark.parametrize(("clips", "frames"), [(7, 5), (1, 1), (10, 15), (9, 2)])
def test_training_draws(clips, frames):
    lengths = torch.tensor([105] * 200)
    got = sample_clips_train(lengths, clips, frames, torch.Generator().manual_seed(1))
    assert got.shape == (200, clips, frames)
    # with 105 frames a slot is a frame, so starts and offsets can be read off
    assert (got.diff(dim=-1) > 0).all()  # distinct, in time order
    starts = set()
    for video in got.tolist():
        possible = [
            s for s in range(start_count(clips))
            if all(s + 10 * i <= f <= s + 10 * i + 14 for i, clip in enumerate(video) for f in clip)
        ]  # fmt: skip
        assert possible, "no start explains these frames"
        starts.update(possible)
    assert max(starts) == start_count(clips) - 1
    assert min(starts) == 0


def test_every_slot_of_a_sub_video_is_drawn_equally_often():
    got = sample_clips_train(torch.tensor([105] * 3000), 1, 5, torch.Generator().manual_seed(0))
    first = got[:, 0, 0]
    offsets = (got[:, 0] - first[:, None]).flatten()
    assert offsets.max() == 14
    again = sample_clips_train(torch.tensor([105] * 3000), 1, 5, torch.Generator().manual_seed(0))
    assert torch.equal(got, again)


def test_sub_video_frames_hold_all_drawn_frames():
    lengths = torch.tensor([40, 77, 105, 200])
    drawn = sample_clips_test(lengths, 7, 15)
    ends = clip_frame_spans(lengths, 7)
    assert torch.equal(drawn.amin(-1), ends[..., 0])
    assert torch.equal(drawn.amax(-1), ends[..., 1])


@pytest.mark.parametrize(
    ("clips", "frames", "words"), [(11, 5, "115 of 105"), (0, 5, "clips 0"), (7, 16, "frames 16"), (7, 0, "frames 0")]
)
def test_what_does_not_fit_is_refused_with_the_numbers(clips, frames, words):
    with pytest.raises(CeflError, match=words):
        check_sampling(clips, frames)


@pytest.mark.parametrize(("clips", "frames"), [(1, 1), (7, 5), (9, 15)])
def test_each_frame_of_a_video_stands_once_among_the_distinct_ones(clips, frames):
    lengths = torch.tensor([1, 20, 64, 105, 400])
    drawn = sample_clips_train(lengths, clips, frames, torch.Generator().manual_seed(3))
    got = unique_frames(drawn)
    most = max(len(set(video.flatten().tolist())) for video in drawn)
    assert got.unique.shape == (5, most)
    for video, distinct, place in zip(drawn, got.unique, got.inverse, strict=True):
        expected = sorted(set(video.flatten().tolist()))
        assert distinct.tolist() == expected + [0] * (most - len(expected))
        assert distinct[place].tolist() == video.tolist()
