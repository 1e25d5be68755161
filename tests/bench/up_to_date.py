"""Time to check that the feature cache of a very large data set is up to date."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.fake_cache import fake_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.fingerprint import fingerprint
from ceflpipe.cache.hdf5 import VideoLocation, pack, write_part
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


def time_up_to_date_check(folder: Path, encoder: Path, num_videos: int = 16_000) -> None:
    """Print the seconds of a run on a complete feature cache, first without and then with known hashes of the sources."""
    folder.mkdir()
    config = ExtractConfig(encoder=encoder)
    settings = resolve_settings(config)
    entries, locations = [], []
    for number in range(num_videos):
        entry = VideoEntry(str(number), f"{number}.mp4", "fear")
        source, part = folder / entry.path, folder / "parts" / f"{number}.h5"
        source.write_bytes(b"%d" % number)
        digest = sha256_of(source)
        features = np.zeros((1, 512), np.float16)
        video = fake_video(
            entry.id, features, fingerprint=fingerprint(settings, digest), source_sha256=digest, width=9, height=9
        )
        write_part(part, video, settings)
        entries.append(entry)
        locations.append(VideoLocation(part, 0))
    pack(folder / "x.h5", locations, settings)
    manifest = Manifest("many", folder, tuple(entries), ("fear",))
    for method in ("by hashing every file", "by size and time"):
        started = time.perf_counter()
        result = extract_features(manifest, config, folder / "x.h5")
        seconds = time.perf_counter() - started
        print(f"  a complete cache of {num_videos:,} videos is recognized in {seconds:.2f} s {method}")
        if result.num_extracted:
            raise RuntimeError("videos were extracted again")
