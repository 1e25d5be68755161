"""Evaluate a batched head on videos, with test-time views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..device import autocast
from .ceflnet import HeadFn, fused_head
from .clip_sampling import sample_clips_test, unique_frames, view_starts
from .feature_bank import FeatureBank
from .layers import BatchedDropout, HeadOutput
from .train_config import TrainConfig

BATCH_SIZE = 64
"""Videos per model that are evaluated in one go."""


@dataclass(frozen=True)
class HeadOutputs:
    """What the models of a batched head say of their videos, on the CPU; axes as in layers.Output."""

    probabilities: Tensor  # (m, b, c)
    embedding: Tensor  # (m, b, e)
    intensity: Tensor | None  # (m, b, maps, n)
    frame_weights: Tensor | None  # (m, b, n, k)


@torch.no_grad()
def evaluate(
    head: nn.Module, data: FeatureBank, videos: Tensor, config: TrainConfig, tta_views: int = 1
) -> HeadOutputs:
    """Return what each model says of its videos (m, b), by one deterministic view or the mean over ``views`` starts.

    Probabilities are averaged over views; intensity, embedding and frame weights are those of the middle view.
    """
    starts = view_starts(config.num_clips, tta_views)
    middle = len(starts) // 2
    probabilities, kept = None, None
    run = fused_head(head)  # the same numbers, sooner
    for number, start in enumerate(starts):
        output = _run_view(run, data, videos, config, start)
        share = torch.softmax(output.logits.float(), dim=-1) / len(starts)
        probabilities = share if probabilities is None else probabilities + share
        if number == middle:
            kept = output
    if probabilities is None or kept is None:
        raise ValueError("views must be at least 1")
    return HeadOutputs(
        probabilities.cpu(),
        kept.embedding.float().cpu(),
        None if kept.intensity is None else kept.intensity.float().cpu(),
        None if kept.frame_weights is None else kept.frame_weights.float().cpu(),
    )


def _run_view(run: HeadFn, data: FeatureBank, videos: Tensor, config: TrainConfig, start: int) -> HeadOutput:
    pieces = []
    for some in videos.split(BATCH_SIZE, dim=1):
        frames = sample_clips_test(
            data.length[some].flatten(), config.num_clips, config.frames_per_clip, config.long_videos, start
        )
        with autocast(data.features.device, config.precision):
            pieces.append(
                run(data, some, unique_frames(frames.view(*some.shape, *frames.shape[1:])), BatchedDropout(None))
            )
    names = ("logits", "embedding", "intensity", "frame_weights")
    joined: dict[str, Any] = {name: _concat([getattr(piece, name) for piece in pieces]) for name in names}
    return HeadOutput(**joined)


def _concat(pieces: list[Tensor | None]) -> Tensor | None:
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there, dim=1) if there else None
