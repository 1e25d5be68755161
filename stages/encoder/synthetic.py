"""An encoder that needs no download: ResNet-18 trained to read expression intensities off rendered faces.

The actors it sees have numbers from 10,000 on; those of the demo data set start at 1, so no face is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..align import crop_by_landmarks
from ..demo.stills import stills
from ..demo.units import LABELS, UNITS
from ..device import autocast, checked_device, resolve_precision
from .augment import MARGIN, augmented
from .weights import IMAGENET_MEAN, IMAGENET_STD, bare_resnet18, write_encoder

LEARNING_RATE = 1e-3
AT_ONCE = 64
"""Pictures of one rendering task."""
TESTED = 6
"""Tasks of pictures of further actors on which the finished encoder is scored."""

TARGETS = len(LABELS) + len(UNITS)
"""What the network learns to read: the intensity of each expression, and of each action unit, which tells a passing
twitch from an expression."""

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Sheet:
    """A rendering task: which one, with which seed, for crops of which size."""

    number: int
    seed: int
    size: int


def train(
    out: Path,
    name: str,
    *,
    pictures: int,
    steps: int,
    batch: int,
    size: int,
    seed: int,
    device: str = "auto",
    mapper: Mapper = map,
    on_step: Callable[[str], None] = lambda note: None,
) -> dict[str, str]:
    """Render ``pictures`` faces, train for ``steps`` batches of them, score on unseen actors, write the encoder file.

    Every batch is augmented anew. Targets are the intensities of the six expressions and of the action units (TARGETS);
    AdamW, one cycle up to 1e-3. The same seed gives the same file on one machine. Returns what is known of the result.
    ``on_step`` is called once per rendered sheet of AT_ONCE pictures and once per step.
    """
    place = checked_device(device)
    precision = resolve_precision("auto", place)
    sheets = max(1, -(-pictures // AT_ONCE))
    crops, wanted = _render(sheets + TESTED, size, seed, mapper, on_step)
    learned, tested = sheets * AT_ONCE, slice(sheets * AT_ONCE, None)
    torch.manual_seed(seed)
    network = bare_resnet18().to(place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch declares memory_format only without a device
    reader = nn.Linear(512, TARGETS).to(place)
    optimiser = torch.optim.AdamW([*network.parameters(), *reader.parameters()], lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=max(2, steps), pct_start=0.1)
    network.train()
    for pixels, target in _batches(crops[:learned], wanted[:learned], steps, batch, size, seed):
        with autocast(place, precision):
            said = reader(network(_prepared(pixels, place)))
        loss = nn.functional.mse_loss(said.float(), torch.from_numpy(target).to(place))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        on_step(f"learning, loss {loss.item():.4f}")
    network.eval()
    about = {
        "source": "actors",
        "pictures": str(learned),
        "steps": str(steps),
        "batch": str(batch),
        "size": str(size),
        "seed": str(seed),
    }
    about["held-out score"] = _score(network, reader, crops[tested], wanted[tested], size, place, precision)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    write_encoder(out, state, name, "imagenet", about)
    return about


def ticks(pictures: int, steps: int) -> int:
    """Return how often ``train`` calls ``on_step``."""
    return max(1, -(-pictures // AT_ONCE)) + TESTED + steps


def render_sheet(sheet: Sheet) -> tuple[int, np.ndarray, np.ndarray]:
    """Return (number, aligned crops with a margin, targets); every sheet has actors of its own."""
    drawn = stills(AT_ONCE, sheet.seed, 2 * sheet.size)
    wide = round(sheet.size * MARGIN)
    shift = (wide - sheet.size) / 2
    # aligned as stage one aligns, in the middle of a wider picture, so that augmentation can move it about
    crops = [
        crop_by_landmarks(picture, points, sheet.size, border=shift)
        for picture, points in zip(drawn.images, drawn.landmarks, strict=True)
    ]
    return sheet.number, np.stack(crops), np.concatenate([drawn.intensity, drawn.units], axis=1)


def _render(
    count: int, size: int, seed: int, mapper: Mapper, on_step: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    sheets = [Sheet(i, int(np.random.SeedSequence([seed, i]).generate_state(1)[0]), size) for i in range(count)]
    wide = round(size * MARGIN)
    crops = np.empty((count, AT_ONCE, wide, wide, 3), np.uint8)
    wanted = np.empty((count, AT_ONCE, TARGETS), np.float32)
    for number, pictures, targets in mapper(render_sheet, sheets):
        crops[number], wanted[number] = pictures, targets
        on_step("rendering faces")
    return crops.reshape(-1, wide, wide, 3), wanted.reshape(-1, TARGETS)


def _batches(
    crops: np.ndarray, wanted: np.ndarray, steps: int, batch: int, size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (pixels, targets) in an order shuffled anew every round; the next batch is made while this one is learned."""
    rng = np.random.default_rng([seed, 1])
    rounds = -(-steps * batch // len(crops))
    order = np.concatenate([rng.permutation(len(crops)) for _ in range(rounds)])

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        chosen, own = order[step * batch : (step + 1) * batch], np.random.default_rng([seed, 2, step])
        return np.stack([augmented(crops[i], size, own) for i in chosen]), wanted[chosen]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, 0)
        for step in range(steps):
            made = waiting.result()
            if step + 1 < steps:
                waiting = pool.submit(make, step + 1)
            yield made


def _prepared(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)
    return (torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std


@torch.no_grad()
def _score(
    network: nn.Module,
    reader: nn.Module,
    crops: np.ndarray,
    wanted: np.ndarray,
    size: int,
    device: torch.device,
    precision: str,
) -> str:
    """Say how well the strongest expression is named on clean pictures of actors that were not trained on."""
    edge = (crops.shape[1] - size) // 2
    plain = crops[:, edge : edge + size, edge : edge + size]
    said = []
    for i in range(0, len(plain), AT_ONCE):
        with autocast(device, precision):
            said.append(
                reader(network(_prepared(np.ascontiguousarray(plain[i : i + AT_ONCE]), device))).float().cpu().numpy()
            )
    expressions, found = wanted[:, : len(LABELS)], np.concatenate(said)[:, : len(LABELS)]
    clear = expressions.max(axis=1) >= 0.5
    right = (found.argmax(axis=1) == expressions.argmax(axis=1))[clear]
    return f"{100 * right.mean():.1f} % of {len(right)} clear expressions of unseen actors named right"
