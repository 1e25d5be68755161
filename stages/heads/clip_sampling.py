"""Clip sampling (section 4.1 of the paper) as arithmetic on frame indices.

A video of T frames is mapped to 105 slots, a start slot is drawn, n clips (the paper's sub-videos) of 15 slots follow at a
stride of 10 (5 shared with the neighbor), and k of the 15 slots of each are sampled. Nothing here reads a feature: the
result is an index array into the cached frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ...cache.errors import CeflError
from ..slots import CLIP_LENGTH, CLIP_STRIDE, NUM_SLOTS, num_covered_slots, num_starts
from .train_config import LongVideos, TestView, TrainConfig


@dataclass(frozen=True)
class ClipIndices:
    """Frames of the clips of videos: ``frames`` (..., n, k), counted from each video's first frame.

    Clips overlap and short videos repeat frames, so a frame may occur several times. ``unique`` (..., u) has each frame of
    a video once, in order, padded with frame 0; ``inverse`` (..., n, k) are indices into it, as in torch.unique:
    unique.gather(-1, inverse) is frames.
    """

    frames: Tensor
    unique: Tensor
    inverse: Tensor

    def to(self, device: torch.device) -> ClipIndices:
        return ClipIndices(self.frames.to(device), self.unique.to(device), self.inverse.to(device))

    def step(self, step: int, num_videos: int) -> ClipIndices:
        """Return the first ``num_videos`` videos of one step, of indices (m, s, b, ...) for an epoch."""
        return ClipIndices(*(part[:, step, :num_videos] for part in (self.frames, self.unique, self.inverse)))


def unique_frames(frames: Int[Tensor, "*videos n k"]) -> ClipIndices:
    """Find the distinct frames of every video's clips; u is their highest number in any video."""
    ordered, origin = frames.flatten(-2).sort(dim=-1)
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    is_new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    rank = is_new.cumsum(dim=-1) - 1
    unique = torch.zeros_like(ordered).scatter_(-1, rank, ordered)[..., : int(rank.max()) + 1]
    return ClipIndices(frames, unique, torch.empty_like(rank).scatter_(-1, origin, rank).view_as(frames))


def check_sampling(num_clips: int, frames_per_clip: int) -> None:
    """Raise CeflError if so many clips do not fit into 105 slots, or so many frames into a clip."""
    if num_clips < 1 or num_covered_slots(num_clips) > NUM_SLOTS:
        raise CeflError(
            f"clips {num_clips}: {num_clips} clips of {CLIP_LENGTH} slots at a stride of {CLIP_STRIDE} cover "
            f"{num_covered_slots(num_clips)} of {NUM_SLOTS} slots; use 1 to {(NUM_SLOTS - CLIP_LENGTH) // CLIP_STRIDE + 1}"
        )
    if not 1 <= frames_per_clip <= CLIP_LENGTH:
        raise CeflError(
            f"frames {frames_per_clip}: a clip samples its frames from {CLIP_LENGTH} slots; use 1 to {CLIP_LENGTH}"
        )


def slot_to_frame(
    slots: Int[Tensor, "*s"], lengths: Int[Tensor, "*s"], long_videos: LongVideos = "first"
) -> Int[Tensor, "*s"]:
    """Return the frame (from 0) that fills each slot of a video of the given length.

    A shorter video is stretched: frames repeat evenly (the nearest frame to each slot's center). A longer one is cut to
    its first 105 frames (``first``, our reading of the paper's "clipping"), to its central 105 (``center``), or sampled
    evenly (``resample``).
    """
    stretched = ((2 * slots + 1) * lengths) // (2 * NUM_SLOTS)
    if long_videos == "resample":
        return stretched
    offset = torch.div(lengths - NUM_SLOTS, 2, rounding_mode="floor") if long_videos == "center" else 0
    return torch.where(lengths > NUM_SLOTS, slots + offset, stretched)


