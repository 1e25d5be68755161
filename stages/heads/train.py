"""Batched training: all folds and seeds of one head as one computation, each as if it were alone.

Every model has its own parameters, draws, dropout, optimiser state and last, smaller batch. Randomness is a value: the
draws of an epoch come from generators seeded by (seed, fold, epoch), so that a model's numbers do not depend on its
neighbours. Axes: m models, s steps of an epoch, b videos of a batch, n clips, k frames.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...cache.errors import CeflError
from ..device import autocast
from .ceflnet import for_training
from .clip_sampling import Drawn, draw_for_training, each_once
from .feature_bank import Data
from .layers import Noise, initialise
from .losses import loss_per_video
from .malloc import freed_memory_is_kept
from .registry import make_head


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a head is trained, besides the data. See configs/heads.yaml for where values are from."""

    head: str
    loss: str  # "bce", "cross-entropy", or "auto": the head's own
    clips: int
    frames: int
    longer: str
    epochs: int
    warmup: int
    cosine: int
    learning_rate: float
    weight_decay: float
    batch: int
    class_weights: bool
    precision: str  # "fp32" or "bf16", settled


@dataclass(frozen=True)
class Model:
    """One of the models trained together: its name in seeds, and the videos (positions in Data) it trains on."""

    seed: int
    fold: str
    train: Tensor

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a generator of its own for each purpose, the same whichever models stand beside this one."""
        text = f"{self.seed} {self.fold} {purpose}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        return torch.Generator(device=device).manual_seed(seed)


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch, per model: mean loss and accuracy over the videos it trained on."""

    number: int
    learning_rate: float
    loss: Tensor  # (m,)
    accuracy: Tensor  # (m,)


def learning_rate_of(epoch: int, recipe: Recipe) -> float:
    """Return the rate of an epoch (from 0): linear warm-up, times a cosine with T_max = ``cosine`` stepped per epoch.

    With 120 epochs and T_max 160 the rate ends near 1.5e-5 from 1e-4, as in the released code.
    """
    warm = min(1.0, (epoch + 1) / recipe.warmup) if recipe.warmup else 1.0
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(epoch, recipe.cosine) / recipe.cosine))


@freed_memory_is_kept()
def fit(
    data: Data,
    models: Sequence[Model],
    recipe: Recipe,
    on_epoch: Callable[[Epoch, nn.Module], None] = lambda epoch, head: None,
    start: Callable[[nn.Module], None] = lambda head: None,
) -> nn.Module:
    """Train one head per model, all at once, and return them as one batched module.

    ``start`` may change the freshly drawn parameters before the first step. Raises CeflError naming the fold and the
    epoch when a loss is no longer finite.
    """
    device = data.features.device
    head = make_head(recipe.head, len(models), data.features.shape[1], data.classes)
    initialise(head, [model.generator("start") for model in models])
    start(head)
    head.to(device)
    loss_name = getattr(head, "loss", "cross-entropy") if recipe.loss == "auto" else recipe.loss
    class_weights = _class_weights(data, models) if recipe.class_weights else None
    forward = for_training(head)
    optimiser = _SideBySideAdam(head, len(models), recipe)
    for number in range(recipe.epochs):
        rate = learning_rate_of(number, recipe)
        videos, counts, drawn = _epoch_draws(data, models, recipe, number)
        shares = _shares(counts, recipe.batch).to(device)
        noise = Noise([model.generator(f"dropout {number}", device) for model in models], recipe.batch)
        total_loss, total_right = torch.zeros(len(models), device=device), torch.zeros(len(models), device=device)
        for step in range(videos.shape[1]):
            most = int(counts[:, step].max())  # a last step is mostly empty places: leave out those no model needs
            batch, share = videos[:, step, :most], shares[:, step, :most]
            labels = data.label[batch]
            with autocast(device, recipe.precision):
                output = forward(data, batch, drawn.step(step, most), noise)
            losses = loss_per_video(loss_name, output.logits, labels, class_weights)
            optimiser.zero_grad()
            (losses * share).sum().backward()
            optimiser.step(rate, counts[:, step])
            counted = share > 0
            total_loss += (losses.detach() * counted).sum(dim=1)
            total_right += ((output.logits.argmax(dim=-1) == labels) & counted).sum(dim=1)
        seen = torch.tensor([len(model.train) for model in models], device=device)
        epoch = Epoch(number, rate, total_loss / seen, total_right / seen)
        _stop_unless_finite(epoch, models)
        on_epoch(epoch, head)
    return head


