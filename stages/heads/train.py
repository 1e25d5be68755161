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

import torch
from torch import Tensor, nn

from ...cache.errors import CeflError, shorten_list
from ..device import autocast
from .ceflnet import run_head
from .clip_sampling import ClipIndices, sample_clips_train, unique_frames
from .feature_bank import FeatureBank
from .layers import BatchedDropout, init_weights
from .losses import loss_per_video
from .malloc import keep_freed_memory
from .registry import build_head
from .train_config import TrainConfig


@dataclass(frozen=True)
class ModelSpec:
    """One of the models trained together: its seed and fold, and the videos (indices in FeatureBank) it trains on."""

    seed: int
    fold: str
    train: Tensor

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a generator for a purpose; its numbers depend on seed, fold and purpose only."""
        text = f"{self.seed} {self.fold} {purpose}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        return torch.Generator(device=device).manual_seed(seed)


@dataclass(frozen=True)
class EpochStats:
    """Statistics of an epoch (from 0): learning rate, and per model mean loss and accuracy over its training videos."""

    epoch: int
    learning_rate: float
    loss: Tensor  # (m,)
    accuracy: Tensor  # (m,)


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
) -> nn.Module:
    """Train one head per model, all at once, and return them as one batched module.

    ``init_fn`` may change the initial parameters. Raises CeflError, which names the fold and the epoch, if a loss is NaN or
    infinite.
    """
    device = bank.features.device
    head = build_head(config.head, len(models), bank.features.shape[1], bank.num_classes)
    init_weights(head, [model.generator("start") for model in models])
    if init_fn:
        init_fn(head)
    head.to(device)
    loss_name = getattr(head, "loss", "cross-entropy") if config.loss == "auto" else config.loss
    class_weights = _class_weights(bank, models) if config.class_weights else None
    optimizer = BatchedAdam(head, len(models), config)
    num_videos = torch.tensor([len(model.train) for model in models], device=device)
    for epoch in range(config.epochs):
        learning_rate = get_lr(epoch, config)
        videos, counts, clip_indices = _sample_epoch(bank, models, config, epoch)
        loss_weights = _loss_weights(counts, config.batch_size).to(device)
        dropout = BatchedDropout([model.generator(f"dropout {epoch}", device) for model in models], config.batch_size)
        total_loss, num_correct = torch.zeros(len(models), device=device), torch.zeros(len(models), device=device)
        for step in range(videos.shape[1]):
            max_batch = int(counts[:, step].max())  # a last step is mostly padding: skip what no model needs
            batch, weights = videos[:, step, :max_batch], loss_weights[:, step, :max_batch]
            labels = bank.label[batch]
            with autocast(device, config.precision):
                output = run_head(head, bank, batch, clip_indices.step(step, max_batch), dropout)
            losses = loss_per_video(loss_name, output.logits, labels, class_weights)
            optimizer.zero_grad()
            (losses * weights).sum().backward()
            optimizer.step(learning_rate, counts[:, step])
            is_video = weights > 0
            total_loss += (losses.detach() * is_video).sum(dim=1)
            num_correct += ((output.logits.argmax(dim=-1) == labels) & is_video).sum(dim=1)
        stats = EpochStats(epoch, learning_rate, total_loss / num_videos, num_correct / num_videos)
        _check_finite(stats, models)
        if on_epoch_end:
            on_epoch_end(stats, head)
    return head


def _sample_epoch(
    bank: FeatureBank, models: Sequence[ModelSpec], config: TrainConfig, epoch: int
) -> tuple[Tensor, Tensor, ClipIndices]:
    """Sample an epoch: videos (m, s, b), the number of videos in each batch (m, s), and frames (m, s, b, n, k).

    Models with fewer videos have smaller or empty batches at the end, padded with video 0, which has no weight.
    """
    steps = max(-(-len(model.train) // config.batch_size) for model in models)
    size = steps * config.batch_size
    videos = torch.zeros(len(models), size, dtype=torch.long)
    counts = torch.zeros(len(models), steps, dtype=torch.long)
    frames = torch.zeros(len(models), size, config.num_clips, config.frames_per_clip, dtype=torch.long)
    lengths = bank.length.cpu()
    for m, model in enumerate(models):
        generator = model.generator(f"draws {epoch}")
        count = len(model.train)
        order = model.train.cpu()[torch.randperm(count, generator=generator)]
        videos[m, :count] = order
        frames[m, :count] = sample_clips_train(
            lengths[order], config.num_clips, config.frames_per_clip, generator, config.long_videos
        )
        counts[m] = (count - torch.arange(steps) * config.batch_size).clamp(0, config.batch_size)
    device = bank.features.device
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
    finite = zip(models, stats.loss.isfinite().tolist(), strict=True)
    failed = [f"fold {model.fold} seed {model.seed}" for model, is_finite in finite if not is_finite]
    if failed:
        raise CeflError(
            f"{shorten_list(failed)}: loss is NaN or infinite in epoch {stats.epoch + 1}; "
            "use a smaller --learning-rate, or check the features with ceflpipe inspect"
        )


class BatchedAdam:
    """Adam for a batch of models: each model's slice of a parameter is optimized as a parameter.

    A model whose batch is empty takes no step: its gradients are None, and Adam leaves such parameters, their moments and
    their step counts unchanged.
    """

    def __init__(self, head: nn.Module, num_models: int, config: TrainConfig) -> None:
        self._params = [(param, [param.detach()[m] for m in range(num_models)]) for param in head.parameters()]
        slices = [model_slice for _, slices in self._params for model_slice in slices]
        self._adam = torch.optim.Adam(slices, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)

    def zero_grad(self) -> None:
        for param, slices in self._params:
            for tensor in (param, *slices):  # the slices share its memory, which the next gradients can then reuse
                tensor.grad = None

    def step(self, learning_rate: float, counts: Tensor) -> None:
        """Take a step with every model whose batch has videos; ``counts`` (m,) are their numbers."""
        self._adam.param_groups[0]["lr"] = learning_rate
        active = (counts > 0).tolist()
        for param, slices in self._params:
            for m, model_slice in enumerate(slices):
                model_slice.grad = param.grad[m] if active[m] and param.grad is not None else None
        self._adam.step()
