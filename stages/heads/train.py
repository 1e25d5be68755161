"""Batched training: all folds and seeds of a head as one computation, with the same results as training each alone.

Every model has its own parameters, sampled clips, dropout, optimizer state and last, smaller batch. The random numbers of an
epoch come from generators that are seeded by (seed, fold, epoch), so a model does not depend on the others. Axes: m models,
s steps of an epoch, b videos of a batch, n clips, k frames.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...cache.errors import CeflError, shorten_list
from ..device import autocast
from .ceflnet import gather_clips, run_head
from .clip_sampling import ClipIndices, sample_clips_train, unique_frames
from .feature_bank import FeatureBank, iter_ahead
from .layers import BatchedDropout, init_weights
from .losses import loss_per_video
from .malloc import keep_freed_memory
from .registry import build_head
from .train_config import TrainConfig


@dataclass(frozen=True)
class ModelSpec:
    """One of the models trained together: its seed and fold, and the videos (indices in FeatureBank) it trains on.

    ``learning_rate``, ``weight_decay``, ``epochs``: None for those of TrainConfig.
    """

    seed: int
    fold: str
    train: Tensor
    learning_rate: float | None = None
    weight_decay: float | None = None
    epochs: int | None = None

    def config(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration with the model's own values in it."""
        own = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay, "epochs": self.epochs}
        return config.model_copy(update={name: value for name, value in own.items() if value is not None})

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a generator for a purpose; its numbers depend on seed, fold and purpose only."""
        text = f"{self.seed} {self.fold} {purpose}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        return torch.Generator(device=device).manual_seed(seed)


@dataclass(frozen=True)
class EpochStats:
    """Statistics of an epoch (from 0), per model: learning rate, and mean loss and accuracy over its training videos.

    ``is_trained``: whether the model was trained in this epoch; else its epochs are over, and its statistics mean nothing.
    """

    epoch: int
    learning_rate: tuple[float, ...]
    loss: Tensor  # (m,)
    accuracy: Tensor  # (m,)
    is_trained: tuple[bool, ...]


def get_lr(epoch: int, config: TrainConfig) -> float:
    """Return the learning rate of an epoch (from 0): linear warm-up times a cosine, both stepped per epoch.

    With 120 epochs and T_max 160 the rate falls from 1e-4 to about 1.5e-5, as in the released code.
    """
    warmup = min(1.0, (epoch + 1) / config.warmup_epochs) if config.warmup_epochs else 1.0
    cosine = 1 + math.cos(math.pi * min(epoch, config.cosine_t_max) / config.cosine_t_max)
    return config.learning_rate * warmup * 0.5 * cosine


@keep_freed_memory()
def train(
    bank: FeatureBank,
    models: Sequence[ModelSpec],
    config: TrainConfig,
    on_epoch_end: Callable[[EpochStats, nn.Module], None] | None = None,
    init_fn: Callable[[nn.Module], None] | None = None,
    *,
    allow_infinite: bool = False,
) -> nn.Module:
    """Train one head per model, all at once, and return them as one batched module.

    A model whose epochs are over keeps its parameters while the others go on. ``init_fn`` may change the initial parameters.
    Raises CeflError, which names the fold and the epoch, if a loss is NaN or infinite, unless that is allowed; it is of no
    consequence for other models.
    """
    device = bank.device
    head = build_head(config.head, len(models), bank.features.shape[1], bank.num_classes)
    init_weights(head, [model.generator("start") for model in models])
    if init_fn:
        init_fn(head)
    head.to(device)
    loss_name = getattr(head, "loss", "cross-entropy") if config.loss == "auto" else config.loss
    class_weights = _class_weights(bank, models) if config.class_weights else None
    configs = [model.config(config) for model in models]
    optimizer = BatchedAdam(head, configs)
    num_videos = torch.tensor([len(model.train) for model in models], device=device)
    for epoch in range(max(each.epochs for each in configs)):
        is_trained = tuple(epoch < each.epochs for each in configs)
        optimizer.set_epoch(epoch)
        videos, counts, clip_indices = sample_epoch(bank, models, config, epoch, is_trained)
        loss_weights = _loss_weights(counts, config.batch_size).to(device)
        dropout = BatchedDropout([model.generator(f"dropout {epoch}", device) for model in models], config.batch_size)
        total_loss, num_correct = torch.zeros(len(models), device=device), torch.zeros(len(models), device=device)
        sizes = counts.amax(dim=0).tolist()  # a last step is mostly padding: skip what no model needs
        steps = [clip_indices.step(step, size) for step, size in enumerate(sizes)]
        batches = [videos[:, step, :size] for step, size in enumerate(sizes)]
        gathered = iter_ahead(
            lambda step: gather_clips(head, bank, batches[step], steps[step]),  # noqa: B023 - of this epoch
            range(len(steps)), is_remote=bank.is_remote,
        )  # fmt: skip
        for step, frames in enumerate(gathered):
            batch, weights = batches[step], loss_weights[:, step, : sizes[step]]
            labels = bank.label[batch]
            with autocast(device, config.precision):
                output = run_head(head, frames, steps[step], dropout)
            losses = loss_per_video(loss_name, output.logits, labels, class_weights)
            optimizer.zero_grad()
            (losses * weights).sum().backward()
            optimizer.step(counts[:, step])
            is_video = weights > 0
            total_loss += (losses.detach() * is_video).sum(dim=1)
            num_correct += ((output.logits.argmax(dim=-1) == labels) & is_video).sum(dim=1)
        learning_rates = tuple(get_lr(epoch, each) for each in configs)
        stats = EpochStats(epoch, learning_rates, total_loss / num_videos, num_correct / num_videos, is_trained)
        if not allow_infinite:
            _check_finite(stats, models)
        if on_epoch_end:
            on_epoch_end(stats, head)
    return head


def sample_epoch(
    bank: FeatureBank, models: Sequence[ModelSpec], config: TrainConfig, epoch: int, is_trained: Sequence[bool]
) -> tuple[Tensor, Tensor, ClipIndices]:
    """Sample an epoch: videos (m, s, b), the number of videos in each batch (m, s), and frames (m, s, b, n, k).

    Models with fewer videos have smaller or empty batches at the end, padded with video 0, which has no weight; those that are
    not trained in this epoch have only such batches.
    """
    trained = [model for model, is_active in zip(models, is_trained, strict=True) if is_active]
    steps = max(-(-len(model.train) // config.batch_size) for model in trained)
    size = steps * config.batch_size
    videos = torch.zeros(len(models), size, dtype=torch.long)
    counts = torch.zeros(len(models), steps, dtype=torch.long)
    frames = torch.zeros(len(models), size, config.num_clips, config.frames_per_clip, dtype=torch.long)
    lengths = bank.length.cpu()
    for m, model in enumerate(models):
        if not is_trained[m]:
            continue
        generator = model.generator(f"draws {epoch}")
        count = len(model.train)
        order = model.train.cpu()[torch.randperm(count, generator=generator)]
        videos[m, :count] = order
        frames[m, :count] = sample_clips_train(
            lengths[order], config.num_clips, config.frames_per_clip, generator, config.long_videos
        )
        counts[m] = (count - torch.arange(steps) * config.batch_size).clamp(0, config.batch_size)
    device = bank.device
    shape = (len(models), steps, config.batch_size)
    clip_indices = unique_frames(frames.view(*shape, config.num_clips, config.frames_per_clip))
    return videos.view(shape).to(device), counts, clip_indices.to(device)


def _loss_weights(counts: Tensor, batch_size: int) -> Tensor:
    """Return the weight (m, s, b) of each video in its model's mean loss: 1 / count, and 0 for padding."""
    is_video = torch.arange(batch_size) < counts[..., None]
    return is_video / counts.clamp(min=1)[..., None]


