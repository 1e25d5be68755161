"""A feature cache of random numbers, with the manifest it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def fake_manifest(root: Path, subjects: int = 6, labels: tuple[str, ...] = ("anger", "fear", "sadness")):
    """Return a manifest of one video per subject and label, with an apex, none of which is on disk."""
    from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

    rows = [VideoEntry(f"S{s}_{x}", f"S{s}_{x}.mp4", x, f"S{s}", apex="30") for s in range(subjects) for x in labels]
    return Manifest("fake", root, tuple(rows), labels)


def fake_cache(path: Path, manifest, seed: int = 0, frames: tuple[int, int] = (40, 80), trace: float = 3.0) -> None:
    """Write a real feature cache of random numbers (0..1) in which each label leaves a trace around the apex."""
    from ceflpipe.cache.atomic import safe_name
    from ceflpipe.cache.features import VideoFeatures
    from ceflpipe.cache.hdf5 import VideoLocation, pack, write_part

    rng, entries = np.random.default_rng(seed), []
    for row in manifest.rows:
        length = int(rng.integers(*frames))
        features = rng.random((length, 512)).astype(np.float16)
        features[25:36, manifest.labels.index(row.label)] += trace
        video = VideoFeatures(
            row.id, features, np.ones(length, np.uint8), np.ones(length, np.float32), np.zeros((length, 4), np.float32),
            np.zeros((length, 5, 2), np.float32), 25.0, length, 64, 64, "f" * 32, "0" * 64, "ok",
        )  # fmt: skip
        part = path.with_name("parts") / f"{safe_name(row.id)}.h5"
        write_part(part, video, "{}")
        entries.append(VideoLocation(part, 0))
    pack(path, entries, "{}")
