"""CEFLNet after its encoder, as the authors' released code (https://github.com/CVLab-Liuyuanyuan/CEFLNet, models/Model.py)
computes it (head ``released``).

Differences from the paper's equations: four attention heads with a residual and layer normalization; clips are summarized
by the maximum; the gate and the weighted mean see the backbone's frames next to the summary; one intensity map for all
classes; a three-layer classifier. Axes: m models, b videos, n clips, k frames, d features (512 in the released weights),
c classes, h attention heads.
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
    """Multi-head self-attention over the frames of a clip, dropout 0.1, residual, layer normalization."""

    def __init__(self, num_models: int, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (BatchedLinear(num_models, dim, dim) for _ in range(4))
        self.norm = BatchedLayerNorm(num_models, dim)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> Float[Tensor, "m b n k d"]:
        q, k, v = (
            layer(frames).unflatten(-1, (NUM_HEADS, -1)).transpose(-2, -3)  # (m b n k d) -> (m b n h k d/h)
            for layer in (self.query, self.key, self.value)
        )
        attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        attended = (dropout.dropout(attention, 0.1) @ v).transpose(-2, -3).flatten(-2)
        return self.norm(frames + dropout.dropout(self.out(attended), 0.1))


class CEFLNetReleased(nn.Module):
    """The full head of the released code."""

    loss = "cross-entropy"

    def __init__(self, num_models: int, dim: int, num_classes: int) -> None:
        """Raises CeflError if the attention heads do not divide the features."""
        super().__init__()
        if dim % NUM_HEADS:
            raise CeflError(
                f"head released: its {NUM_HEADS} attention heads share the features of a frame, and {dim} is not a multiple of "
                f"{NUM_HEADS}; use --head cefl, or an encoder of another width"
            )
        self.attention = MultiHeadAttention(num_models, dim)
        self.gate = BatchedLinear(num_models, 2 * dim, 1)
        self.out = BatchedLinear(num_models, 2 * dim, dim)
        self.score = BatchedLinear(num_models, dim, 1, bias=False)
        self.classify1 = BatchedLinear(num_models, dim, dim // 2)
        self.classify2 = BatchedLinear(num_models, dim // 2, dim // 4)
        self.classify3 = BatchedLinear(num_models, dim // 4, num_classes)

    def forward(self, frames: Float[Tensor, "m b n k d"], dropout: BatchedDropout) -> HeadOutput:
        summary = self.attention(frames, dropout).amax(dim=-2, keepdim=True)
        both = torch.cat([frames, summary.expand_as(frames)], dim=-1)
        gate = self.gate(dropout.dropout(both, 0.5)).squeeze(-1)
        clips = self.out((normalized_gates(gate)[..., None] * both).sum(dim=-2))
        intensity = clip_softmax(self.score(clips))  # (m b 1 n)
        pooled = (intensity.transpose(-1, -2) * clips).amax(dim=2)
        hidden = torch.relu(self.classify2(torch.relu(self.classify1(pooled))))
        return HeadOutput(self.classify3(dropout.dropout(hidden, 0.4)), pooled, intensity, torch.sigmoid(gate))


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
"""Keys of the authors' state dicts (models/Model.py of CVLab-Liuyuanyuan/CEFLNet), and our parameters; several if theirs
stacks them along the first axis."""
UNUSED_PREFIX = "fc2."
"""A layer 2048 -> 512 that a version of the authors' model has and never calls."""
BACKBONE_PREFIXES = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
"""Keys of a released checkpoint's encoder, which ``ceflpipe encoder file:PATH`` takes."""


def load_released_state(head: CEFLNetReleased, state: Mapping[str, Tensor], source: str) -> None:
    """Copy the head of a released checkpoint's state dict into every model of ``head``.

    A ``module.`` prefix is stripped; the encoder's keys and ``unused_keys`` are passed over. Raises CeflError, which names
    ``source``, if the features have another width than those of the checkpoint (512: ResNet-18), and lists every key that is
    missing, unexpected, or of another shape (such as a classifier for another number of labels).
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith((*BACKBONE_PREFIXES, UNUSED_PREFIX))}
    dim, width = head.get_parameter("score.weight").shape[1], len(state.get("norm1.weight", ()))
    if width and width != dim:
        raise CeflError(
            f"{source}: the weights of a released CEFLNet for features of width {width}, those of its ResNet-18; the features "
            f"here have width {dim}; use the features of a ResNet-18 (--encoder faces), or leave out --init"
        )
    targets = {key: [_torch_layout(head, name) for name in names] for key, names in STATE_DICT_MAP.items()}
    shapes = {key: (sum(view.shape[1] for view in views), *views[0].shape[2:]) for key, views in targets.items()}
    problems = [f"missing {key}" for key in targets if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in targets]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    if problems:
        raise CeflError(
            f"{source}: not the head of a released CEFLNet: {'; '.join(problems)}; "
            "use a checkpoint that the authors' code trained for these labels"
        )
    with torch.no_grad():
        for key, views in targets.items():
            for view, value in zip(views, state[key].split([view.shape[1] for view in views]), strict=True):
                view.copy_(value.to(view.dtype).expand_as(view))


def unused_keys(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of a released checkpoint that belong to the layer its model never uses."""
    return sorted(key for key in (key.removeprefix("module.") for key in state) if key.startswith(UNUSED_PREFIX))


def _torch_layout(head: CEFLNetReleased, name: str) -> Tensor:
    """Return a view (m, out, …) of a parameter in the layout of torch's own layers."""
    parameter = head.get_parameter(name)
    if name == "score.weight":  # a convolution with a kernel of one clip
        return parameter.mT[..., None]
    if name.endswith(".weight"):
        return parameter.mT
    return parameter.squeeze(1) if name.endswith(".bias") else parameter