def _class_weights(bank: FeatureBank, models: Sequence[ModelSpec]) -> Tensor:
    """Return factors (m, c) that give all classes of a model's training videos the same total weight; their mean over
    videos is one."""
    weights = []
    for model in models:
        counts = torch.bincount(bank.label[model.train], minlength=bank.num_classes).float()
        present = (counts > 0).sum()
        weights.append(torch.where(counts > 0, len(model.train) / (present * counts.clamp(min=1)), 0.0))
    return torch.stack(weights)


def _check_finite(stats: EpochStats, models: Sequence[ModelSpec]) -> None:
    finite = zip(models, stats.loss.isfinite().tolist(), stats.is_trained, strict=True)
    failed = [
        f"fold {model.fold} seed {model.seed}"
        for model, is_finite, is_trained in finite
        if is_trained and not is_finite
    ]
    if failed:
        raise CeflError(
            f"{shorten_list(failed)}: loss is NaN or infinite in epoch {stats.epoch + 1}; "
            "use a smaller --learning-rate, or check the features with ceflpipe inspect"
        )


class BatchedAdam:
    """Adam for a batch of models: each model's slice of a parameter is optimized as a parameter.

    Models of one learning rate and weight decay are a parameter group. A model whose batch is empty takes no step: its gradients
    are None, and Adam leaves such parameters, their moments and their step counts unchanged.
    """

    def __init__(self, head: nn.Module, configs: Sequence[TrainConfig]) -> None:
        """``configs``: one per model; everything but learning rate, weight decay and epochs is the same in all."""
        self._params = [(param, [param.detach()[m] for m in range(len(configs))]) for param in head.parameters()]
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for m, config in enumerate(configs):
            values = {"params": [], "lr": config.learning_rate, "weight_decay": config.weight_decay, "config": config}
            group = groups.setdefault((config.learning_rate, config.weight_decay), values)
            group["params"] += [slices[m] for _, slices in self._params]
        self._adam = torch.optim.Adam(list(groups.values()), fused=True)

    def set_epoch(self, epoch: int) -> None:
        """Set the learning rates of an epoch (from 0)."""
        for group in self._adam.param_groups:
            group["lr"] = get_lr(epoch, group["config"])

    def zero_grad(self) -> None:
        for param, slices in self._params:
            for tensor in (param, *slices):  # the slices share its memory, which the next gradients can then reuse
                tensor.grad = None

    def step(self, counts: Tensor) -> None:
        """Take a step with every model whose batch has videos; ``counts`` (m,) are their numbers."""
        active = (counts > 0).tolist()
        for param, slices in self._params:
            for m, model_slice in enumerate(slices):
                model_slice.grad = param.grad[m] if active[m] and param.grad is not None else None
        self._adam.step()
