"""CEFLNet after its encoder: equations 1 to 10 of the paper (except that logits are returned before the softmax, 10), then
the same function in a fused form.

Axes: m models, b videos, n clips, k frames of a clip, u distinct frames of a video, d features, c classes.
Symbols: f = frames, f' = attended, f-hat' = summary, w = frame_weights, R = clip features, V^f = the R of all clips of a
video, A = intensity, M_c = activation map, V-hat^f = pooled. docs/paper.md has the table of readings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .clip_sampling import ClipIndices
from .feature_bank import FeatureBank, gather_frames
from .layers import BatchedDropout, BatchedLinear, HeadOutput


class SAL(nn.Module):
    """Self-attention learning, equation 1: every frame of a clip attends to all frames of the clip."""

    def __init__(self, num_models: int, dim: int) -> None:
        super().__init__()
        self.query = BatchedLinear(num_models, dim, dim, bias=False)  # W^Q
        self.key = BatchedLinear(num_models, dim, dim, bias=False)  # W^K
        self.value = BatchedLinear(num_models, dim, dim, bias=False)  # W^V

    def attn_scores(self, frames: Float[Tensor, "*m k d"]) -> Float[Tensor, "*m k k"]:
        """Return Q K^T / sqrt(d) of each frame (first k) with each (second k), before the softmax."""
        return self.query(frames) @ self.key(frames).transpose(-1, -2) / math.sqrt(frames.shape[-1])

    def forward(self, frames: Float[Tensor, "m b n k d"]) -> Float[Tensor, "m b n k d"]:
        return torch.softmax(self.attn_scores(frames), dim=-1) @ self.value(frames)  # (1)


def normalized_gates(gate: Float[Tensor, "... k"]) -> Float[Tensor, "... k"]:
    """Return w / sum(w) for w = sigmoid(gate), also if every w is too small to divide by."""
    return torch.softmax(torch.nn.functional.logsigmoid(gate), dim=-1)


class LRL(nn.Module):
    """Local-global relation learning, equations 2 and 3: weigh each frame by its relation to the clip.

    The paper's "pooling operation" that summarizes the attended frames is read as their mean.
    """

    def __init__(self, num_models: int, dim: int) -> None:
        super().__init__()
        self.gate = BatchedLinear(num_models, 2 * dim, 1, bias=False)  # q^0
        self.out = BatchedLinear(num_models, dim, dim, bias=False)  # q^1

    def forward(
        self, attended: Float[Tensor, "m b n k d"]
    ) -> tuple[Float[Tensor, "m b n d"], Float[Tensor, "m b n k"]]:
        """Return the clip features R and the frame weights w."""
        summary = attended.mean(dim=-2, keepdim=True).expand_as(attended)
        gate = self.gate(torch.cat([summary, attended], dim=-1)).squeeze(-1)
        clips = (normalized_gates(gate)[..., None] * attended).sum(dim=-2)
        return self.out(clips), torch.sigmoid(gate)  # (3), (2)


def clip_softmax(scores: Float[Tensor, "m b n maps"]) -> Float[Tensor, "m b maps n"]:
    """Softmax over clips, never in half precision, so that the intensities of a video sum to one; equation 5."""
    return torch.softmax(_at_least_float32(scores).transpose(-1, -2), dim=-1)


def located_index(intensity: Float[Tensor, "*b maps n"], label: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Return P_e, the clip (from 0) with the highest intensity in the map of ``label``, or in the only map; equation 6."""
    index = label if intensity.shape[-2] > 1 else torch.zeros_like(label)
    return intensity.take_along_dim(index[..., None, None], dim=-2).squeeze(-2).argmax(dim=-1)


def max_pool_over_clips(
    intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]
) -> Float[Tensor, "m b c d"]:
    """Return V-hat^f, the maximum over clips of each class's map M_c = A V^f; equations 7 and 8."""
    activation = intensity[..., None] * clips[:, :, None]  # M_c (m b c n d), (7)
    return activation.amax(dim=-2)  # (8)


class EIAN(nn.Module):
    """Emotional intensity activation network, equations 4 to 9 (the softmax, 10, is applied by the loss and by evaluate): weigh
    the clips of a video, separately for each class.

    Readings: the one-dimensional convolution over clips has a kernel of one clip; there is one map per class ("for each
    video-level expression class y^c"), and the classifier q^2 has one d-vector per class, on the class's own pooled map.
    """

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.score = BatchedLinear(num_models, dim, num_classes, bias=False)  # W^T
        self.classify = BatchedLinear(num_models, dim, num_classes, bias=False)  # q^2

    def forward(
        self, clips: Float[Tensor, "m b n d"], max_pool: Callable[[Tensor, Tensor], Tensor] = max_pool_over_clips
    ) -> HeadOutput:  # V^f = H(R_1 … R_n), (4)
        intensity = clip_softmax(self.score(clips))  # A (m b c n), (5)
        pooled = max_pool(intensity, clips)  # V-hat^f (m b c d), (7) and (8)
        logits = torch.einsum(
            "mbcd,mdc->mbc", pooled, self.classify.weight.to(pooled.dtype)
        )  # (9), before the softmax (10)
        return HeadOutput(logits, pooled.flatten(2), intensity)


