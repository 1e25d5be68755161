"""Registry of heads."""

from __future__ import annotations

from torch import nn

from ...cache.errors import CeflError, did_you_mean
from .baselines import CNNLSTM, FAN, Mean, SALOnly, SALThenLRL
from .ceflnet import CEFL
from .ceflnet_released import Released

HEADS: dict[str, type[nn.Module]] = {
    "cefl": CEFL,
    "sal": SALOnly,
    "sal+lrl": SALThenLRL,
    "released": Released,
    "mean": Mean,
    "lstm": CNNLSTM,
    "fan": FAN,
}
ALIASES = {"paper": "cefl"}
TITLES = {
    "cefl": "CEFLNet (paper's equations)",
    "sal": "+ SAL",
    "sal+lrl": "+ SAL + LRL",
    "released": "CEFLNet (released code)",
    "mean": "ResNet-18, mean of frames",
    "lstm": "CNN-LSTM",
    "fan": "FAN",
}


def resolve_head(name: str) -> str:
    """Return a head's own name for a name or alias; raises CeflError with the known ones."""
    name = ALIASES.get(name, name)
    if name not in HEADS:
        raise CeflError(f"--head {name}: unknown{did_you_mean(name, list(HEADS)) or ';'} known: {', '.join(HEADS)}")
    return name


def make_head(name: str, models: int, width: int, classes: int) -> nn.Module:
    return HEADS[resolve_head(name)](models, width, classes)
