"""The full head with fewer operations: the same function as cefl.py, in another order.

Each frame of a video is read and projected once, in however many clips it stands: sub-videos overlap by a third, and short
videos repeat frames. Attended frames are never formed. Equations 1 to 3 are linear in them once attention and gate are
known: the gate reads frames through the vectors W^V q^0, a clip is a weighted mean of its video's frames, and W^V is
applied to that mean.
Axes: m models, b videos, u distinct frames of a video, n clips, k frames of a clip, d = 512 features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .cefl import CEFL, shares
from .layers import Noise, Output
from .sampling import Drawn
from .table import Data, gather

Run = Callable[[Data, Tensor, Drawn, Noise], Output]
"""Computes a head on the drawn frames of videos (m, b) of a table."""


def for_training(head: nn.Module) -> Run:
    """Return the quickest function that computes the head."""
    if isinstance(head, CEFL):
        return lambda data, videos, drawn, noise: forward(head, gather(data, videos, drawn.distinct), drawn.place)
    return lambda data, videos, drawn, noise: head(gather(data, videos, drawn.frames), noise)


def forward(head: CEFL, frames: Float[Tensor, "m b u d"], place: Int[Tensor, "m b n k"]) -> Output:
    """Return what the head returns for frames[..., place, :], up to rounding."""
    frames = frames.to(_working_type(frames))  # once, for all products below
    width = frames.shape[-2]
    pairs = place[..., :, None] * width + place[..., None, :]
    likeness = _pick(head.sal.likeness(frames).flatten(-2), pairs)
    attention = torch.softmax(likeness.float() if likeness.dtype != torch.float64 else likeness, dim=-1)  # (1)
    # what the gate of equation 2 sees of the summary (first) and of the frame itself (second)
    q0 = head.lrl.gate.weight.unflatten(1, (2, -1)).squeeze(-1).mT
    seen = torch.bmm(frames.flatten(1, 2), torch.bmm(head.sal.value.weight, q0)).unflatten(1, frames.shape[1:3])
    summary, itself = ((attention * _pick(part, place)[..., None, :]).sum(dim=-1) for part in seen.unbind(-1))
    gate = summary.mean(dim=-1, keepdim=True) + itself
    of_frames = (shares(gate)[..., None] * attention).sum(dim=-2)  # how much of each frame is in its clip
    of_distinct = of_frames.new_zeros(*place.shape[:3], width).scatter_add(-1, place, of_frames)
    clips = head.lrl.out(head.sal.value(of_distinct.to(frames.dtype) @ frames))  # (3)
    found = head.eian(clips, pool)
    return Output(found.logits, found.embedding, found.intensity, torch.sigmoid(gate))


def pool(intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]) -> Float[Tensor, "m b c d"]:
    """Return cefl.strongest, with a backward pass of its own."""
    return _Strongest.apply(intensity, clips)  # pyright: ignore[reportReturnType] - torch says Any | None


class _Strongest(torch.autograd.Function):
    """The maximum over clips, whose gradient torch takes by way of booleans, at three times the cost.

    As torch does, clips that tie (two that drew the same frames) share the gradient.
    """

    @staticmethod
    def forward(ctx: Any, intensity: Tensor, clips: Tensor) -> Tensor:
        activation = intensity[..., None] * clips[:, :, None]  # (m b c n d)
        highest = activation.amax(dim=-2)
        ctx.save_for_backward(intensity, clips, activation, highest)
        return highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        intensity, clips, activation, highest = ctx.saved_tensors
        # one where a clip is the highest, else zero: no activation lies above the highest
        share = (activation - highest[..., None, :]).sign_().add_(1)
        share.mul_((gradients[0] / share.sum(dim=-2))[..., None, :])
        for_intensity = (share * clips[:, :, None]).sum(dim=-1)
        for_clips = share.mul_(intensity[..., None]).sum(dim=2)
        return for_intensity.to(intensity.dtype), for_clips.to(clips.dtype)


def _pick(values: Float[Tensor, "m b all"], index: Int[Tensor, "m b *where"]) -> Float[Tensor, "m b *where"]:
    return values.gather(-1, index.flatten(2)).view_as(index)


def _working_type(frames: Tensor) -> torch.dtype:
    kind = frames.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else frames.dtype
