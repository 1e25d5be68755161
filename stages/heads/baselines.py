"""Baseline heads: parts of CEFLNet (table 6) and heads of other papers, on the same features.

Axes: m models, b videos, n clips, k frames of a clip, d features, c classes. None of these heads has an intensity map.
All of them see the same n x k sampled frames as CEFLNet; overlapping clips may sample a frame twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .ceflnet import LRL, SAL, normalized_gates
from .layers import BatchedDropout, BatchedLinear, BatchedLSTM, HeadOutput


class MeanPool(nn.Module):
    """Row "ResNet-18" of table 6: the mean over all sampled frames, then a linear classifier."""

    loss = "bce"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.classify = BatchedLinear(num_models, dim, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        video = frames.mean(dim=(2, 3))
        return HeadOutput(self.classify(video), video)


class CNNLSTM(nn.Module):
    """Row "CNN-LSTM" of table 6: one LSTM over the sampled frames in clip order, and its last hidden state classified.

    The paper gives no size; HIDDEN_SIZE is our choice.
    """

    loss = "bce"
    HIDDEN_SIZE = 128

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.lstm = BatchedLSTM(num_models, dim, self.HIDDEN_SIZE)
        self.classify = BatchedLinear(num_models, self.HIDDEN_SIZE, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        video = self.lstm(frames.flatten(2, 3))
        return HeadOutput(self.classify(video), video)


class SALHead(nn.Module):
    """Row "+ SAL" of table 6: attended frames averaged to clips, clips averaged to the video."""

    loss = "bce"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.sal = SAL(num_models, dim)
        self.classify = BatchedLinear(num_models, dim, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        video = self.sal(frames).mean(dim=(2, 3))
        return HeadOutput(self.classify(video), video)


class SALLRLHead(nn.Module):
    """Row "+ LRL" of table 6: SAL and LRL (the full CFE), clips averaged to the video."""

    loss = "bce"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.sal, self.lrl = SAL(num_models, dim), LRL(num_models, dim)
        self.classify = BatchedLinear(num_models, dim, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        clips, frame_weights = self.lrl(self.sal(frames))
        video = clips.mean(dim=2)
        return HeadOutput(self.classify(video), video, frame_weights=frame_weights)


class FAN(nn.Module):
    """Frame attention network (Meng et al., ICIP 2019; https://github.com/Open-Debin/Emotion-FAN): self-attention weights, then
    relation attention, on frames.

    alpha_i = sigmoid(f_i q0); f'_v = sum(alpha f) / sum(alpha); beta_i = sigmoid([f_i : f'_v] q1);
    f_v = sum(alpha beta [f_i : f'_v]) / sum(alpha beta).
    """

    loss = "cross-entropy"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.alpha = BatchedLinear(num_models, dim, 1)
        self.beta = BatchedLinear(num_models, 2 * dim, 1)
        self.classify = BatchedLinear(num_models, 2 * dim, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        f = frames.flatten(2, 3)
        alpha = self.alpha(f).squeeze(-1)
        anchor = (normalized_gates(alpha)[..., None] * f).sum(dim=2, keepdim=True)
        both = torch.cat([f, anchor.expand_as(f)], dim=-1)
        log_weight = F.logsigmoid(alpha) + F.logsigmoid(self.beta(both).squeeze(-1))
        video = (torch.softmax(log_weight, dim=-1)[..., None] * both).sum(dim=2)
        return HeadOutput(self.classify(video), video, frame_weights=log_weight.exp().unflatten(2, frames.shape[2:4]))
