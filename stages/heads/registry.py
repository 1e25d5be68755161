"""Registry of heads."""

from __future__ import annotations

from torch import nn

from ...cache.errors import CeflError, did_you_mean
from .baselines import CNNLSTM, FAN, MeanPool, SALHead, SALLRLHead
from .ceflnet import CEFLNetHead
from .ceflnet_released import CEFLNetReleased

HEADS: dict[str, type[nn.Module]] = {
    "cefl": CEFLNetHead,
    "sal": SALHead,
    "sal+lrl": SALLRLHead,
    "released": CEFLNetReleased,
    "mean": MeanPool,
    "lstm": CNNLSTM,
    "fan": FAN,
}
HEAD_ALIASES = {"paper": "cefl"}
HEAD_TITLES = {
    "cefl": "CEFLNet (paper's equations)",
    "sal": "+ SAL",
    "sal+lrl": "+ SAL + LRL",
    "released": "CEFLNet (released code)",
    "mean": "mean of frames",
    "lstm": "CNN-LSTM",
    "fan": "FAN",
}


def resolve_head(name: str) -> str:
    """Return the name of a head in HEADS, given its name or alias; raises CeflError with the known ones."""
    name = HEAD_ALIASES.get(name, name)
    if name not in HEADS:
        raise CeflError(f"--head {name}: unknown{did_you_mean(name, list(HEADS))}")
    return name


def build_head(name: str, num_models: int, dim: int, num_classes: int) -> nn.Module:
    """Return ``num_models`` uninitialized models of a head, for features (…, dim), as one batched module."""
    return HEADS[resolve_head(name)](num_models, dim, num_classes)
