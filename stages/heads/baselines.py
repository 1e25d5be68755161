"""The rows beside CEFLNet: parts of it (table 6), and heads of other papers on the same features.

Axes: m models, b videos, n clips, k frames of a clip, d = 512 features, c classes. None of them has an intensity map.
Overlapping sub-videos may draw a frame twice; every head here sees the same n x k draws as CEFLNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .ceflnet import LRL, SAL, normalized_gates
from .layers import BatchedDropout, BatchedLinear, BatchedLSTM, HeadOutput


class MeanPool(nn.Module):
    """Row ResNet-18: the mean over all drawn frames, then a linear classifier."""

    loss = "bce"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.classify = BatchedLinear(models, width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        video = frames.mean(dim=(2, 3))
        return HeadOutput(self.classify(video), video)


class CNNLSTM(nn.Module):
    """Row CNN-LSTM: one LSTM over the drawn frames in clip order, its last hidden state classified.

    The paper gives no size; HIDDEN is our choice.
    """

    loss = "bce"
    HIDDEN = 128

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.lstm = BatchedLSTM(models, width, self.HIDDEN)
        self.classify = BatchedLinear(models, self.HIDDEN, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        video = self.lstm(frames.flatten(2, 3))
        return HeadOutput(self.classify(video), video)


class SALHead(nn.Module):
    """Row + SAL: attended frames averaged to clips, clips averaged to the video."""

    loss = "bce"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.sal = SAL(models, width)
        self.classify = BatchedLinear(models, width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        video = self.sal(frames).mean(dim=(2, 3))
        return HeadOutput(self.classify(video), video)


class SALLRLHead(nn.Module):
    """Row + LRL: the whole CFE, clips averaged to the video."""

    loss = "bce"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.sal, self.lrl = SAL(models, width), LRL(models, width)
        self.classify = BatchedLinear(models, width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        clips, frame_weights = self.lrl(self.sal(frames))
        video = clips.mean(dim=2)
        return HeadOutput(self.classify(video), video, frame_weights=frame_weights)


class FAN(nn.Module):
    """Frame attention network (Meng et al., ICIP 2019): self-attention weights, then relation attention, on frames.

    alpha_i = sigmoid(f_i q0); f'_v = sum(alpha f) / sum(alpha); beta_i = sigmoid([f_i : f'_v] q1);
    f_v = sum(alpha beta [f_i : f'_v]) / sum(alpha beta).
    """

    loss = "cross-entropy"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.alpha = BatchedLinear(models, width, 1)
        self.beta = BatchedLinear(models, 2 * width, 1)
        self.classify = BatchedLinear(models, 2 * width, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        f = frames.flatten(2, 3)
        alpha = self.alpha(f).squeeze(-1)
        anchor = (normalized_gates(alpha)[..., None] * f).sum(dim=2, keepdim=True)
        both = torch.cat([f, anchor.expand_as(f)], dim=-1)
        log_weight = F.logsigmoid(alpha) + F.logsigmoid(self.beta(both).squeeze(-1))
        video = (torch.softmax(log_weight, dim=-1)[..., None] * both).sum(dim=2)
        return HeadOutput(self.classify(video), video, frame_weights=log_weight.exp().unflatten(2, frames.shape[2:4]))
