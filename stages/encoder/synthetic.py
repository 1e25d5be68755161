"""ResNet-18 trained on rendered faces: the encoder that needs no download and no data.

The actors it sees have numbers from 10,000 on; those of the demo set start at 1, so no identity is in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..align import align_crop
from ..callbacks import Executor, ProgressCallback, ignore_progress
from ..demo.action_units import ACTION_UNITS, EXPRESSIONS
from ..demo.demo_dataset import render_still_images
from ..device import autocast, resolve_device, resolve_precision
from .augment import CONTEXT_RATIO, random_affine_crop
from .encoder_config import SyntheticEncoderConfig
from .weights import IMAGENET_MEAN, IMAGENET_STD, resnet18_backbone, write_encoder

LEARNING_RATE = 1e-3
IMAGES_PER_TASK = 64
NUM_VAL_TASKS = 6
"""Rendering tasks of further actors, on which the finished encoder is scored."""
NUM_TARGETS = len(EXPRESSIONS) + len(ACTION_UNITS)
"""Targets are the intensities of all expressions and action units, so that isolated units are not taken for expressions."""
MIN_INTENSITY = 0.5
"""Images whose strongest expression is weaker are left out of the validation accuracy."""


@dataclass(frozen=True)
class RenderTask:
    """IMAGES_PER_TASK images to be rendered."""

    number: int
    config: SyntheticEncoderConfig

    @property
    def seed(self) -> int:
        """Seed of this task's images."""
        return int(np.random.SeedSequence([self.config.seed, self.number]).generate_state(1)[0])


