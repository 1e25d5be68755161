"""A crop cache of drawn faces: the position of a bar tells the label, the brightness the subject."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from helpers.fake_cache import fake_video
from helpers.runs import SETTINGS

from ceflpipe.cache.fingerprint import PIXELS
from ceflpipe.cache.hdf5 import write_videos
from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

SIZE = 32
CONTRAST = 6
"""Of the bar; the noise around it has a range of 50."""
LABELS = ("anger", "fear", "joy")
CROP_SETTINGS = replace(
    SETTINGS,
    encoder="",
    encoder_sha256="",
    normalization="",
    precision=PIXELS,
    backend="",
    crop_size=SIZE,
    width=3 * SIZE**2,
)


def write_base(folder: Path) -> Path:
    """Write an untrained encoder of crops of SIZE pixels, always the same."""
    torch.manual_seed(0)
    path = folder / "base.safetensors"
    write_encoder(path, resnet18_backbone().state_dict(), "base", "imagenet", {"license": "MIT"}, crop_size=SIZE)
    return path


def crops_manifest(root: Path, subjects: int = 8, per_label: int = 1) -> Manifest:
    """Return a list of videos that do not exist, ``per_label`` of each subject and label."""
    entries = [
        VideoEntry(f"S{subject}_{label}_{number}", f"S{subject}_{label}_{number}.mp4", label, f"S{subject}")
        for subject in range(subjects)
        for label in LABELS
        for number in range(per_label)
    ]
    return Manifest("drawn", root, tuple(entries), LABELS)


def draw_crops(label: int, subject: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return crops (T, 32, 32, 3): a bright bar at one of three heights, on noise."""
    crops = rng.integers(40 + 4 * subject, 90 + 4 * subject, (frames, SIZE, SIZE, 3))
    crops[:, 4 + 9 * label : 10 + 9 * label] += CONTRAST
    return crops.astype(np.uint8)


def write_crops(path: Path, manifest: Manifest, seed: int = 0, frames: tuple[int, int] = (6, 10)) -> Path:
    """Write a crop cache of the videos of a manifest; the hash of a source is that of its id."""
    rng, videos = np.random.default_rng(seed), []
    for entry in manifest.entries:
        subject, label = int(entry.subject[1:]), entry.id.split("_")[1]
        crops = draw_crops(LABELS.index(label), subject, int(rng.integers(*frames)), rng)
        digest = sha256(entry.id.encode()).hexdigest()
        videos.append(
            fake_video(
                entry.id,
                crops.reshape(len(crops), -1),
                source_sha256=digest,
                detection="d" * 32,
                fingerprint=digest[:32],
            )
        )
    write_videos(path, videos, CROP_SETTINGS)
    return path
