"""Layers that compute several models at once.

Axes: m models (folds and seeds trained side by side, each with its own parameters), … any axes, i inputs, o outputs.
One model is m = 1. A model's numbers do not depend on how many others are computed beside it.
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
    """What a head says of videos; parts a head does not have are None.

    logits (m, b, C). intensity A (m, b, maps, n): how much emotion each clip holds, summing to one over clips; one map
    per class, or one for all (maps = 1). frame_weights (m, b, n, k) in 0..1. embedding (m, b, e): the representation
    before the classifier.
    """

    logits: Float[Tensor, "m b c"]
    embedding: Float[Tensor, "m b e"]
    intensity: Float[Tensor, "m b maps n"] | None = None
    frame_weights: Float[Tensor, "m b n k"] | None = None

    def located_clip(self, label: Tensor) -> Tensor | None:
        """P_e of equation 6: the clip with the highest intensity in the map of ``label`` (m, b); (m, b) or None."""
        if self.intensity is None:
            return None
        maps = self.intensity.shape[2]
        chosen = label if maps > 1 else torch.zeros_like(label)
        index = chosen[..., None, None].expand(*label.shape, 1, self.intensity.shape[3])
        return self.intensity.gather(2, index).squeeze(2).argmax(dim=-1)


class BatchedDropout:
    """Dropout as a value: one generator per model, so that a model draws the same alone and beside others.

    ``batch``: videos of a whole batch. Numbers are drawn for all of them however few ``x`` has, so that the draws that
    follow do not depend on it either. ``Noise(None)`` drops nothing (evaluation).
    """

    def __init__(self, generators: list[torch.Generator] | None, batch: int = 0) -> None:
        self._generators, self._batch = generators, batch

    def dropout(self, x: Float[Tensor, "m b ..."], rate: float) -> Float[Tensor, "m b ..."]:
        """Set a share ``rate`` of the numbers to zero and scale the rest up, as torch's dropout does."""
        if self._generators is None or rate == 0.0:
            return x
        videos = x.shape[1]
        shape = (max(self._batch, videos), *x.shape[2:])
        draws = [torch.rand(shape, generator=g, device=x.device)[:videos] for g in self._generators]
        return x * (torch.stack(draws) >= rate) / (1.0 - rate)


class BatchedLinear(nn.Module):
    """y = x W + b, each model with its own W (i, o) and b."""

    def __init__(self, models: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(models, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(models, 1, outputs)) if bias else None
        self.bound = 1.0 / math.sqrt(inputs)

    def forward(self, x: Float[Tensor, "m ... i"]) -> Float[Tensor, "m ... o"]:
        flat = x.flatten(1, -2)
        y = torch.bmm(flat, self.weight) if self.bias is None else torch.baddbmm(self.bias, flat, self.weight)
        return y.unflatten(1, x.shape[1:-1])


class BatchedLayerNorm(nn.Module):
    """Normalise over the last axis, then scale and shift with each model's own parameters."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(models, width))
        self.shift = nn.Parameter(torch.zeros(models, width))

    def forward(self, x: Float[Tensor, "m ... d"]) -> Float[Tensor, "m ... d"]:
        shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        return F.layer_norm(x, x.shape[-1:]) * self.scale.view(shape) + self.shift.view(shape)


class BatchedLSTM(nn.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997, with torch's gates i, f, g, o); returns the last hidden state."""

    def __init__(self, models: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = BatchedLinear(models, inputs, 4 * hidden)
        self.from_hidden = BatchedLinear(models, hidden, 4 * hidden, bias=False)
        # torch draws all of an LSTM's numbers from the same range
        self.from_input.bound = self.from_hidden.bound = 1.0 / math.sqrt(hidden)

    def forward(self, x: Float[Tensor, "m b t i"]) -> Float[Tensor, "m b h"]:
        gates_of_input = self.from_input(x)
        hidden = x.new_zeros(*x.shape[:2], self.hidden)
        cell = torch.zeros_like(hidden)
        for t in range(x.shape[2]):
            gates = gates_of_input[:, :, t] + self.from_hidden(hidden)
            i, f, g, o = gates.chunk(4, dim=-1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden


def init_weights(head: nn.Module, generators: list[torch.Generator]) -> None:
    """Fill the parameters: uniform within 1 / sqrt(inputs) as torch's layers do, each model from its own generator.

    Draws are made on the CPU whatever the device, so that a run starts from the same numbers everywhere.
    """
    for layer in head.modules():
        if not isinstance(layer, BatchedLinear):
            continue
        for parameter in (layer.weight, layer.bias):
            if parameter is None:
                continue
            for model, generator in enumerate(generators):
                drawn = torch.empty(parameter.shape[1:]).uniform_(-layer.bound, layer.bound, generator=generator)
                with torch.no_grad():
                    parameter[model].copy_(drawn)