def train_synthetic_encoder(
    out: Path,
    name: str,
    config: SyntheticEncoderConfig,
    *,
    device: str = "auto",
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, str]:
    """Render faces, train ResNet-18 on them, score it on unseen actors, write the encoder file; return its metadata.

    Every batch is augmented differently. Targets are the intensities of the six expressions and of the action units
    (NUM_TARGETS); AdamW, one cycle up to 1e-3. The same seed gives the same file on one machine. ``on_progress`` counts
    rendering tasks and training steps.
    """
    size, seed, steps = config.crop_size, config.seed, config.steps
    num_tasks = max(1, -(-config.num_images // IMAGES_PER_TASK))
    num_train, total = num_tasks * IMAGES_PER_TASK, num_tasks + NUM_VAL_TASKS + steps
    crops, targets = _render(num_tasks + NUM_VAL_TASKS, total, config, executor, on_progress)
    torch_device = resolve_device(device)
    precision = resolve_precision("auto", torch_device)
    torch.manual_seed(seed)
    network = resnet18_backbone().to(torch_device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch declares memory_format only without a device
    head = nn.Linear(512, NUM_TARGETS).to(torch_device)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(2, steps), pct_start=0.1)
    network.train()
    batches = _batches(crops[:num_train], targets[:num_train], config)
    for completed, (pixels, target) in enumerate(batches, start=num_tasks + NUM_VAL_TASKS + 1):
        with autocast(torch_device, precision):
            output = head(network(normalize_pixels(pixels, torch_device)))
        loss = nn.functional.mse_loss(output.float(), torch.from_numpy(target).to(torch_device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        on_progress(completed, total, f"training, loss {loss.item():.4f}")
    network.eval()
    metadata = {"source": "actors", **{key: str(value) for key, value in config.model_dump().items()}}
    metadata["num_images"] = str(num_train)
    model = nn.Sequential(network, head)
    metadata["held_out_score"] = _val_accuracy(model, crops[num_train:], targets[num_train:], size, precision)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    write_encoder(out, state, name, "imagenet", metadata, crop_size=size)
    return metadata


def render_images(task: RenderTask) -> tuple[int, np.ndarray, np.ndarray]:
    """Return (number, aligned crops with a margin, targets); every task has actors of its own."""
    size = task.config.crop_size
    stills = render_still_images(IMAGES_PER_TASK, task.seed, 2 * size)
    margin = (round(size * CONTEXT_RATIO) - size) / 2
    # aligned as in stage one, in the middle of a wider image, so that augmentation can move and turn it
    crops = [
        align_crop(image, landmarks, size, margin=margin)
        for image, landmarks in zip(stills.images, stills.landmarks, strict=True)
    ]
    return task.number, np.stack(crops), np.concatenate([stills.intensity, stills.units], axis=1)


def render_faces(
    config: SyntheticEncoderConfig, executor: Executor, on_progress: ProgressCallback = ignore_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return crops with a margin (N, W, W, 3) and targets (N, NUM_TARGETS) of num_images faces, rounded up to whole tasks."""
    num_tasks = -(-config.num_images // IMAGES_PER_TASK)
    return _render(num_tasks, num_tasks, config, executor, on_progress)


def _render(
    num_tasks: int, total: int, config: SyntheticEncoderConfig, executor: Executor, on_progress: ProgressCallback
) -> tuple[np.ndarray, np.ndarray]:
    """Return crops with a margin (N, W, W, 3) and targets (N, NUM_TARGETS) of all tasks in order."""
    tasks = [RenderTask(number, config) for number in range(num_tasks)]
    width = round(config.crop_size * CONTEXT_RATIO)
    crops = np.empty((num_tasks, IMAGES_PER_TASK, width, width, 3), np.uint8)
    targets = np.empty((num_tasks, IMAGES_PER_TASK, NUM_TARGETS), np.float32)
    for completed, (number, images, values) in enumerate(executor(render_images, tasks), start=1):
        crops[number], targets[number] = images, values
        on_progress(completed, total, "rendering faces")
    return crops.reshape(-1, width, width, 3), targets.reshape(-1, NUM_TARGETS)


def _batches(
    crops: np.ndarray, targets: np.ndarray, config: SyntheticEncoderConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (pixels, targets), reshuffled every epoch; the next batch is made while this one is trained on."""
    seed, steps, size = config.seed, config.steps, config.batch_size
    rng = np.random.default_rng([seed, 1])
    epochs = -(-steps * size // len(crops))
    order = np.concatenate([rng.permutation(len(crops)) for _ in range(epochs)])

    def make_batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        indices, batch_rng = order[step * size : (step + 1) * size], np.random.default_rng([seed, 2, step])
        return np.stack([random_affine_crop(crops[i], config.crop_size, batch_rng) for i in indices]), targets[indices]

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(make_batch, 0)
        for step in range(steps):
            batch = future.result()
            if step + 1 < steps:
                future = pool.submit(make_batch, step + 1)
            yield batch


def normalize_pixels(
    pixels: np.ndarray,
    device: torch.device,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> torch.Tensor:
    """Return uint8 crops (N, S, S, 3) as the input (N, 3, S, S) of a network, by default with ImageNet normalization."""
    offset, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))
    return (torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255 - offset) / scale


@torch.no_grad()
def _val_accuracy(model: nn.Module, crops: np.ndarray, targets: np.ndarray, size: int, precision: str) -> str:
    """Return how often the strongest expression is recognized on clean images of actors that were not trained on."""
    device = next(model.parameters()).device
    edge = (crops.shape[1] - size) // 2
    clean = np.ascontiguousarray(crops[:, edge : edge + size, edge : edge + size])
    outputs = []
    for i in range(0, len(clean), IMAGES_PER_TASK):
        with autocast(device, precision):
            outputs.append(model(normalize_pixels(clean[i : i + IMAGES_PER_TASK], device)).float().cpu().numpy())
    expected, predicted = targets[:, : len(EXPRESSIONS)], np.concatenate(outputs)[:, : len(EXPRESSIONS)]
    clear = expected.max(axis=1) >= MIN_INTENSITY
    correct = (predicted.argmax(axis=1) == expected.argmax(axis=1))[clear]
    return f"{100 * correct.mean():.1f} % of {len(correct)} clear expressions of unseen actors"
