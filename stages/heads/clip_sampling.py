"""Clip sampling (section 4.1 of the paper) as arithmetic on frame indices.

A video of T frames is brought to 105 slots, a start slot is drawn, n sub-videos of 15 slots follow each other 10 apart
(5 shared with the neighbour), and k of the 15 slots of each make a clip. Nothing here touches a feature: the result is
an index array into the cached frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ...cache.errors import CeflError

NUM_SLOTS = 105
CLIP_LENGTH = 15
CLIP_STRIDE = 10
MAX_STARTS = 30
"""The paper draws the start among the first 30 frames."""
LONG_VIDEO_MODES = ("head", "center", "resample")


@dataclass(frozen=True)
class ClipIndices:
    """The frames of videos that make their clips: ``frames`` (..., n, k), counted from each video's first frame.

    Sub-videos overlap and short videos repeat frames, so the same frame stands in several places. ``distinct`` (..., u)
    has each frame of a video once, in order, filled up with frame 0; ``place`` (..., n, k) says where in it a clip's frame
    stands: distinct.gather(-1, place) is frames.
    """

    frames: Tensor
    unique: Tensor
    inverse: Tensor

    def to(self, device: torch.device) -> ClipIndices:
        return ClipIndices(self.frames.to(device), self.unique.to(device), self.inverse.to(device))

    def step(self, number: int, most: int) -> ClipIndices:
        """Return the first ``most`` videos of one step of draws (m, s, b, ...) for a whole epoch."""
        parts = (self.frames, self.unique, self.inverse)
        return ClipIndices(*(part[:, number, :most] for part in parts))


def unique_frames(frames: Int[Tensor, "*videos n k"]) -> ClipIndices:
    """Find the distinct frames of every video's clips; u is the most that any video has."""
    drawn = frames.flatten(-2)
    ordered, origin = drawn.sort(dim=-1)
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    is_new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    rank = is_new.cumsum(dim=-1) - 1
    distinct = torch.zeros_like(ordered).scatter_(-1, rank, ordered)[..., : int(rank.max()) + 1]
    return ClipIndices(frames, distinct, torch.empty_like(rank).scatter_(-1, origin, rank).view_as(frames))


def span(clips: int) -> int:
    """Slots that n sub-videos cover: 10 n + 5; 75 for the paper's 7."""
    return CLIP_STRIDE * clips + CLIP_LENGTH - CLIP_STRIDE


def start_count(clips: int) -> int:
    """Number of start slots to draw from (0 … count - 1): 30, or fewer where more sub-videos leave less room."""
    return min(MAX_STARTS, NUM_SLOTS - span(clips) + 1)


def check_sampling(clips: int, frames: int) -> None:
    """Raise CeflError when so many clips do not fit into 105 slots, or so many frames into a sub-video."""
    if clips < 1 or span(clips) > NUM_SLOTS:
        most = (NUM_SLOTS - CLIP_LENGTH) // CLIP_STRIDE + 1
        raise CeflError(
            f"clips {clips}: {clips} sub-videos of {CLIP_LENGTH} slots, {CLIP_STRIDE} apart, span {span(clips)} of {NUM_SLOTS} slots; "
            f"use 1 to {most}"
        )
    if not 1 <= frames <= CLIP_LENGTH:
        raise CeflError(f"frames {frames}: a clip takes its frames from {CLIP_LENGTH} slots; use 1 to {CLIP_LENGTH}")


def slot_to_frame(slots: Int[Tensor, "*s"], lengths: Int[Tensor, "*s"], long_videos: str = "head") -> Int[Tensor, "*s"]:
    """Return which frame (from 0) fills each slot of a video of the given length.

    A shorter video is stretched: frames repeat evenly (the nearest frame to each slot's middle). A longer one is cut to
    its first 105 frames (``clip``, our reading of the paper's "clipping"), to its middle 105 (``centre``), or thinned
    evenly (``resample``).
    """
    stretched = ((2 * slots + 1) * lengths) // (2 * NUM_SLOTS)
    if long_videos == "resample":
        return stretched
    offset = (
        torch.div(lengths - NUM_SLOTS, 2, rounding_mode="floor")
        if long_videos == "center"
        else torch.zeros_like(lengths)
    )
    return torch.where(lengths > NUM_SLOTS, slots + offset, stretched)


def sample_clips_train(
    lengths: Int[Tensor, " b"], clips: int, frames: int, generator: torch.Generator, long_videos: str = "head"
) -> Int[Tensor, "b n k"]:
    """Draw a start per video and k distinct slots per sub-video, in time order; return frame indices."""
    count = len(lengths)
    device = lengths.device
    starts = torch.randint(start_count(clips), (count, 1, 1), generator=generator, device=device)
    order = torch.rand((count, clips, CLIP_LENGTH), generator=generator, device=device)
    chosen = order.argsort(dim=-1)[..., :frames].sort(dim=-1).values
    return _to_frames(starts, chosen, lengths, clips, long_videos)


def sample_clips_test(
    lengths: Int[Tensor, " b"], clips: int, frames: int, long_videos: str = "head", start: int | None = None
) -> Int[Tensor, "b n k"]:
    """Return the frames of one deterministic view: the middle start (15 of 30), k slots evenly spaced from the first.

    For k = 5 these are 0, 3, 6, 9, 12 of each sub-video, as in the released code.
    """
    begin = start_count(clips) // 2 if start is None else start
    starts = torch.full((len(lengths), 1, 1), begin, dtype=torch.long, device=lengths.device)
    even = torch.arange(frames, device=lengths.device) * CLIP_LENGTH // frames
    return _to_frames(starts, even.expand(len(lengths), clips, frames), lengths, clips, long_videos)


def view_starts(clips: int, views: int) -> list[int]:
    """Return the start slots of V deterministic views, evenly spread; one view starts in the middle.

    >>> view_starts(7, 1), view_starts(7, 3)
    ([15], [5, 15, 25])
    """
    return [(2 * view + 1) * start_count(clips) // (2 * views) for view in range(views)]


def clip_frame_spans(
    lengths: Int[Tensor, " b"], clips: int, long_videos: str = "head", start: int | None = None
) -> Int[Tensor, "b n 2"]:
    """Return the first and last frame of every sub-video of a test view: what a located clip stands for."""
    begin = start_count(clips) // 2 if start is None else start
    first = begin + torch.arange(clips, device=lengths.device) * CLIP_STRIDE
    ends = torch.stack([first, first + CLIP_LENGTH - 1], dim=-1).expand(len(lengths), clips, 2)
    return slot_to_frame(ends, lengths[:, None, None].expand_as(ends), long_videos)


def _to_frames(
    starts: Int[Tensor, "b 1 1"], chosen: Int[Tensor, "b n k"], lengths: Int[Tensor, " b"], clips: int, long_videos: str
) -> Int[Tensor, "b n k"]:
    sub_videos = torch.arange(clips, device=lengths.device)[:, None] * CLIP_STRIDE
    slots = starts + sub_videos + chosen
    return slot_to_frame(slots, lengths[:, None, None].expand_as(slots), long_videos)
