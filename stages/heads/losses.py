"""Losses per video: equation 11 (binary cross-entropy on softmax) and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def loss_per_video(
    name: str, logits: Float[Tensor, "m b c"], labels: Int[Tensor, "m b"], weights: Float[Tensor, "m c"] | None = None
) -> Float[Tensor, "m b"]:
    """Return the loss ``name`` (bce or cross-entropy) of every video, times the weight of its class if there are any."""
    losses = {"bce": binary_cross_entropy, "cross-entropy": cross_entropy}[name](logits, labels)
    return losses if weights is None else losses * weights.gather(1, labels)


def binary_cross_entropy(logits: Float[Tensor, "m b c"], labels: Int[Tensor, "m b"]) -> Float[Tensor, "m b"]:
    """Equation 11: binary cross-entropy on the softmax probabilities with a one-hot target, summed over classes.

    In log space: log p_c = z_c - logsumexp(z) and log(1 - p_c) = logsumexp(z without c) - logsumexp(z), which stays
    finite if p rounds to one.
    """
    logits = logits.float()
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    num_classes = logits.shape[-1]
    diagonal = torch.eye(num_classes, dtype=torch.bool, device=logits.device)
    rest = logits.unsqueeze(-2).expand(*logits.shape, num_classes).masked_fill(diagonal, -torch.inf)
    log_p, log_not_p = logits - total, torch.logsumexp(rest, dim=-1) - total
    target = F.one_hot(labels, num_classes).to(logits.dtype)
    return -(target * log_p + (1 - target) * log_not_p).sum(dim=-1)


def cross_entropy(logits: Float[Tensor, "m b c"], labels: Int[Tensor, "m b"]) -> Float[Tensor, "m b"]:
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
