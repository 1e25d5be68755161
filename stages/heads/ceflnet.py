"""CEFLNet after its encoder, in the order of the paper's equations, and the same function with fewer operations.

Axes: m models, b videos, n clips, k frames of a clip, u distinct frames of a video, d = 512 features, c classes.
Symbols: f = frames, f' = attended, f-hat' = summary, w = frame_weights, R = clip features, V^f = the R of a video put
together, A = intensity, M_c = activation map, V-hat^f = pooled. docs/paper.md has the table of readings.

The fused form (``ceflnet_fused``) reads and projects each frame of a video once, in however many clips it is: clips overlap by a
third, and short videos repeat frames. Attended frames are never formed. Equations 1 to 3 are linear in them once
attention and gate are known: the gate reads frames through the vectors W^V q^0, a clip is a weighted mean of its video's
frames, and W^V is applied to that mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .clip_sampling import ClipIndices
from .feature_bank import FeatureBank, gather_frames
from .layers import BatchedDropout, BatchedLinear, HeadOutput

Pool = Callable[[Tensor, Tensor], Tensor]
"""``strongest``, or another way to compute it."""


class SAL(nn.Module):
    """Self-attention learning, equation 1: every frame of a clip looks at all frames of the clip."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.query = BatchedLinear(models, width, width, bias=False)  # W^Q
        self.key = BatchedLinear(models, width, width, bias=False)  # W^K
        self.value = BatchedLinear(models, width, width, bias=False)  # W^V

    def attn_weights(self, frames: Float[Tensor, "m b n k d"]) -> Float[Tensor, "m b n k k"]:
        """Return how much each frame (first k) looks at each (second k); rows sum to one."""
        return torch.softmax(self.attn_scores(frames), dim=-1)

    def attn_scores(self, frames: Float[Tensor, "*m k d"]) -> Float[Tensor, "*m k k"]:
        """Return Q K^T / sqrt(d) of each frame (first k) with each (second k), before the softmax."""
        return self.query(frames) @ self.key(frames).transpose(-1, -2) / math.sqrt(frames.shape[-1])

    def forward(self, frames: Float[Tensor, "m b n k d"]) -> Float[Tensor, "m b n k d"]:
        return self.attn_weights(frames) @ self.value(frames)  # (1)


def normalized_gates(gate: Float[Tensor, "... k"]) -> Float[Tensor, "... k"]:
    """Return w / sum(w) for w = sigmoid(gate), also where every w is too small to divide by."""
    return torch.softmax(torch.nn.functional.logsigmoid(gate), dim=-1)


class LRL(nn.Module):
    """Local-global relation learning, equations 2 and 3: how much does each frame say, given the clip as a whole?

    The paper's "pooling operation" that summarises the attended frames is read as their mean.
    """

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.gate = BatchedLinear(models, 2 * width, 1, bias=False)  # q^0
        self.out = BatchedLinear(models, width, width, bias=False)  # q^1

    def forward(
        self, attended: Float[Tensor, "m b n k d"]
    ) -> tuple[Float[Tensor, "m b n d"], Float[Tensor, "m b n k"]]:
        summary = attended.mean(dim=-2, keepdim=True).expand_as(attended)
        gate = self.gate(torch.cat([summary, attended], dim=-1)).squeeze(-1)
        clip = (normalized_gates(gate)[..., None] * attended).sum(dim=-2)
        return self.out(clip), torch.sigmoid(gate)  # (3), (2)


def clip_softmax(scores: Float[Tensor, "m b n maps"]) -> Float[Tensor, "m b maps n"]:
    """Softmax over clips, never in half precision: the shares of a video's clips sum to one."""
    wide = scores.double() if scores.dtype == torch.float64 else scores.float()
    return torch.softmax(wide.transpose(-1, -2), dim=-1)


def max_pool_over_clips(
    intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]
) -> Float[Tensor, "m b c d"]:
    """Return V-hat^f, each class's map M_c = A V^f at its highest over clips; equations 7 and 8."""
    activation = intensity[..., None] * clips[:, :, None]  # M_c (m b c n d), (7)
    return activation.amax(dim=-2)  # (8)


