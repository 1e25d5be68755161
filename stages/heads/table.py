"""Where do a head's numbers come from? The cached features on the device, and rows picked out of them by index."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Features of all usable videos on the device: rows (N, 512), and per video its first row, length and label."""

    features: Tensor
    start: Tensor
    length: Tensor
    label: Tensor
    classes: int


def gather(data: Data, videos: Tensor, frames: Tensor) -> Tensor:
    """Return features (m, b, ..., 512) float32 of videos (m, b) by frame indices (m, b, ...) into each."""
    rows = data.start[videos].view(*videos.shape, *[1] * (frames.ndim - videos.ndim)) + frames
    # index_select copies whole rows; an index in brackets goes number by number, and takes eight times as long
    return data.features.index_select(0, rows.flatten()).float().view(*rows.shape, -1)
