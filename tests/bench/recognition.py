"""Time to recognize that a cache of very many videos is up to date."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.fingerprint import fingerprint
from ceflpipe.cache.hdf5 import VideoLocation, pack, write_part
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_config
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


def recognised(folder: Path, weights: Path, videos: int = 16_000) -> None:
    """Seconds until a finished cache of so many videos is known to be finished, with the hashes at hand."""
    folder.mkdir()
    settings, entries, rows = resolve_config(ExtractConfig(encoder=weights)), [], []
    for number in range(videos):
        source = folder / f"{number}.mp4"
        source.write_bytes(b"%d" % number)
        rows.append(VideoEntry(str(number), source.name, "fear"))
    made = [
        VideoFeatures(
            row.id, np.zeros((1, 512), np.float16), np.ones(1, np.uint8), np.ones(1, np.float32), np.zeros((1, 4), np.float32),
            np.zeros((1, 5, 2), np.float32), 25.0, 1, 9, 9,
            fingerprint(settings, sha := sha256_of(folder / row.path)), sha, "ok",
        )
        for row in rows
    ]  # fmt: skip
    for video in made:
        part = folder / "parts" / f"{video.id}.h5"
        write_part(part, video, settings.to_json())
        entries.append(VideoLocation(part, 0))
    pack(folder / "x.h5", entries, settings.to_json())
    listed = Manifest("many", folder, tuple(rows), ("fear",))
    for when in ("hashing every file", "by size and time"):
        started = time.perf_counter()
        result = extract_features(listed, ExtractConfig(encoder=weights), folder / "x.h5")
        print(f"  a finished cache of {videos:,} videos is recognised in {time.perf_counter() - started:.2f} s, {when}")
        if result.num_extracted:
            raise RuntimeError("it was not recognised")
