"""CEFLNet after its encoder, as the authors' released code computes it (the ``released`` variant).

Where it differs from the paper's equations: four attention heads with a residual and layer normalisation; clips are
summarised by the maximum; the gate and the weighted mean see the backbone's frames beside the summary; one intensity
map for all classes; a three-layer classifier. Axes: m models, b videos, n clips, k frames, d = 512, c classes, h heads.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .cefl import over_clips, shares
from .layers import LayerNorm, Linear, Noise, Output

HEADS = 4


class Attention(nn.Module):
    """Multi-head self-attention over the frames of a clip, dropout 0.1, residual, layer normalisation."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (Linear(models, width, width) for _ in range(4))
        self.norm = LayerNorm(models, width)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: Noise) -> Float[Tensor, "m b n k d"]:
        def split(x: Tensor) -> Tensor:  # (m b n k d) -> (m b n h k d/h)
            return x.unflatten(-1, (HEADS, -1)).transpose(-2, -3)

        q, k, v = split(self.query(frames)), split(self.key(frames)), split(self.value(frames))
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        mixed = (noise.drop(scores, 0.1) @ v).transpose(-2, -3).flatten(-2)
        return self.norm(frames + noise.drop(self.out(mixed), 0.1))


class Released(nn.Module):
    """The whole released head."""

    loss = "cross-entropy"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.attention = Attention(models, width)
        self.gate = Linear(models, 2 * width, 1)
        self.out = Linear(models, 2 * width, width)
        self.score = Linear(models, width, 1, bias=False)
        self.classify1 = Linear(models, width, width // 2)
        self.classify2 = Linear(models, width // 2, width // 4)
        self.classify3 = Linear(models, width // 4, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: Noise) -> Output:
        summary = self.attention(frames, noise).amax(dim=-2, keepdim=True)
        both = torch.cat([frames, summary.expand_as(frames)], dim=-1)
        gate = self.gate(noise.drop(both, 0.5)).squeeze(-1)
        clips = self.out((shares(gate)[..., None] * both).sum(dim=-2))
        intensity = over_clips(self.score(clips))  # (m b 1 n)
        pooled = (intensity.transpose(-1, -2) * clips).amax(dim=2)
        hidden = torch.relu(self.classify1(noise.drop(pooled, 0.4)))
        hidden = torch.relu(self.classify2(noise.drop(hidden, 0.4)))
        return Output(self.classify3(hidden), pooled, intensity, torch.sigmoid(gate))