class EIAN(nn.Module):
    """Emotional intensity activation network, equations 4 to 9: which clips hold the emotion of each class?

    Readings: the one-dimensional convolution over clips has a kernel of one clip; there is one map per class ("for each
    video-level expression class y^c"), and the classifier q^2 has one d-vector per class, on the class's own pooled map.
    """

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.score = BatchedLinear(models, width, classes, bias=False)  # W^T
        self.classify = BatchedLinear(models, width, classes, bias=False)  # q^2

    def forward(
        self, clips: Float[Tensor, "m b n d"], pool: Pool = max_pool_over_clips
    ) -> HeadOutput:  # V^f = H(R_1 … R_n), (4)
        intensity = clip_softmax(self.score(clips))  # A (m b c n), (5)
        pooled = pool(intensity, clips)  # V-hat^f (m b c d), (7) and (8)
        logits = torch.einsum("mbcd,mdc->mbc", pooled, self.classify.weight.to(pooled.dtype))  # (9), before its softmax
        return HeadOutput(logits, pooled.flatten(2), intensity)


class CEFLNetHead(nn.Module):
    """The full head: SAL, LRL, EIAN."""

    loss = "bce"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.sal, self.lrl, self.eian = SAL(models, width), LRL(models, width), EIAN(models, width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        clips, frame_weights = self.lrl(self.sal(frames))
        found = self.eian(clips)
        return HeadOutput(found.logits, found.embedding, found.intensity, frame_weights)


HeadFn = Callable[[FeatureBank, Tensor, ClipIndices, BatchedDropout], HeadOutput]
"""Computes a head on the drawn frames of videos (m, b) of a table."""


def fused_head(head: nn.Module) -> HeadFn:
    """Return the quickest function that computes the head."""
    if isinstance(head, CEFLNetHead):
        return lambda data, videos, drawn, noise: ceflnet_fused(
            head, gather_frames(data, videos, drawn.unique), drawn.inverse
        )
    return lambda data, videos, drawn, noise: head(gather_frames(data, videos, drawn.frames), noise)


def ceflnet_fused(head: CEFLNetHead, frames: Float[Tensor, "m b u d"], place: Int[Tensor, "m b n k"]) -> HeadOutput:
    """Return what the head returns for frames[..., place, :], up to rounding."""
    frames = frames.to(_autocast_dtype(frames))  # once, for all products below
    width = frames.shape[-2]
    pairs = place[..., :, None] * width + place[..., None, :]
    likeness = _gather_last(head.sal.attn_scores(frames).flatten(-2), pairs)
    attention = torch.softmax(likeness.float() if likeness.dtype != torch.float64 else likeness, dim=-1)  # (1)
    # what the gate of equation 2 sees of the summary (first) and of the frame itself (second)
    q0 = head.lrl.gate.weight.unflatten(1, (2, -1)).squeeze(-1).mT
    seen = torch.bmm(frames.flatten(1, 2), torch.bmm(head.sal.value.weight, q0)).unflatten(1, frames.shape[1:3])
    summary, itself = ((attention * _gather_last(part, place)[..., None, :]).sum(dim=-1) for part in seen.unbind(-1))
    gate = summary.mean(dim=-1, keepdim=True) + itself
    of_frames = (normalized_gates(gate)[..., None] * attention).sum(dim=-2)  # how much of each frame is in its clip
    of_distinct = of_frames.new_zeros(*place.shape[:3], width).scatter_add(-1, place, of_frames)
    clips = head.lrl.out(head.sal.value(of_distinct.to(frames.dtype) @ frames))  # (3)
    found = head.eian(clips, max_pool_fused)
    return HeadOutput(found.logits, found.embedding, found.intensity, torch.sigmoid(gate))


def max_pool_fused(intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]) -> Float[Tensor, "m b c d"]:
    """Return cefl.strongest, with a backward pass of its own."""
    return _MaxPoolOverClips.apply(intensity, clips)  # pyright: ignore[reportReturnType] - torch says Any | None


class _MaxPoolOverClips(torch.autograd.Function):
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


def _gather_last(values: Float[Tensor, "m b all"], index: Int[Tensor, "m b *where"]) -> Float[Tensor, "m b *where"]:
    return values.gather(-1, index.flatten(2)).view_as(index)


def _autocast_dtype(frames: Tensor) -> torch.dtype:
    kind = frames.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else frames.dtype
