"""Batched layers: linear, layer normalization, LSTM and dropout for several models at once.

Axes: m models (folds and seeds that are trained together, each with its own parameters), … any axes, i inputs, o outputs.
A single model is m = 1. A model's numbers do not depend on how many others are computed with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadOutput:
    """Output of a head; parts that a head does not have are None.

    logits (m, b, C). embedding (m, b, e): the representation before the classifier. intensity A (m, b, maps, n): how much
    emotion each clip has, summing to one over clips; one map per class, or one for all (maps = 1). frame_weights
    (m, b, n, k) in 0..1.
    """

    logits: Float[Tensor, "m b c"]
    embedding: Float[Tensor, "m b e"]
    intensity: Float[Tensor, "m b maps n"] | None = None
    frame_weights: Float[Tensor, "m b n k"] | None = None


class BatchedDropout:
    """Dropout with one generator per model: a model draws the same numbers alone and with others.

    ``batch_size``: videos of a full batch. Numbers are drawn for all of them, also if ``x`` has fewer, so that later draws
    do not depend on it. Without generators (evaluation) nothing is dropped.
    """

    def __init__(self, generators: list[torch.Generator] | None, batch_size: int = 0) -> None:
        self._generators, self._batch_size = generators, batch_size

    def dropout(self, x: Float[Tensor, "m b ..."], p: float) -> Float[Tensor, "m b ..."]:
        """Set each number to zero with probability ``p`` and scale the others by 1 / (1 - p), as torch's dropout does."""
        if self._generators is None or p == 0.0:
            return x
        videos = x.shape[1]
        shape = (max(self._batch_size, videos), *x.shape[2:])
        draws = [torch.rand(shape, generator=generator, device=x.device)[:videos] for generator in self._generators]
        return x * (torch.stack(draws) >= p) / (1.0 - p)


class BatchedLinear(nn.Module):
    """y = x W + b; every model has its own W (i, o) and b."""

    def __init__(self, num_models: int, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_models, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(num_models, 1, out_features)) if bias else None
        self.bound = 1.0 / math.sqrt(in_features)

    def forward(self, x: Float[Tensor, "m ... i"]) -> Float[Tensor, "m ... o"]:
        flat = x.flatten(1, -2)
        y = torch.bmm(flat, self.weight) if self.bias is None else torch.baddbmm(self.bias, flat, self.weight)
        return y.unflatten(1, x.shape[1:-1])


class BatchedLayerNorm(nn.Module):
    """Layer normalization over the last axis; every model has its own scale and shift."""

    def __init__(self, num_models: int, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_models, dim))
        self.shift = nn.Parameter(torch.zeros(num_models, dim))

    def forward(self, x: Float[Tensor, "m ... d"]) -> Float[Tensor, "m ... d"]:
        shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        return F.layer_norm(x, x.shape[-1:]) * self.scale.view(shape) + self.shift.view(shape)


class BatchedLSTM(nn.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997; gates i, f, g, o as in torch); returns the last hidden state."""

    def __init__(self, num_models: int, in_features: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.from_input = BatchedLinear(num_models, in_features, 4 * hidden_size)
        self.from_hidden = BatchedLinear(num_models, hidden_size, 4 * hidden_size, bias=False)
        # torch initializes all parameters of an LSTM from the same range
        self.from_input.bound = self.from_hidden.bound = 1.0 / math.sqrt(hidden_size)

    def forward(self, x: Float[Tensor, "m b t i"]) -> Float[Tensor, "m b h"]:
        input_gates = self.from_input(x)
        hidden = x.new_zeros(*x.shape[:2], self.hidden_size)
        cell = torch.zeros_like(hidden)
        for t in range(x.shape[2]):
            i, f, g, o = (input_gates[:, :, t] + self.from_hidden(hidden)).chunk(4, dim=-1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden


def init_weights(head: nn.Module, generators: list[torch.Generator]) -> None:
    """Fill the linear layers as torch does: uniform within 1 / sqrt(inputs), each model from its own generator.

    Numbers are drawn on the CPU whatever the device, so that a run starts from the same ones everywhere.
    """
    for layer in head.modules():
        if not isinstance(layer, BatchedLinear):
            continue
        for parameter in layer.parameters(recurse=False):
            for m, generator in enumerate(generators):
                values = torch.empty(parameter.shape[1:]).uniform_(-layer.bound, layer.bound, generator=generator)
                with torch.no_grad():
                    parameter[m].copy_(values)
