"""An encoder that needs no download: ResNet-18 trained to read expression intensities off rendered faces.

The actors it sees have numbers from 10,000 on; those of the demo data set start at 1, so no face is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from ..demo.stills import stills
from ..demo.units import LABELS
from ..device import autocast, checked_device, resolve_precision
from ..extract.align import crop_by_landmarks
from .augment import augmented_crop
from .weights import IMAGENET_MEAN, IMAGENET_STD, bare_resnet18, write_encoder

LEARNING_RATE = 1e-3
TESTED = 300
"""Pictures of further actors on which the finished encoder is scored."""


def train(
    out: Path,
    name: str,
    *,
    steps: int,
    batch: int,
    size: int,
    seed: int,
    device: str = "auto",
    on_step: Callable[[str], None] = lambda note: None,
) -> dict[str, str]:
    """Train for ``steps`` batches of freshly rendered faces, score on unseen actors, write the encoder file.

    The target is the intensity (0..1) of each of the six expressions; AdamW, one cosine from 1e-3. Deterministic for a
    seed on one machine. Returns what is known of the result, the held-out score included.
    """
    place = checked_device(device)
    precision = resolve_precision("auto", place)
    torch.manual_seed(seed)
    network = bare_resnet18().to(place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    reader = nn.Linear(512, len(LABELS)).to(place)
    parameters = [*network.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=max(2, steps), pct_start=0.1)
    network.train()
    for pixels, wanted in _batches(steps, batch, size, seed):
        with autocast(place, precision):
            said = reader(network(_prepared(pixels, place)))
        loss = nn.functional.mse_loss(said.float(), torch.from_numpy(wanted).to(place))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        on_step(f"loss {loss.item():.4f}")
    network.eval()
    about = {"source": "actors", "steps": str(steps), "batch": str(batch), "size": str(size), "seed": str(seed)}
    about |= _score(network, reader, size, seed, place, precision)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    write_encoder(out, state, name, "imagenet", about)
    return about


def _batches(steps: int, batch: int, size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (pixels, intensities); the next batch is rendered while this one is learned."""

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        cv2.setNumThreads(1)
        pictures, landmarks, intensity = stills(batch, int(np.random.SeedSequence([seed, step]).generate_state(1)[0]), 2 * size)
        rng = np.random.default_rng([seed, step, 1])
        crops = [augmented_crop(p, l, size, rng) for p, l in zip(pictures, landmarks, strict=True)]
        return np.stack(crops), intensity

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(make, step) for step in range(min(3, steps))]
        for step in range(steps):
            made = waiting.pop(0).result()
            if step + 3 < steps:
                waiting.append(pool.submit(make, step + 3))
            yield made


def _prepared(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)
    return (torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std


@torch.no_grad()
def _score(
    network: nn.Module, reader: nn.Module, size: int, seed: int, device: torch.device, precision: str
) -> dict[str, str]:
    """Return how well the strongest expression is named on clean pictures of actors that were not trained on."""
    right = total = 0
    for part in range(6):
        test_seed = int(np.random.SeedSequence([seed, 0x7E57, part]).generate_state(1)[0])
        pictures, landmarks, intensity = stills(TESTED // 6, test_seed, 2 * size)
        crops = np.stack([crop_by_landmarks(p, l, size) for p, l in zip(pictures, landmarks, strict=True)])
        with autocast(device, precision):
            said = reader(network(_prepared(crops, device))).float().cpu().numpy()
        clear = intensity.max(axis=1) >= 0.5
        right += int((said.argmax(axis=1) == intensity.argmax(axis=1))[clear].sum())
        total += int(clear.sum())
    return {"held-out score": f"{100 * right / max(1, total):.1f} % of {total} clear expressions of unseen actors named right"}
