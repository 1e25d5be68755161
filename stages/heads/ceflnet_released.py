"""CEFLNet after its encoder, as the authors' released code computes it (the ``released`` variant).

Where it differs from the paper's equations: four attention heads with a residual and layer normalisation; clips are
summarised by the maximum; the gate and the weighted mean see the backbone's frames beside the summary; one intensity
map for all classes; a three-layer classifier. Axes: m models, b videos, n clips, k frames, d = 512, c classes, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...cache.errors import CeflError
from .ceflnet import clip_softmax, normalized_gates
from .layers import BatchedDropout, BatchedLayerNorm, BatchedLinear, HeadOutput

NUM_HEADS = 4


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention over the frames of a clip, dropout 0.1, residual, layer normalisation."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (BatchedLinear(models, width, width) for _ in range(4))
        self.norm = BatchedLayerNorm(models, width)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> Float[Tensor, "m b n k d"]:
        def split(x: Tensor) -> Tensor:  # (m b n k d) -> (m b n h k d/h)
            return x.unflatten(-1, (NUM_HEADS, -1)).transpose(-2, -3)

        q, k, v = split(self.query(frames)), split(self.key(frames)), split(self.value(frames))
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        mixed = (noise.dropout(scores, 0.1) @ v).transpose(-2, -3).flatten(-2)
        return self.norm(frames + noise.dropout(self.out(mixed), 0.1))


class CEFLNetReleased(nn.Module):
    """The whole released head."""

    loss = "cross-entropy"

    def __init__(self, models: int, width: int, classes: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(models, width)
        self.gate = BatchedLinear(models, 2 * width, 1)
        self.out = BatchedLinear(models, 2 * width, width)
        self.score = BatchedLinear(models, width, 1, bias=False)
        self.classify1 = BatchedLinear(models, width, width // 2)
        self.classify2 = BatchedLinear(models, width // 2, width // 4)
        self.classify3 = BatchedLinear(models, width // 4, classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], noise: BatchedDropout) -> HeadOutput:
        summary = self.attention(frames, noise).amax(dim=-2, keepdim=True)
        both = torch.cat([frames, summary.expand_as(frames)], dim=-1)
        gate = self.gate(noise.dropout(both, 0.5)).squeeze(-1)
        clips = self.out((normalized_gates(gate)[..., None] * both).sum(dim=-2))
        intensity = clip_softmax(self.score(clips))  # (m b 1 n)
        pooled = (intensity.transpose(-1, -2) * clips).amax(dim=2)
        hidden = torch.relu(self.classify2(torch.relu(self.classify1(pooled))))
        return HeadOutput(self.classify3(noise.dropout(hidden, 0.4)), pooled, intensity, torch.sigmoid(gate))


STATE_DICT_MAP = {
    "attn.in_proj_weight": ("attention.query.weight", "attention.key.weight", "attention.value.weight"),
    "attn.in_proj_bias": ("attention.query.bias", "attention.key.bias", "attention.value.bias"),
    "attn.out_proj.weight": ("attention.out.weight",),
    "attn.out_proj.bias": ("attention.out.bias",),
    "norm1.weight": ("attention.norm.scale",),
    "norm1.bias": ("attention.norm.shift",),
    "beta.0.weight": ("gate.weight",),
    "beta.0.bias": ("gate.bias",),
    "fc.weight": ("out.weight",),
    "fc.bias": ("out.bias",),
    "temp_attn.attn.0.weight": ("score.weight",),
    "classifier.0.weight": ("classify1.weight",),
    "classifier.0.bias": ("classify1.bias",),
    "classifier.2.weight": ("classify2.weight",),
    "classifier.2.bias": ("classify2.bias",),
    "classifier.5.0.weight": ("classify3.weight",),
    "classifier.5.0.bias": ("classify3.bias",),
}
"""Names in the authors' state dicts (models/Model.py of CVLab-Liuyuanyuan/CEFLNet) and our parameters, one below the
other where theirs are put together."""
BACKBONE_PREFIXES = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
"""What a released checkpoint holds besides the head: `ceflpipe encoder file:PATH` takes it."""


def load_released_state(head: CEFLNetReleased, state: Mapping[str, Tensor], where: str) -> None:
    """Fill every model of ``head`` with the head of a released checkpoint's state dict.

    A ``module.`` prefix is stripped and the encoder's keys are passed over. Raises CeflError that lists every key that
    is missing, unexpected, or of another shape (such as a classifier for another number of labels).
    """
    theirs = {key.removeprefix("module."): value for key, value in state.items()}
    theirs = {key: value for key, value in theirs.items() if not key.startswith(BACKBONE_PREFIXES)}
    ours = {key: [_torch_layout(head, name) for name in names] for key, names in STATE_DICT_MAP.items()}
    shapes = {key: (sum(view.shape[1] for view in views), *views[0].shape[2:]) for key, views in ours.items()}
    problems = [f"missing {key}" for key in ours if key not in theirs]
    problems += [f"unexpected {key}" for key in theirs if key not in ours]
    problems += [
        f"{key} is {tuple(theirs[key].shape)}, wanted {shape}"
        for key, shape in shapes.items()
        if key in theirs and tuple(theirs[key].shape) != shape
    ]
    if problems:
        raise CeflError(f"{where}: not the head of a released CEFLNet: {'; '.join(problems)}")
    with torch.no_grad():
        for key, views in ours.items():
            pieces = theirs[key].split([view.shape[1] for view in views])
            for view, piece in zip(views, pieces, strict=True):
                view.copy_(piece.to(view.dtype).expand_as(view))


def _torch_layout(head: CEFLNetReleased, name: str) -> Tensor:
    """Return a view (m, out, …) of a parameter in the layout of torch's own layers."""
    parameter = head.get_parameter(name)
    if name == "score.weight":  # a convolution with a kernel of one clip
        return parameter.mT[..., None]
    if name.endswith(".weight"):
        return parameter.mT
    return parameter.squeeze(1) if name.endswith(".bias") else parameter
