"""Evaluate a batched head on videos, with test-time views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..device import autocast
from .ceflnet import Run, for_training
from .clip_sampling import draw_for_testing, each_once, view_starts
from .feature_bank import Data
from .layers import Noise, Output
from .train import Recipe

AT_ONCE = 64
"""Videos per model that are evaluated in one go."""


@dataclass(frozen=True)
class Said:
    """What the models of a batched head say of their videos, on the CPU; axes as in layers.Output."""

    probabilities: Tensor  # (m, b, c)
    embedding: Tensor  # (m, b, e)
    intensity: Tensor | None  # (m, b, maps, n)
    frame_weights: Tensor | None  # (m, b, n, k)


@torch.no_grad()
def evaluate(head: nn.Module, data: Data, videos: Tensor, recipe: Recipe, views: int = 1) -> Said:
    """Return what each model says of its videos (m, b), by one deterministic view or the mean over ``views`` starts.

    Probabilities are averaged over views; intensity, embedding and frame weights are those of the middle view.
    """
    starts = view_starts(recipe.clips, views)
    middle = len(starts) // 2
    probabilities, kept = None, None
    run = for_training(head)  # the same numbers, sooner
    for number, start in enumerate(starts):
        output = _view(run, data, videos, recipe, start)
        share = torch.softmax(output.logits.float(), dim=-1) / len(starts)
        probabilities = share if probabilities is None else probabilities + share
        if number == middle:
            kept = output
    if probabilities is None or kept is None:
        raise ValueError("views must be at least 1")
    return Said(
        probabilities.cpu(),
        kept.embedding.float().cpu(),
        None if kept.intensity is None else kept.intensity.float().cpu(),
        None if kept.frame_weights is None else kept.frame_weights.float().cpu(),
    )


def _view(run: Run, data: Data, videos: Tensor, recipe: Recipe, start: int) -> Output:
    pieces = []
    for some in videos.split(AT_ONCE, dim=1):
        frames = draw_for_testing(data.length[some].flatten(), recipe.clips, recipe.frames, recipe.longer, start)
        with autocast(data.features.device, recipe.precision):
            pieces.append(run(data, some, each_once(frames.view(*some.shape, *frames.shape[1:])), Noise(None)))
    names = ("logits", "embedding", "intensity", "frame_weights")
    joined: dict[str, Any] = {name: _join([getattr(piece, name) for piece in pieces]) for name in names}
    return Output(**joined)


def _join(pieces: list[Tensor | None]) -> Tensor | None:
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there, dim=1) if there else None
