"""Feature sequences composed of labelled face photographs: videos of real faces to train heads on, where none are at hand.

A composed video is a walk between the features of augmented photographs: neutral faces, an expression that rises out of them,
stays, and fades, or is there in every frame. Everything else of stage two works as on extracted videos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from ...cache.code_hash import code_hash
from ...cache.errors import CeflError
from ...cache.features import FrameStatus, VideoFeatures, VideoStatus
from ...cache.fingerprint import ExtractionSettings, fingerprint
from ..callbacks import ProgressCallback, ignore_progress
from ..encoder.augment import affine_crop, photometric_augment
from ..manifest.manifest import VideoEntry
from ..slots import NUM_SLOTS
from ..strict_model import StrictModel
from .encoder_base import Encoder

NEUTRAL = "neutral"
FPS = 25.0
NUM_VIEWS = 4
"""Augmented crops of the expression, and of the neutral face, in a composed video; the frames between are mixtures of them."""
KINDS = ("apex", "onset", "full")
"""The expression is in every frame; it rises to the last frame; it rises and fades."""
KIND_SHARES = (0.35, 0.25, 0.4)
MAX_FLICKER = 0.3
"""Share of an expression that flickers up in a neutral video."""
TWO_FACES = 0.3
"""Probability that the expression, or the neutral face, is that of two photographs."""
VIDEOS_PER_BATCH = 16

Split = Literal["train", "val", "test"]


class ComposeConfig(StrictModel, frozen=True):
    """How videos are composed; all labels are equally frequent."""

    num_videos: int = Field(default=6000, ge=2)
    val_share: float = Field(default=0.2, gt=0, lt=1)
    """Part of the videos that is composed of the validation photographs, and is the validation split."""
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    """Share of the votes that a photograph's label must have."""
    seed: int = 3456


@dataclass(frozen=True)
class LabelledCrops:
    """``crops`` uint8 (N, W, W, 3) with a margin, see PhotographCrops; ``targets`` (N, C) over ``labels``; ``splits`` (N,);
    ``names``: of the photographs."""

    crops: np.ndarray
    targets: np.ndarray
    splits: np.ndarray
    names: Sequence[str]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Walk:
    """How much of the expression each frame shows: ``share`` (T,) in 0..1, largest at frame ``apex`` (-1: nowhere)."""

    share: np.ndarray
    apex: int


