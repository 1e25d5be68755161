"""Fuzzing with thousands of broken files: python tests/fuzz/run.py [--videos 2000] [--files 300] [--seed 1]

Videos are extracted by stage one like a data set, with one valid video per batch of forty; manifests, configurations, feature
caches, encoder files and runs are read by the functions that read them. A broken file must be refused with a reason, or read
as it was written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.video import write_video
from mutations import MP4, mutate

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import TRAINABLE_STATUSES
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.cache.ownership import SUMS_FILE, check_files, write_owned_text
from ceflpipe.pipeline.config import load_dataset_config
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.encoder.weights import load_encoder, resnet18_backbone, write_encoder
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import HashCache, hashes_file, is_hashes_file
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, train_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry, read_manifest
from ceflpipe.stages.state_dict import read_state_dict

SIDE, NUM_FRAMES, BATCH_SIZE = 48, 12, 40
DECODE_TIMEOUT = 20
MAX_SECONDS_PER_VIDEO = 25


# ---- videos


def valid_videos(folder: Path) -> list[Path]:
    """Write three containers with three codecs, of moving noise: decoders do not fail on the content of frames."""
    image = np.random.default_rng(0).integers(0, 255, (SIDE, 2 * SIDE, 3), np.uint8)
    frames = [np.ascontiguousarray(image[:, i : i + SIDE]) for i in range(NUM_FRAMES)]
    formats = ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "XVID"))
    paths = [write_video(folder / f"valid{extension}", frames, codec=codec) for extension, codec in formats]
    return [path for path in paths if path.exists()]


def broken_video(valid: list[Path], path: Path, rng: random.Random) -> Path:
    """Write a broken video or image folder at ``path``, which gets an extension, and return its path."""
    kind = rng.random()
    if kind < 0.15:
        path.mkdir()
        numbers = sorted(rng.sample(range(1, 30), rng.randrange(1, 9)))  # with gaps
        for number in numbers:
            side = rng.choice((16, 48, 48, 48, 300))  # the size may change between images
            image = np.full((side, side, 3), number, np.uint8)
            content = cv2.imencode(rng.choice((".png", ".jpg", ".webp")), image)[1].tobytes()
            (path / f"{number}.jpg").write_bytes(mutate(content, rng) if rng.random() < 0.2 else content)
        return path
    source = rng.choice(valid)
    content = source.read_bytes()
    if kind < 0.22:  # a second video appended
        content += content[: rng.randrange(len(content))]
    else:
        content = mutate(content, rng, MP4 if source.suffix == ".mp4" else ())
    extension = rng.choice((".mp4", ".avi", ".mkv", ".mov", ".txt", "")) if kind > 0.9 else source.suffix
    path = path.with_name(path.name + extension)
    path.write_bytes(content)
    return path


def fuzz_videos(home: Path, encoder: Path, count: int, seed: int, log: Callable[[str], None]) -> Counter[str]:
    """Extract ``count`` broken videos and return the counts of their statuses; raises AssertionError."""
    rng, counts = random.Random(seed), Counter()
    valid = valid_videos(home)
    config = ExtractConfig(encoder=encoder, input="crops", crop_size=32, precision="fp32")
    expected = None
    for number in range(0, count, BATCH_SIZE):
        folder = home / f"batch{number}"
        folder.mkdir()
        entries = [VideoEntry("control", "control.mp4", "fear")]
        shutil.copy(valid[0], folder / "control.mp4")
        for i in range(min(BATCH_SIZE, count - number)):
            path = broken_video(valid, folder / f"v{i}", rng)
            entries.append(VideoEntry(f"v{i}", path.name, "fear"))
        started = time.monotonic()
        result = extract_features(
            Manifest("fuzz", folder, tuple(entries), ("fear",)),
            config,
            folder / "x.h5",
            executor=process_executor(2),
            workers=2,
            decode_timeout=DECODE_TIMEOUT,
        )
        seconds = time.monotonic() - started
        table = read_features(folder / "x.h5")
        failed = {video_id: (status, note) for video_id, status, note in result.failed}
        expected = table["control"] if expected is None else expected
        check(np.array_equal(expected, table["control"]) and "control" not in failed, f"{folder}: control changed")
        for entry in entries[1:]:
            path, (status, note) = folder / entry.path, failed.get(entry.id, ("ok", ""))
            check(status == "ok" or note != "", f"{path}: {status} without a reason")
            cached = table.videos.status[table.index_of[entry.id]] if entry.id in table.index_of else status
            check(cached == status, f"{path}: reported {status}, cached {cached}")
            check(status not in TRAINABLE_STATUSES or len(table[entry.id]) > 0, f"{path}: {status} without frames")
            counts[f"video {status}"] += 1
        check(seconds < MAX_SECONDS_PER_VIDEO * len(entries), f"{folder}: took {seconds:.0f} s")
        shutil.rmtree(folder)
        log(f"{number + len(entries) - 1} of {count} videos: {dict(counts)}")
    return counts


# ---- all other files


@dataclass(frozen=True)
class FileKind:
    """A valid file and how it is read, as something comparable; a file with a checksum must be read as it was written."""

    path: Path
    read: Callable[[], object]
    has_checksum: bool = False


def fuzz_files(home: Path, encoder: Path, count: int, seed: int) -> Counter[str]:
    """Read ``count`` broken files of each kind and return the counts of outcomes; raises AssertionError."""
    counts = Counter()
    for name, kind in file_kinds(home, encoder).items():
        rng = random.Random(f"{seed} {name}")
        content, expected = kind.path.read_bytes(), kind.read()
        for _ in range(count):
            broken = mutate(content, rng)
            kind.path.write_bytes(broken)
            try:
                result = kind.read()
            except CeflError as error:
                check(str(error).count("\n") <= 25 and len(str(error)) < 4000, f"{name}: the message is too long")
                counts[f"{name} refused"] += 1
            else:
                changed = broken != content and kind.has_checksum and result != expected
                check(not changed, f"{name}: read with other content than was written")
                counts[f"{name} read"] += 1
        kind.path.write_bytes(content)
    return counts


def file_kinds(home: Path, encoder: Path) -> dict[str, FileKind]:
    """Write a valid file of each kind."""
    run = small_run(home)
    listing, cache, weights = home / "list.csv", home / "cache.h5", home / "encoder.safetensors"
    checkpoint, config = home / "old.pth", home / "configs/fuzzed.yaml"
    listing.write_text(
        "id,path,label,subject,apex\n" + "".join(f"v{i},a b/é {i}.mp4,fear,S{i % 3},{i}\n" for i in range(12))
    )
    fake_cache(cache, fake_manifest(home, subjects=2))
    shutil.copy(encoder, weights)
    torch.save({"state_dict": {"a": torch.zeros(3), "b": torch.ones(2, 2)}}, checkpoint)
    config.parent.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump({
        "title": "x", "loader": "folders", "root": "data/x", "labels": ["happiness", "sadness"],
        "cv": {"fold_scheme": "stratified", "folds": 2}, "extract": {"encoder": "actors", "crop_size": 64},
        "train": {"epochs": 3},
    }))  # fmt: skip

    write_owned_text(home / "owned/table.csv", "a\n")
    hashes = hashes_file(cache)
    hashes.write_text(json.dumps({"a b/é.mp4": [1, 2, "0" * 64]}))

    def read_hashes() -> object:
        check_files([hashes], "--out", is_ours=is_hashes_file)
        with contextlib.suppress(OSError):
            HashCache(cache).get(Path("a b/é.mp4"))

    def read_cache() -> object:
        table = read_features(cache)
        arrays = (table.features, table.time, table.frame_status, table.score, table.box, table.landmarks)
        return [array.tobytes() for array in arrays], table.videos.id, table.settings

    def read_weights() -> object:
        return [parameter.tolist() for parameter in read_run(run).head().parameters()]

    return {
        "manifest": FileKind(listing, lambda: read_manifest(listing).entries),
        "configuration": FileKind(config, lambda: load_dataset_config("fuzzed")),
        "cache": FileKind(cache, read_cache, has_checksum=True),
        "encoder": FileKind(weights, lambda: sorted(load_encoder(weights).state_dict())),
        "checksums": FileKind(
            home / "owned" / SUMS_FILE, lambda: check_files([home / "owned/table.csv"], "--out"), has_checksum=True
        ),
        "hashes of sources": FileKind(hashes, read_hashes),
        "checkpoint": FileKind(checkpoint, lambda: sorted(read_state_dict(checkpoint, "x"))),
        "run.json": FileKind(run / "run.json", lambda: read_run(run).config, has_checksum=True),
        "metrics.json": FileKind(run / "metrics.json", lambda: read_run(run).metrics, has_checksum=True),
        "sums": FileKind(run / "SHA256SUMS", lambda: read_run(run).config),
        "weights.safetensors": FileKind(run / "weights.safetensors", read_weights, has_checksum=True),
        "predictions": FileKind(
            run / "predictions/fold-1.csv", lambda: read_run(run).predictions().to_csv(), has_checksum=True
        ),
    }


def small_run(home: Path) -> Path:
    """Train a head for one epoch and return its run."""
    manifest = fake_manifest(home, subjects=4)
    fake_cache(home / "run.h5", manifest)
    config = TrainConfig(
        head="mean", num_clips=3, frames_per_clip=2, epochs=1, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    cv = CVConfig(fold_scheme="subject", folds=2, seed=1)
    return train_run(RunSpec(manifest, home / "run.h5", config, cv, home / "run"))


def check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--files", type=int, default=300, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        torch.manual_seed(0)
        encoder = home / "random.safetensors"
        write_encoder(encoder, resnet18_backbone().state_dict(), "random", "imagenet", {"source": "fuzzing"})
        with contextlib.chdir(home):  # configurations are read from the working folder
            counts = fuzz_files(home, encoder, arguments.files, arguments.seed)
        counts += fuzz_videos(home, encoder, arguments.videos, arguments.seed, print)
    for outcome, number in sorted(counts.items()):
        print(f"{number:6d}  {outcome}")
    print(f"{sum(counts.values())} broken files: each was refused with a reason or read as it was written")


if __name__ == "__main__":
    main()
