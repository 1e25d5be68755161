"""How does the configuration of stage two become the recipe of a run on this machine?"""

from __future__ import annotations

import torch

from ..stages.device import resolve_precision
from ..stages.heads.names import resolve_head
from ..stages.heads.train import Recipe
from .config import TrainConfig


def recipe_of(settings: TrainConfig, device: torch.device) -> Recipe:
    """Settle what 'auto' stands for: head and precision."""
    values = settings.model_dump(exclude={"select", "views", "seed"})
    values["head"] = resolve_head(settings.head)
    values["precision"] = resolve_precision(settings.precision, device)
    if values["precision"] == "fp16":  # its range is too small for gradients without scaling
        values["precision"] = "fp32"
    return Recipe(**values)
