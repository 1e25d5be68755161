"""CEFLNet after its encoder, in the order of the paper's equations (the ``paper`` variant).

Axes: m models, b videos, n clips, k frames of a clip, d = 512 features, c classes.
Symbols: f = frames, f' = attended, f-hat' = summary, w = frame_weights, R = clip features, V^f = the R of a video put
together, A = intensity, M_c = activation map, V-hat^f = pooled. docs/paper.md has the table of readings.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .layers import Linear, Noise, Output

Pool = Callable[[Tensor, Tensor], Tensor]
"""``strongest``, or another way to compute it."""


class SAL(nn.Module):
    """Self-attention learning, equation 1: every frame of a clip looks at all frames of the clip."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.query = Linear(models, width, width, bias=False)  # W^Q
        self.key = Linear(models, width, width, bias=False)  # W^K
        self.value = Linear(models, width, width, bias=False)  # W^V

    def attention(self, frames: Float[Tensor, "m b n k d"]) -> Float[Tensor, "m b n k k"]:
        """Return how much each frame (first k) looks at each (second k); rows sum to one."""
        return torch.softmax(self.likeness(frames), dim=-1)

    def likeness(self, frames: Float[Tensor, "*m k d"]) -> Float[Tensor, "*m k k"]:
        """Return Q K^T / sqrt(d) of each frame (first k) with each (second k), before the softmax."""
        return self.query(frames) @ self.key(frames).transpose(-1, -2) / math.sqrt(frames.shape[-1])

    def forward(self, frames: Float[Tensor, "m b n k d"]) -> Float[Tensor, "m b n k d"]:
        return self.attention(frames) @ self.value(frames)  # (1)


def shares(gate: Float[Tensor, "... k"]) -> Float[Tensor, "... k"]:
    """Return w / sum(w) for w = sigmoid(gate), also where every w is too small to divide by."""
    return torch.softmax(torch.nn.functional.logsigmoid(gate), dim=-1)


class LRL(nn.Module):
    """Local-global relation learning, equations 2 and 3: how much does each frame say, given the clip as a whole?

    The paper's "pooling operation" that summarises the attended frames is read as their mean.
    """

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.gate = Linear(models, 2 * width, 1, bias=False)  # q^0
        self.out = Linear(models, width, width, bias=False)  # q^1

    def forward(
        self, attended: Float[Tensor, "m b n k d"]
    ) -> tuple[Float[Tensor, "m b n d"], Float[Tensor, "m b n k"]]:
        summary = attended.mean(dim=-2, keepdim=True).expand_as(attended)
        gate = self.gate(torch.cat([summary, attended], dim=-1)).squeeze(-1)
        clip = (shares(gate)[..., None] * attended).sum(dim=-2)
        return self.out(clip), torch.sigmoid(gate)  # (3), (2)


def over_clips(scores: Float[Tensor, "m b n maps"]) -> Float[Tensor, "m b maps n"]:
    """Softmax over clips, never in half precision: the shares of a video's clips sum to one."""
    wide = scores.double() if scores.dtype == torch.float64 else scores.float()
    return torch.softmax(wide.transpose(-1, -2), dim=-1)


def strongest(intensity: Float[Tensor, "m b c n"], clips: Float[Tensor, "m b n d"]) -> Float[Tensor, "m b c d"]:
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
        self.score = Linear(models, width, classes, bias=False)  # W^T
        self.classify = Linear(models, width, classes, bias=False)  # q^2

    def forward(self, clips: Float[Tensor, "m b n d"], pool: Pool = strongest) -> Output:  # V^f = H(R_1 … R_n), (4)
        intensity = over_clips(self.score(clips))  # A (m b c n), (5)
        pooled = pool(intensity, clips)  # V-hat^f (m b c d), (7) and (8)
        logits = torch.einsum("mbcd,mdc->mbc", pooled, self.classify.weight.to(pooled.dtype))  # (9), before its softmax
        return Output(logits, pooled.flatten(2), intensity)


class CEFL(nn.Module):
    """The full head: SAL, LRL, EIAN."""

    loss = "bce"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.sal, self.lrl, self.eian = SAL(models, width), LRL(models, width), EIAN(models, width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: Noise) -> Output:
        clips, frame_weights = self.lrl(self.sal(frames))
        found = self.eian(clips)
        return Output(found.logits, found.embedding, found.intensity, frame_weights)