def draw_walk(rng: np.random.Generator, label: str) -> Walk:
    """Return the course of a video of 3 to 105 frames."""
    kind = KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]
    if label == NEUTRAL:
        frames = int(rng.integers(3, 25)) if kind == "apex" else int(rng.integers(12, NUM_SLOTS + 1))
        share = np.zeros(frames)
        if rng.random() < 0.5:
            share += _bump(frames, int(rng.integers(0, frames)), rng.uniform(1, 5), rng.uniform(0, MAX_FLICKER))
        return Walk(share, -1)
    if kind == "apex":
        frames = int(rng.integers(3, 25))
        share = rng.uniform(0.75, 1) + np.zeros(frames)
        return Walk(share, int(rng.integers(0, frames)))
    frames = int(rng.integers(8, 61)) if kind == "onset" else int(rng.integers(20, NUM_SLOTS + 1))
    height, rest = rng.uniform(0.7, 1), rng.uniform(0, 0.1)
    rise = max(2, round(frames * rng.uniform(0.15, 0.5)))
    if kind == "onset":
        begin = int(rng.integers(0, frames - rise + 1))
        share = np.clip((np.arange(frames) - begin) / rise, 0, 1)
        return Walk(rest + (height - rest) * _smooth(share), frames - 1)
    fade = max(2, round(frames * rng.uniform(0.15, 0.4)))
    hold = int(rng.integers(1, max(2, frames // 3)))
    begin = int(rng.integers(-rise // 2, max(1, frames - hold - rise // 2)))
    time = np.arange(frames)
    share = np.minimum(np.clip((time - begin) / rise, 0, 1), np.clip((begin + rise + hold + fade - time) / fade, 0, 1))
    share = rest + (height - rest) * _smooth(share)
    return Walk(share, int(np.clip(begin + rise + hold // 2, 0, frames - 1)))


def _smooth(x: np.ndarray) -> np.ndarray:
    return x * x * (3 - 2 * x)


def _bump(frames: int, center: float, width: float, height: float) -> np.ndarray:
    return height * np.exp(-(((np.arange(frames) - center) / width) ** 2))


def mix_views(views: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return features (T, D) that walk from each of the ``views`` (V, D) to the next, at random times."""
    times = np.concatenate([[0], np.sort(rng.uniform(0, frames - 1, len(views) - 2)), [frames - 1]])
    position = np.interp(np.arange(frames), times, np.arange(len(views)))
    first = np.minimum(position.astype(int), len(views) - 2)
    weight = (position - first)[:, None]
    return (1 - weight) * views[first] + weight * views[first + 1]


class Composer:
    """Draws videos from labelled crops, encodes their views and mixes them; video i depends on i and the seed only."""

    def __init__(self, data: LabelledCrops, config: ComposeConfig, crop_size: int) -> None:
        self._data, self._config, self._size = data, config, crop_size
        majority = data.targets.argmax(axis=1)
        agreed = data.targets.max(axis=1) >= config.min_agreement
        self._rows = {
            (split, label): np.flatnonzero((data.splits == split) & (majority == column) & agreed)
            for split in ("train", "val")
            for column, label in enumerate(data.labels)
        }

    def check(self, split: str, labels: Sequence[str]) -> None:
        """Raise CeflError if a label has no photograph in a split."""
        missing = [label for label in (*labels, NEUTRAL) if not len(self._rows.get((split, label), ()))]
        if missing:
            raise CeflError(
                f"no photograph of {', '.join(missing)} in the {split} split that "
                f"{100 * self._config.min_agreement:.0f} % of its annotators agree on; give other --labels"
            )

    def draw(self, number: int, label: str, split: str, labels: Sequence[str]) -> tuple[Walk, np.ndarray, list[int]]:
        """Return the course of a video, its views uint8 (2 * NUM_VIEWS, S, S, 3), those of the expression first, and the rows."""
        rng = np.random.default_rng([self._config.seed, number])
        walk = draw_walk(rng, label)
        shown = label if label != NEUTRAL else str(rng.choice([name for name in labels if name != NEUTRAL]))
        style, mirrored, views, rows = rng.integers(1 << 31), rng.random() < 0.5, [], []
        for name in (shown, NEUTRAL):
            chosen = rng.choice(self._rows[split, name], 2 if rng.random() < TWO_FACES else 1)
            rows += chosen.tolist()
            for view in range(NUM_VIEWS):
                image = self._data.crops[chosen[view * len(chosen) // NUM_VIEWS]]
                crop = affine_crop(image, self._size, rng)
                crop = np.ascontiguousarray(crop[:, ::-1] if mirrored else crop)
                views.append(photometric_augment(crop, np.random.default_rng(style)))  # the light of a video is one
        return walk, np.stack(views), rows

    def features(self, walk: Walk, views: np.ndarray, number: int) -> np.ndarray:
        """Return the features (T, D) of a video from those of its views (2 * NUM_VIEWS, D)."""
        rng = np.random.default_rng([self._config.seed, number, 1])
        frames, views = len(walk.share), views.astype(np.float32)
        share = walk.share[:, None].astype(np.float32)
        expression, neutral = (mix_views(part, frames, rng) for part in np.split(views, 2))
        return (share * expression + (1 - share) * neutral).astype(np.float16)


def compose_videos(
    data: LabelledCrops,
    labels: Sequence[str],
    encoder: Encoder,
    settings: ExtractionSettings,
    config: ComposeConfig,
    on_progress: ProgressCallback = ignore_progress,
) -> Iterator[tuple[VideoEntry, VideoFeatures]]:
    """Yield composed videos with their manifest entries; the validation split is composed of validation photographs only.

    ``labels``: those of the videos; each in turn. Raises CeflError if a label has no photographs.
    """
    composer = Composer(data, config, settings.crop_size)
    num_val = round(config.val_share * config.num_videos)
    splits = ["train"] * (config.num_videos - num_val) + ["val"] * num_val
    for split in ("train", "val"):
        composer.check(split, labels)
    for begin in range(0, config.num_videos, VIDEOS_PER_BATCH):
        numbers = range(begin, min(begin + VIDEOS_PER_BATCH, config.num_videos))
        batch = [composer.draw(n, labels[n % len(labels)], splits[n], labels) for n in numbers]
        encoded = encoder(np.concatenate([views for _, views, _ in batch])).reshape(len(batch), 2 * NUM_VIEWS, -1)
        for number, (walk, _, rows), views in zip(numbers, batch, encoded, strict=True):
            name, split = f"{splits[number]}{number:06d}", splits[number]
            apex = str(walk.apex) if walk.apex >= 0 else ""
            entry = VideoEntry(
                id=name, path=f"composed/{name}", label=labels[number % len(labels)], subject=data.names[rows[0]], split=split,
                apex=apex,
            )  # fmt: skip
            used = ", ".join(data.names[row] for row in rows)
            yield (
                entry,
                _to_video(name, composer.features(walk, views, number), used, settings, config, encoder.device_type),
            )
        on_progress(numbers[-1] + 1, config.num_videos, "composing")


def _to_video(
    name: str, features: np.ndarray, used: str, settings: ExtractionSettings, config: ComposeConfig, device: str
) -> VideoFeatures:
    frames = len(features)
    source = hashlib.sha256(f"{name} {used} {config.model_dump_json()}".encode()).hexdigest()
    return VideoFeatures(
        id=name, features=features, time=np.arange(frames) / FPS,
        frame_status=np.full(frames, FrameStatus.DETECTED, np.uint8), scene_start=np.zeros(frames, np.uint8),
        score=np.ones(frames, np.float32),
        box=np.full((frames, 4), np.nan, np.float32), landmarks=np.full((frames, 5, 2), np.nan, np.float32), fps=FPS,
        declared_frames=frames, width=settings.crop_size, height=settings.crop_size,
        fingerprint=fingerprint(settings, source), source_sha256=source, status=VideoStatus.OK,
        note=f"composed of the photographs {used}", code_hash=code_hash("stages/extract/compose.py"), device=device,
        decoder="photographs",
    )  # fmt: skip
