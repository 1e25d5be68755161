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
from .ceflnet import fused_head
from .clip_sampling import ClipIndices, sample_clips_train, unique_frames
from .feature_bank import FeatureBank
from .layers import BatchedDropout, init_weights
from .losses import loss_per_video
from .malloc import keep_freed_memory
from .registry import build_head
from .train_config import TrainConfig


@dataclass(frozen=True)
class ModelSpec:
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
class EpochStats:
    """What is known after an epoch, per model: mean loss and accuracy over the videos it trained on."""

    epoch: int
    learning_rate: float
    loss: Tensor  # (m,)
    accuracy: Tensor  # (m,)


def get_lr(epoch: int, config: TrainConfig) -> float:
    """Return the rate of an epoch (from 0): linear warm-up, times a cosine with T_max = ``cosine`` stepped per epoch.

    With 120 epochs and T_max 160 the rate ends near 1.5e-5 from 1e-4, as in the released code.
    """
    warm = min(1.0, (epoch + 1) / config.warmup_epochs) if config.warmup_epochs else 1.0
    return (
        config.learning_rate
        * warm
        * 0.5
        * (1 + math.cos(math.pi * min(epoch, config.cosine_t_max) / config.cosine_t_max))
    )


@keep_freed_memory()
def train(
    data: FeatureBank,
    models: Sequence[ModelSpec],
    config: TrainConfig,
    on_epoch_end: Callable[[EpochStats, nn.Module], None] | None = None,
    init_fn: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Train one head per model, all at once, and return them as one batched module.

    ``start`` may change the freshly drawn parameters before the first step. Raises CeflError naming the fold and the
    epoch when a loss is no longer finite.
    """
    device = data.features.device
    head = build_head(config.head, len(models), data.features.shape[1], data.num_classes)
    init_weights(head, [model.generator("start") for model in models])
    if init_fn:
        init_fn(head)
    head.to(device)
    loss_name = getattr(head, "loss", "cross-entropy") if config.loss == "auto" else config.loss
    class_weights = _class_weights(data, models) if config.class_weights else None
    forward = fused_head(head)
    optimiser = BatchedAdam(head, len(models), config)
    for number in range(config.epochs):
        rate = get_lr(number, config)
        videos, counts, drawn = _sample_epoch(data, models, config, number)
        shares = _loss_weights(counts, config.batch_size).to(device)
        noise = BatchedDropout([model.generator(f"dropout {number}", device) for model in models], config.batch_size)
        total_loss, total_right = torch.zeros(len(models), device=device), torch.zeros(len(models), device=device)
        for step in range(videos.shape[1]):
            most = int(counts[:, step].max())  # a last step is mostly empty places: leave out those no model needs
            batch, share = videos[:, step, :most], shares[:, step, :most]
            labels = data.label[batch]
            with autocast(device, config.precision):
                output = forward(data, batch, drawn.step(step, most), noise)
            losses = loss_per_video(loss_name, output.logits, labels, class_weights)
            optimiser.zero_grad()
            (losses * share).sum().backward()
            optimiser.step(rate, counts[:, step])
            counted = share > 0
            total_loss += (losses.detach() * counted).sum(dim=1)
            total_right += ((output.logits.argmax(dim=-1) == labels) & counted).sum(dim=1)
        seen = torch.tensor([len(model.train) for model in models], device=device)
        epoch = EpochStats(number, rate, total_loss / seen, total_right / seen)
        _check_finite(epoch, models)
        if on_epoch_end:
            on_epoch_end(epoch, head)
    return head


def _sample_epoch(
    data: FeatureBank, models: Sequence[ModelSpec], config: TrainConfig, epoch: int
) -> tuple[Tensor, Tensor, ClipIndices]:
    """Draw a whole epoch at once: videos (m, s, b), how many of each batch are real (m, s), frames (m, s, b, n, k).

    Models with fewer videos have smaller or empty batches at the end; the places that are left over repeat video 0 and
    weigh nothing.
    """
    steps = max(-(-len(model.train) // config.batch_size) for model in models)
    size = steps * config.batch_size
    videos = torch.zeros(len(models), size, dtype=torch.long)
    counts = torch.zeros(len(models), steps, dtype=torch.long)
    frames = torch.zeros(len(models), size, config.num_clips, config.frames_per_clip, dtype=torch.long)
    lengths = data.length.cpu()
    for place, model in enumerate(models):
        generator = model.generator(f"draws {epoch}")
        count = len(model.train)
        order = model.train.cpu()[torch.randperm(count, generator=generator)]
        videos[place, :count] = order
        frames[place, :count] = sample_clips_train(
            lengths[order], config.num_clips, config.frames_per_clip, generator, config.long_videos
        )
        whole, rest = divmod(count, config.batch_size)
        counts[place, :whole] = config.batch_size
        if rest:
            counts[place, whole] = rest
    device = data.features.device
    shape = (len(models), steps, config.batch_size)
    drawn = unique_frames(frames.view(*shape, config.num_clips, config.frames_per_clip))
    return videos.view(shape).to(device), counts, drawn.to(device)


def _loss_weights(counts: Tensor, batch: int) -> Tensor:
    """Return each place's weight (m, s, b) in its model's mean loss: 1 / count for real videos, 0 for left-over places."""
    real = torch.arange(batch) < counts[..., None]
    return real / counts.clamp(min=1)[..., None]


def _class_weights(data: FeatureBank, models: Sequence[ModelSpec]) -> Tensor:
    """Return factors (m, c) that give every class of a model's training videos the same say, one on average."""
    weights = []
    for model in models:
        counts = torch.bincount(data.label[model.train], minlength=data.num_classes).float()
        present = (counts > 0).sum()
        weights.append(torch.where(counts > 0, len(model.train) / (present * counts.clamp(min=1)), 0.0))
    return torch.stack(weights)


def _check_finite(epoch: EpochStats, models: Sequence[ModelSpec]) -> None:
    bad = [
        f"fold {m.fold} seed {m.seed}"
        for m, loss in zip(models, epoch.loss.tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    if bad:
        raise CeflError(
            f"the loss of {', '.join(bad[:3])} is no longer a number in epoch {epoch.epoch + 1}; "
            "use a smaller --learning-rate, or look for odd features with ceflpipe inspect"
        )


class BatchedAdam:
    """One Adam over many models: each model's slice of a parameter is a parameter of its own.

    A model whose batch is empty takes no step: its gradients are withheld, and Adam leaves such parameters, their
    moments and their step counts alone.
    """

    def __init__(self, head: nn.Module, models: int, config: TrainConfig) -> None:
        self._whole = list(head.parameters())
        self._slices = [[parameter.detach()[m] for m in range(models)] for parameter in self._whole]
        flat = [piece for pieces in self._slices for piece in pieces]
        self._adam = torch.optim.Adam(flat, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)

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
