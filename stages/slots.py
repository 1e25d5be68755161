"""The 105 slots of a video and the clips of 15 slots in them (section 4.1 of the paper); imports nothing."""

from __future__ import annotations

NUM_SLOTS = 105
"""Slots to which every video is mapped."""
CLIP_LENGTH = 15
"""Slots of a clip."""
CLIP_STRIDE = 10
"""Slots from one clip to the next; neighbors share 5."""
MAX_STARTS = 30
"""The paper draws the start among the first 30 frames."""


def num_covered_slots(num_clips: int) -> int:
    """Return the number of slots that n clips cover: 10 n + 5; 75 for the paper's 7."""
    return CLIP_STRIDE * num_clips + CLIP_LENGTH - CLIP_STRIDE


def num_starts(num_clips: int) -> int:
    """Return the number of start slots to draw from (0 … count - 1): 30, or fewer if many clips leave less room."""
    return min(MAX_STARTS, NUM_SLOTS - num_covered_slots(num_clips) + 1)