def _epoch_draws(data: Data, models: Sequence[Model], recipe: Recipe, epoch: int) -> tuple[Tensor, Tensor, Drawn]:
    """Draw a whole epoch at once: videos (m, s, b), how many of each batch are real (m, s), frames (m, s, b, n, k).

    Models with fewer videos have smaller or empty batches at the end; the places that are left over repeat video 0 and
    weigh nothing.
    """
    steps = max(-(-len(model.train) // recipe.batch) for model in models)
    size = steps * recipe.batch
    videos = torch.zeros(len(models), size, dtype=torch.long)
    counts = torch.zeros(len(models), steps, dtype=torch.long)
    frames = torch.zeros(len(models), size, recipe.clips, recipe.frames, dtype=torch.long)
    lengths = data.length.cpu()
    for place, model in enumerate(models):
        generator = model.generator(f"draws {epoch}")
        count = len(model.train)
        order = model.train.cpu()[torch.randperm(count, generator=generator)]
        videos[place, :count] = order
        frames[place, :count] = draw_for_training(lengths[order], recipe.clips, recipe.frames, generator, recipe.longer)
        whole, rest = divmod(count, recipe.batch)
        counts[place, :whole] = recipe.batch
        if rest:
            counts[place, whole] = rest
    device = data.features.device
    shape = (len(models), steps, recipe.batch)
    drawn = each_once(frames.view(*shape, recipe.clips, recipe.frames))
    return videos.view(shape).to(device), counts, drawn.to(device)


def _shares(counts: Tensor, batch: int) -> Tensor:
    """Return each place's weight (m, s, b) in its model's mean loss: 1 / count for real videos, 0 for left-over places."""
    real = torch.arange(batch) < counts[..., None]
    return real / counts.clamp(min=1)[..., None]


def _class_weights(data: Data, models: Sequence[Model]) -> Tensor:
    """Return factors (m, c) that give every class of a model's training videos the same say, one on average."""
    weights = []
    for model in models:
        counts = torch.bincount(data.label[model.train], minlength=data.classes).float()
        present = (counts > 0).sum()
        weights.append(torch.where(counts > 0, len(model.train) / (present * counts.clamp(min=1)), 0.0))
    return torch.stack(weights)


def _stop_unless_finite(epoch: Epoch, models: Sequence[Model]) -> None:
    bad = [
        f"fold {m.fold} seed {m.seed}"
        for m, loss in zip(models, epoch.loss.tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    if bad:
        raise CeflError(
            f"the loss of {', '.join(bad[:3])} is no longer a number in epoch {epoch.number + 1}; "
            "use a smaller --learning-rate, or look for odd features with ceflpipe inspect"
        )


class _SideBySideAdam:
    """One Adam over many models: each model's slice of a parameter is a parameter of its own.

    A model whose batch is empty takes no step: its gradients are withheld, and Adam leaves such parameters, their
    moments and their step counts alone.
    """

    def __init__(self, head: nn.Module, models: int, recipe: Recipe) -> None:
        self._whole = list(head.parameters())
        self._slices = [[parameter.detach()[m] for m in range(models)] for parameter in self._whole]
        flat = [piece for pieces in self._slices for piece in pieces]
        self._adam = torch.optim.Adam(flat, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)

    def zero_grad(self) -> None:
        for parameter, pieces in zip(self._whole, self._slices, strict=True):
            parameter.grad = None
            for piece in pieces:  # they look into the same memory, which the next step's gradients can then take
                piece.grad = None

    def step(self, rate: float, counts: Tensor) -> None:
        self._adam.param_groups[0]["lr"] = rate
        active = (counts > 0).tolist()
        for parameter, pieces in zip(self._whole, self._slices, strict=True):
            for m, piece in enumerate(pieces):
                piece.grad = parameter.grad[m] if active[m] and parameter.grad is not None else None
        self._adam.step()