def sample_clips_train(
    lengths: Int[Tensor, " b"],
    num_clips: int,
    frames_per_clip: int,
    generator: torch.Generator,
    long_videos: LongVideos = "first",
) -> Int[Tensor, "b n k"]:
    """Draw a start slot per video and k distinct slots per clip, in time order; return frame indices."""
    count, device = len(lengths), lengths.device
    starts = torch.randint(num_starts(num_clips), (count, 1, 1), generator=generator, device=device)
    order = torch.rand((count, num_clips, CLIP_LENGTH), generator=generator, device=device)
    offsets = order.argsort(dim=-1)[..., :frames_per_clip].sort(dim=-1).values
    return _to_frames(starts, offsets, lengths, long_videos)


def sample_clips_test(
    lengths: Int[Tensor, " b"],
    num_clips: int,
    frames_per_clip: int,
    long_videos: LongVideos = "first",
    start: int | None = None,
) -> Int[Tensor, "b n k"]:
    """Return the frames of one deterministic view: ``start`` (default: the middle one, 15 of 30), k slots evenly spaced.

    For k = 5 these are 0, 3, 6, 9, 12 of each clip, as in the released code.
    """
    offsets = torch.arange(frames_per_clip, device=lengths.device) * CLIP_LENGTH // frames_per_clip
    return _to_frames(_test_start(num_clips, start), offsets.expand(1, num_clips, -1), lengths, long_videos)


def view_starts(num_clips: int, tta_views: int, test_view: TestView = "middle") -> list[int]:
    """Return the start slots of V deterministic views, evenly spread.

    ``middle``: a single view has the middle start of training. ``end``: the last view ends with the last slot.

    >>> view_starts(7, 1), view_starts(7, 3)
    ([15], [5, 15, 25])
    >>> view_starts(7, 1, "end"), view_starts(7, 3, "end")
    ([30], [10, 20, 30])
    """
    if test_view == "end":
        last = NUM_SLOTS - num_covered_slots(num_clips)
        return [(view + 1) * last // tta_views for view in range(tta_views)]
    return [(2 * view + 1) * num_starts(num_clips) // (2 * tta_views) for view in range(tta_views)]


def map_view(tta_views: int, test_view: TestView = "middle") -> int:
    """Return the index in view_starts of the view whose intensity map and located clip are reported."""
    return tta_views - 1 if test_view == "end" else tta_views // 2


def map_start(config: TrainConfig, tta_views: int) -> int:
    """Return the start slot of the view whose intensity map and located clip are reported."""
    return view_starts(config.num_clips, tta_views, config.test_view)[map_view(tta_views, config.test_view)]


def clip_frame_spans(
    lengths: Int[Tensor, " b"], num_clips: int, long_videos: LongVideos = "first", start: int | None = None
) -> Int[Tensor, "b n 2"]:
    """Return the first and last frame of every clip of a test view."""
    ends = torch.tensor([0, CLIP_LENGTH - 1], device=lengths.device)
    return _to_frames(_test_start(num_clips, start), ends.expand(1, num_clips, 2), lengths, long_videos)


def _test_start(num_clips: int, start: int | None) -> int:
    return num_starts(num_clips) // 2 if start is None else start


def _to_frames(
    starts: Int[Tensor, "b 1 1"] | int,
    offsets: Int[Tensor, "_ n k"],
    lengths: Int[Tensor, " b"],
    long_videos: LongVideos,
) -> Int[Tensor, "b n k"]:
    """Return the frames at ``offsets`` (0..14) of every clip, for clips that begin at slot ``starts``."""
    clip_offsets = torch.arange(offsets.shape[1], device=lengths.device)[:, None] * CLIP_STRIDE
    slots = (starts + clip_offsets + offsets).expand(len(lengths), -1, -1)
    return slot_to_frame(slots, lengths[:, None, None].expand_as(slots), long_videos)
