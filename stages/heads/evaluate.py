"""Evaluate a batched head on videos, with test-time views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..device import autocast
from .ceflnet import gather_clips, run_head
from .clip_sampling import ClipIndices, map_view, sample_clips_test, unique_frames, view_starts
from .feature_bank import FeatureBank, iter_ahead
from .layers import BatchedDropout, HeadOutput
from .train_config import TrainConfig

BATCH_SIZE = 64
"""Videos per model that are evaluated at once."""


@dataclass(frozen=True)
class EvalOutput:
    """Output of a batched head for videos, on the CPU; axes as in layers.HeadOutput.

    ``probabilities`` are the mean over views, everything else is of the one that clip_sampling.map_view names.
    """

    probabilities: Tensor  # (m, b, c)
    embedding: Tensor  # (m, b, e)
    intensity: Tensor | None  # (m, b, maps, n)
    frame_weights: Tensor | None  # (m, b, n, k)


def pad_stack(indices: Sequence[Tensor]) -> Tensor:
    """Stack index vectors of different length into (vectors, max length), padded with 0."""
    padded = torch.zeros(len(indices), max([1, *map(len, indices)]), dtype=torch.long)
    for i, vector in enumerate(indices):
        padded[i, : len(vector)] = vector
    return padded


@torch.no_grad()
def evaluate(head: nn.Module, bank: FeatureBank, videos: Tensor, config: TrainConfig, tta_views: int = 1) -> EvalOutput:
    """Run each model on its videos (m, b), in ``tta_views`` deterministic views, see clip_sampling.view_starts."""
    starts = view_starts(config.num_clips, tta_views, config.test_view)
    probabilities, mapped = torch.zeros((), device=bank.device), None
    for view, start in enumerate(starts):
        output = _run_view(head, bank, videos, config, start)
        probabilities = probabilities + torch.softmax(output.logits.float(), dim=-1) / len(starts)
        if view == map_view(tta_views, config.test_view):
            mapped = output
    if mapped is None:
        raise ValueError("tta_views must be at least 1")
    intensity, frame_weights = (x if x is None else x.float().cpu() for x in (mapped.intensity, mapped.frame_weights))
    return EvalOutput(probabilities.cpu(), mapped.embedding.float().cpu(), intensity, frame_weights)


def _run_view(head: nn.Module, bank: FeatureBank, videos: Tensor, config: TrainConfig, start: int) -> HeadOutput:
    batches = videos.split(BATCH_SIZE, dim=1)
    clips = [_sample_clips(bank, batch, config, start) for batch in batches]
    gathered = iter_ahead(
        lambda number: gather_clips(head, bank, batches[number], clips[number]),
        range(len(batches)), is_remote=bank.is_remote,
    )  # fmt: skip
    outputs = []
    for clip_indices, frames in zip(clips, gathered, strict=True):
        with autocast(bank.device, config.precision):
            outputs.append(run_head(head, frames, clip_indices, BatchedDropout(None)))
    names = ("logits", "embedding", "intensity", "frame_weights")
    joined: dict[str, Any] = {name: _concat([getattr(output, name) for output in outputs]) for name in names}
    return HeadOutput(**joined)


def _sample_clips(bank: FeatureBank, batch: Tensor, config: TrainConfig, start: int) -> ClipIndices:
    frames = sample_clips_test(
        bank.length[batch].flatten(), config.num_clips, config.frames_per_clip, config.long_videos, start
    )
    return unique_frames(frames.view(*batch.shape, *frames.shape[1:]))


def _concat(parts: list[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors, dim=1) if tensors else None