class CEFLNetHead(nn.Module):
    """The full head: SAL, LRL, EIAN."""

    loss = "bce"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.sal, self.lrl, self.eian = SAL(num_models, dim), LRL(num_models, dim), EIAN(num_models, dim, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        clips, frame_weights = self.lrl(self.sal(frames))
        return replace(self.eian(clips), frame_weights=frame_weights)


def gather_clips(
    head: nn.Module, bank: FeatureBank, videos: Int[Tensor, "m b"], clip_indices: ClipIndices
) -> Float[Tensor, "m b *frames d"]:
    """Return the features of sampled clips of videos as run_head takes them: distinct frames of a video, or all of its clips."""
    return gather_frames(bank, videos, clip_indices.unique if isinstance(head, CEFLNetHead) else clip_indices.frames)


def run_head(
    head: nn.Module, frames: Float[Tensor, "m b *frames d"], clip_indices: ClipIndices, dropout: BatchedDropout
) -> HeadOutput:
    """Run a head on the ``frames`` of gather_clips. Training and evaluation both call this.

    CEFLNetHead runs in its fused form, all other heads as they are.
    """
    if isinstance(head, CEFLNetHead):
        return ceflnet_fused(head, frames, clip_indices.inverse)
    return head(frames, dropout)


def ceflnet_fused(head: CEFLNetHead, frames: Float[Tensor, "m b u d"], inverse: Int[Tensor, "m b n k"]) -> HeadOutput:
    """Return what ``head`` returns for frames[..., inverse, :], up to rounding, with fewer operations.

    Each of a video's u distinct frames is read and projected once, in however many clips it is: clips overlap by a third,
    and short videos repeat frames. Attended frames are never formed, because equations 1 to 3 are linear in them once
    attention and gate are known: the gate reads frames through the vectors W^V q^0, a clip is a weighted mean of its
    video's frames, and W^V is applied to that mean.
    """
    frames = frames.to(_autocast_dtype(frames))  # once, for all products below
    num_unique = frames.shape[-2]
    pairs = inverse[..., :, None] * num_unique + inverse[..., None, :]
    attn_scores = _gather_last(head.sal.attn_scores(frames).flatten(-2), pairs)
    attention = torch.softmax(_at_least_float32(attn_scores), dim=-1)  # (1)
    # the two halves of equation 2's gate: what it reads from the summary (first) and from the frame itself (second)
    q0 = head.lrl.gate.weight.unflatten(1, (2, -1)).squeeze(-1).mT
    gates = torch.bmm(frames.flatten(1, 2), torch.bmm(head.sal.value.weight, q0)).unflatten(1, frames.shape[1:3])
    summary_gate, frame_gate = (
        (attention * _gather_last(half, inverse)[..., None, :]).sum(dim=-1) for half in gates.unbind(-1)
    )
    gate = summary_gate.mean(dim=-1, keepdim=True) + frame_gate
    weights = (normalized_gates(gate)[..., None] * attention).sum(dim=-2)  # of each frame in its clip
    unique_weights = weights.new_zeros(*inverse.shape[:3], num_unique).scatter_add(-1, inverse, weights)
    clips = head.lrl.out(head.sal.value(unique_weights.to(frames.dtype) @ frames))  # (3)
    return replace(head.eian(clips, max_pool_fused), frame_weights=torch.sigmoid(gate))


def max_pool_fused(intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]) -> Float[Tensor, "m b c d"]:
    """Return ``max_pool_over_clips``, with a cheaper backward pass."""
    return _MaxPoolOverClips.apply(intensity, clips)  # pyright: ignore[reportReturnType] - torch's stub says Any | None


class _MaxPoolOverClips(torch.autograd.Function):
    """Maximum over clips with a cheaper backward pass than amax, whose boolean masks cost three times as much.

    As in torch, clips that tie (two that sampled the same frames) get equal parts of the gradient.
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
        gradient = (activation - highest[..., None, :]).sign_().add_(1)  # 1 for each clip with the maximum, else 0
        gradient.mul_((gradients[0] / gradient.sum(dim=-2))[..., None, :])
        intensity_gradient = (gradient * clips[:, :, None]).sum(dim=-1)
        clips_gradient = gradient.mul_(intensity[..., None]).sum(dim=2)
        return intensity_gradient.to(intensity.dtype), clips_gradient.to(clips.dtype)


def _gather_last(values: Float[Tensor, "m b all"], index: Int[Tensor, "m b *where"]) -> Float[Tensor, "m b *where"]:
    return values.gather(-1, index.flatten(2)).view_as(index)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _autocast_dtype(frames: Tensor) -> torch.dtype:
    kind = frames.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else frames.dtype
