"""A feature cache of random numbers, with its manifest."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from helpers.runs import SETTINGS

from ceflpipe.cache.atomic import safe_name
from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.hdf5 import VideoLocation, pack, write_part
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


def fake_manifest(root: Path, subjects: int = 6, labels: tuple[str, ...] = ("anger", "fear", "sadness")) -> Manifest:
    """Return a manifest with one video per subject and label, with an apex; the videos do not exist."""
    entries = [
        VideoEntry(f"S{subject}_{label}", f"S{subject}_{label}.mp4", label, f"S{subject}", apex="30")
        for subject in range(subjects)
        for label in labels
    ]
    return Manifest("fake", root, tuple(entries), labels)


def fake_video(video_id: str, features: np.ndarray, **values: object) -> VideoFeatures:
    """Return an extracted video with the features (T, D) in which every frame is detected."""
    count = len(features)
    defaults = {
        "time": np.arange(count) / 25,
        "frame_status": np.ones(count, np.uint8),
        "scene_start": np.zeros(count, np.uint8),
        "score": np.ones(count, np.float32),
        "box": np.zeros((count, 4), np.float32),
        "landmarks": np.zeros((count, 5, 2), np.float32),
        "fps": 25.0,
        "declared_frames": count,
        "width": 64,
        "height": 64,
        "fingerprint": "f" * 32,
        "source_sha256": "0" * 64,
        "status": "ok",
    }
    return VideoFeatures(video_id, features, **{**defaults, **values})


def fake_cache(
    path: Path,
    manifest: Manifest,
    seed: int = 0,
    frames: tuple[int, int] = (40, 80),
    signal: float = 3.0,
    sources: str = "",
    width: int = SETTINGS.width,
    encoder: str = SETTINGS.encoder,
) -> None:
    """Write a feature cache of random features (0..1); frames 25 to 35 have ``signal`` added to the feature of the label.

    The source hashes of the videos are those of ``sources`` and their ids.
    ``width``: D.
    """
    rng, locations = np.random.default_rng(seed), []
    settings = replace(SETTINGS, width=width, encoder=encoder)
    for entry in manifest.entries:
        features = rng.random((int(rng.integers(*frames)), width)).astype(np.float16)
        features[25:36, manifest.labels.index(entry.label)] += signal
        part = path.with_name("parts") / f"{safe_name(entry.id)}.h5"
        digest = sha256(f"{sources}{entry.id}".encode()).hexdigest()
        write_part(part, fake_video(entry.id, features, source_sha256=digest), settings)
        locations.append(VideoLocation(part, 0))
    pack(path, locations, settings)
