"""How stages grow with the number of videos: python tests/bench/growth.py [--videos 1000,10000,100000] [--frames 60]

Of synthetic videos (random features, empty files): the seconds to list them (read the manifest), to plan stage one when half of
them are finished as part files, to pack these into a cache, to see that nothing is left to do, and to load the cache for
training; the peak memory of this process, and the bytes of the cache. One process for each number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.fake_cache import fake_video

from ceflpipe.cache.fingerprint import fingerprint
from ceflpipe.cache.hdf5 import VideoLocation, pack, read_features, write_videos
from ceflpipe.pipeline.paths import PRETRAINED_DIR
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.extract.plan import plan_extraction, read_finished
from ceflpipe.stages.manifest.manifest import VideoEntry, read_manifest, write_manifest

BATCH = 1000
"""Videos per file that the cache is packed from: as many part files as videos would measure the disk."""
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def measure(num_videos: int, frames: int, folder: Path) -> None:
    """Print a row of the table."""
    config = ExtractConfig(encoder=PRETRAINED_DIR / "faces.safetensors")
    settings = resolve_settings(config)
    rng = np.random.default_rng(0)
    names = [f"v{number:07d}" for number in range(num_videos)]
    for name in names:
        (folder / f"{name}.mp4").touch()
    write_manifest(
        folder / "list.csv", [VideoEntry(name, f"{name}.mp4", "fear", f"S{i % 97}") for i, name in enumerate(names)]
    )
    row, cache = [f"{num_videos:,}"], folder / "x.h5"

    started = time.perf_counter()
    manifest = read_manifest(folder / "list.csv")
    row.append(_seconds(started))

    features = rng.random((frames, settings.width), np.float32).astype(np.float16)
    locations = []
    for first in range(0, num_videos, BATCH):
        part = folder / f"batch-{first}.h5"
        batch = names[first : first + BATCH]
        values = {
            "fingerprint": fingerprint(settings, EMPTY_SHA256),
            "source_sha256": EMPTY_SHA256,
            "width": 640,
            "height": 480,
        }
        write_videos(part, [fake_video(name, features, **values) for name in batch], settings)
        locations += [VideoLocation(part, number) for number in range(len(batch))]
    started = time.perf_counter()
    pack(cache, locations, settings)
    row.append(_seconds(started))
    for part in {location.path for location in locations}:
        part.unlink()

    started = time.perf_counter()
    plan = plan_extraction(manifest, read_finished(cache), settings)
    row.append(_seconds(started))
    if plan.pending:
        raise RuntimeError(f"{len(plan.pending)} videos are pending: {plan.reasons}")
    started = time.perf_counter()
    result = extract_features(manifest, config, cache)
    row.append(_seconds(started))
    if result.num_extracted:
        raise RuntimeError("videos were extracted again")

    started = time.perf_counter()
    table = read_features(cache)
    row.append(_seconds(started))
    if len(table.features) != num_videos * frames:
        raise RuntimeError("frames are missing")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| " + " | ".join([*row, f"{cache.stat().st_size / 1e6:,.0f} MB", f"{peak:,.0f} MB"]) + " |", flush=True)


def _seconds(started: float) -> str:
    return f"{time.perf_counter() - started:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", default="1000,10000,100000")
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    print("| videos | list | pack | plan, all files hashed | nothing to do | load | cache | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for count in map(int, arguments.videos.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(count, arguments.frames, Path(folder))
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
