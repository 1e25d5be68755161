"""Section 4.1 of the paper, against counting slots one by one."""

import numpy as np
import pytest
import torch

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.clip_sampling import (
    check_sampling,
    clip_frame_spans,
    map_start,
    sample_clips_test,
    sample_clips_train,
    slot_to_frame,
    unique_frames,
    view_starts,
)
from ceflpipe.stages.heads.predictions import clips_with_apex
from ceflpipe.stages.heads.train_config import TrainConfig
from ceflpipe.stages.slots import NUM_SLOTS, num_covered_slots, num_starts


def frame_of_slot(slot: int, length: int, long_videos: str) -> int:
    """The frame at the center of the slot, if slots and frames divide the video evenly; else the slot plus an offset."""
    if length <= NUM_SLOTS or long_videos == "resample":
        return int(np.floor((slot + 0.5) * length / NUM_SLOTS))
    return slot + (length - NUM_SLOTS) // 2 if long_videos == "center" else slot


def test_the_papers_numbers():
    assert num_covered_slots(7) == 75
    assert num_starts(7) == 30
    assert num_starts(9) == 11  # 95 slots leave starts 0 … 10
    assert view_starts(7, 1) == [15]


@pytest.mark.parametrize("long_videos", ["first", "center", "resample"])
@pytest.mark.parametrize("length", [1, 2, 16, 74, 104, 105, 106, 300])
def test_slots_map_to_frames(length, long_videos):
    slots = torch.arange(NUM_SLOTS)
    got = slot_to_frame(slots, torch.full((NUM_SLOTS,), length), long_videos)
    assert got.tolist() == [frame_of_slot(s, length, long_videos) for s in range(NUM_SLOTS)]
    assert got.min() >= 0
    assert got.max() < length
    assert (got.diff() >= 0).all()  # time never runs backwards
    if length <= NUM_SLOTS:
        assert set(got.tolist()) == set(range(length))  # no frame is lost


def test_test_view_is_that_of_the_released_code():
    got = sample_clips_test(torch.tensor([105]), 7, 5)
    assert got[0].tolist() == [[15 + 10 * i + j for j in (0, 3, 6, 9, 12)] for i in range(7)]


@pytest.mark.parametrize(("clips", "frames"), [(7, 5), (1, 1), (10, 15), (9, 2)])
def test_training_samples(clips, frames):
    lengths = torch.tensor([105] * 200)
    got = sample_clips_train(lengths, clips, frames, torch.Generator().manual_seed(1))
    assert got.shape == (200, clips, frames)
    # with 105 frames a slot is a frame, so starts and offsets can be read off
    assert (got.diff(dim=-1) > 0).all()  # distinct, in time order
    starts = set()
    for video in got.tolist():
        possible = [
            s
            for s in range(num_starts(clips))
            if all(s + 10 * i <= f <= s + 10 * i + 14 for i, clip in enumerate(video) for f in clip)
        ]
        assert possible, "no start gives these frames"
        starts.update(possible)
    assert max(starts) == num_starts(clips) - 1
    assert min(starts) == 0


def test_samples_span_a_full_clip_and_the_same_seed_gives_the_same():
    got, again = (
        sample_clips_train(torch.tensor([105] * 3000), 1, 5, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert (got[:, 0] - got[:, 0, :1]).max() == 14
    assert torch.equal(got, again)


def test_every_slot_of_a_clip_is_sampled_equally_often():
    """Of 10 clips of 105 frames only start 0 fits, so a frame minus 10 i is its slot in clip i."""
    got = sample_clips_train(torch.tensor([105] * 3000), 10, 5, torch.Generator().manual_seed(0))
    slots = (got - 10 * torch.arange(10)[:, None]).flatten()
    fractions = torch.bincount(slots, minlength=15) / len(slots)
    torch.testing.assert_close(fractions, torch.full((15,), 1 / 15), rtol=0.05, atol=0)


def test_clip_spans_are_the_first_and_last_frames_of_clips_with_all_slots():
    lengths = torch.tensor([40, 77, 105, 200])
    frames, spans = sample_clips_test(lengths, 7, 15), clip_frame_spans(lengths, 7)
    assert torch.equal(frames.amin(-1), spans[..., 0])
    assert torch.equal(frames.amax(-1), spans[..., 1])


@pytest.mark.parametrize("clips", [1, 3, 7, 9, 10])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_the_test_view_end_reaches_the_last_frame(clips, views):
    """The last clip of the view whose map is reported ends with slot 104; that of the middle view does with 10 clips only."""
    for test_view in ("middle", "end"):
        config = TrainConfig(num_clips=clips, test_view=test_view)
        start = map_start(config, views)
        last_slot = start + 10 * (clips - 1) + 14
        assert start in view_starts(clips, views, test_view)
        assert (last_slot == 104) == (test_view == "end" or clips == 10)
        for length in (1, 7, 71, 104, 105):
            hits = clips_with_apex(length, length - 1, config, start)
            slots = [[start + 10 * n + i for i in range(15)] for n in range(clips)]
            assert hits == [any(frame_of_slot(s, length, "first") == length - 1 for s in clip) for clip in slots]
            assert test_view == "middle" or hits[-1]


@pytest.mark.parametrize(
    ("clips", "frames", "words"), [(11, 5, "115 of 105"), (0, 5, "clips 0"), (7, 16, "frames 16"), (7, 0, "frames 0")]
)
def test_clips_that_do_not_fit_are_refused_with_the_numbers(clips, frames, words):
    with pytest.raises(CeflError, match=words):
        check_sampling(clips, frames)


@pytest.mark.parametrize(("clips", "frames"), [(1, 1), (7, 5), (9, 15)])
def test_unique_frames_are_the_sorted_set_of_each_video(clips, frames):
    lengths = torch.tensor([1, 20, 64, 105, 400])
    sampled = sample_clips_train(lengths, clips, frames, torch.Generator().manual_seed(3))
    got = unique_frames(sampled)
    max_unique = max(len(set(video.flatten().tolist())) for video in sampled)
    assert got.unique.shape == (5, max_unique)
    for video, unique, inverse in zip(sampled, got.unique, got.inverse, strict=True):
        expected = sorted(set(video.flatten().tolist()))
        assert unique.tolist() == expected + [0] * (max_unique - len(expected))
        assert unique[inverse].tolist() == video.tolist()
