"""Fuzzing with thousands of broken files: python tests/fuzz/run.py [--videos 2000] [--files 3000] [--seed 1]

Videos go through stage one as a data set does, a control among every forty of them; manifests, configurations, caches, encoder
weights and run folders through the functions that read them. Good is: refused with a reason, or read as it was written.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.video import write_video
from mutations import MP4, mutate

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import TRAINABLE_STATUSES
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry, read_manifest

SIDE, FRAMES, AT_ONCE = 48, 12, 40


# ---- videos


def good_videos(folder: Path) -> list[Path]:
    """Three containers with three codecs, of noise that moves: what breaks a decoder is not the picture."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (SIDE, 2 * SIDE, 3), np.uint8)
    frames = [np.ascontiguousarray(still[:, i : i + SIDE]) for i in range(FRAMES)]
    made = [
        write_video(folder / f"good{e}", frames, codec=c)
        for e, c in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "XVID"))
    ]
    return [path for path in made if path.exists()]


def broken_video(good: list[Path], place: Path, rng: random.Random) -> Path:
    """Write one broken video, or folder of pictures, under ``place`` (without an ending) and return it."""
    import cv2

    kind = rng.random()
    if kind < 0.15:
        place.mkdir()
        numbers = sorted(rng.sample(range(1, 30), rng.randrange(1, 9)))  # gaps
        for number in numbers:
            side = rng.choice((16, 48, 48, 48, 300))  # another size in the middle
            picture = np.full((side, side, 3), number, np.uint8)
            content = cv2.imencode(rng.choice((".png", ".jpg", ".webp")), picture)[1].tobytes()
            (place / f"{number}.jpg").write_bytes(mutate(content, rng) if rng.random() < 0.2 else content)
        return place
    source = rng.choice(good)
    content = source.read_bytes()
    if kind < 0.22:  # two films of different sizes behind each other
        content += content[: rng.randrange(len(content))]
    else:
        content = mutate(content, rng, MP4 if source.suffix == ".mp4" else ())
    ending = rng.choice((".mp4", ".avi", ".mkv", ".mov", ".txt", "")) if kind > 0.9 else source.suffix
    path = place.with_name(place.name + ending)
    path.write_bytes(content)
    return path


def fuzz_videos(home: Path, encoder: Path, count: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    """Put ``count`` broken videos through stage one and return how many came to what; raises AssertionError."""
    rng, came = random.Random(seed), Counter()
    good = good_videos(home)
    wishes = ExtractConfig(encoder=encoder, input="crops", crop_size=32, precision="fp32")
    control = None
    for number in range(0, count, AT_ONCE):
        folder = home / f"batch{number}"
        folder.mkdir()
        rows = [VideoEntry("control", "control.mp4", "fear")]
        shutil.copy(good[0], folder / "control.mp4")
        for i in range(min(AT_ONCE, count - number)):
            path = broken_video(good, folder / f"v{i}", rng)
            rows.append(VideoEntry(f"v{i}", path.name, "fear"))
        started = time.monotonic()
        result = extract_features(Manifest("fuzz", folder, tuple(rows), ("fear",)), wishes, folder / "x.h5",
                         executor=process_executor(2), workers=2, decode_timeout=20)  # fmt: skip
        table = read_features(folder / "x.h5")
        failed = {name: (status, note) for name, status, note in result.failed}
        features = table.features[table.rows("control")]
        control = features if control is None else control
        check(np.array_equal(control, features) and "control" not in failed, f"{folder}: the control changed")
        for row in rows[1:]:
            status, note = failed.get(row.id, ("ok", ""))
            check(status == "ok" or note != "", f"{folder}/{row.path}: {status} without a reason")
            known = table.videos.status[table.index_of[row.id]] if row.id in table.index_of else status
            check(known == status, f"{folder}/{row.path}: said {status}, kept {known}")
            check(
                status not in TRAINABLE_STATUSES or len(table.features[table.rows(row.id)]) > 0,
                f"{folder}/{row.path}: empty",
            )
            came[f"video {status}"] += 1
        check(time.monotonic() - started < 25 * len(rows), f"{folder}: took too long")
        shutil.rmtree(folder)
        say(f"{number + len(rows) - 1} of {count} videos: {dict(came)}")
    return came


# ---- everything else that is read


def fuzz_files(home: Path, encoder: Path, count: int, seed: int) -> Counter[str]:
    """Read ``count`` broken files of each kind; raises AssertionError where one does neither of what is good."""
    came = Counter()
    for name, (content, write, read) in readers(home, encoder).items():
        rng = random.Random(f"{seed} {name}")
        expected = read()
        for _ in range(count):
            broken = mutate(content, rng)
            write(broken)
            try:
                found = read()
            except CeflError as error:
                check(str(error).count("\n") <= 25 and len(str(error)) < 4000, f"{name}: a page instead of a line")
                came[f"{name} refused"] += 1
            else:
                changed = broken != content and name in SEALED and found != expected
                check(not changed, f"{name}: read as something else than was written")
                came[f"{name} read"] += 1
        write(content)
    return came


SEALED = {"cache", "run.json", "metrics.json", "weights.safetensors", "predictions"}
"""Files with checksums: what is read of them must be what was written."""


def readers(home: Path, encoder: Path) -> dict[str, tuple[bytes, Callable[[bytes], object], Callable[[], object]]]:
    """Return by kind: a good file's bytes, how to write others in its place, how it is read (as something comparable)."""
    import yaml

    from ceflpipe.pipeline.config import DatasetConfig, _load_yaml
    from ceflpipe.stages.encoder.weights import load_encoder
    from ceflpipe.stages.heads.run_io import read_run, read_state_dict

    run = small_run(home)
    listing = home / "list.csv"
    listing.write_text(
        "id,path,label,subject,apex\n" + "".join(f"v{i},a b/é {i}.mp4,fear,S{i % 3},{i}\n" for i in range(12))
    )
    cache, weights, checkpoint = home / "cache.h5", home / "encoder.safetensors", home / "old.pth"
    fake_cache(cache, fake_manifest(home, subjects=2))
    shutil.copy(encoder, weights)
    import torch

    torch.save({"state_dict": {"a": torch.zeros(3), "b": torch.ones(2, 2)}}, checkpoint)
    (home / "configs").mkdir(exist_ok=True)
    config = home / "configs/fuzzed.yaml"
    config.write_text(yaml.safe_dump({
        "title": "x", "loader": "folders", "root": "data/x", "encoder": "actors", "labels": ["happiness", "sadness"],
        "protocol": {"scheme": "stratified", "folds": 2}, "extract": {"size": 64}, "train": {"epochs": 3},
    }))  # fmt: skip

    def table_of() -> object:
        table = read_features(cache)
        return (
            tuple(a.tobytes() for a in (table.features, table.frame_status, table.box)),
            table.videos.id,
            table.settings,
        )

    kinds: dict[str, tuple[Path, Callable[[], object]]] = {
        "manifest": (listing, lambda: read_manifest(listing).entries),
        "configuration": (config, lambda: _load_yaml("fuzzed", DatasetConfig)),
        "cache": (cache, table_of),
        "encoder": (weights, lambda: sorted(load_encoder(weights).state_dict())),
        "checkpoint": (checkpoint, lambda: sorted(read_state_dict(checkpoint))),
        "run.json": (run / "run.json", lambda: read_run(run).config),
        "metrics.json": (run / "metrics.json", lambda: read_run(run).metrics),
        "sums": (run / "SHA256SUMS", lambda: read_run(run).config),
        "weights.safetensors": (
            run / "weights.safetensors",
            lambda: [p.tolist() for p in read_run(run).head().parameters()],
        ),
        "predictions": (run / "predictions/fold-1.csv", lambda: read_run(run).predictions().to_csv()),
    }
    return {name: (path.read_bytes(), path.write_bytes, read) for name, (path, read) in kinds.items()}


def small_run(home: Path) -> Path:
    """Train a head for one epoch, to have a run folder of real parts."""
    from ceflpipe.stages.heads.cross_validation import CVConfig
    from ceflpipe.stages.heads.sweep import RunSpec, train_run
    from ceflpipe.stages.heads.train_config import TrainConfig

    manifest = fake_manifest(home, subjects=4)
    fake_cache(home / "run.h5", manifest)
    recipe = TrainConfig(
        head="mean", num_clips=3, frames_per_clip=2, epochs=1, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    train_run(
        RunSpec(
            manifest, home / "run.h5", recipe, CVConfig(fold_scheme="subject", folds=2, seed=1), home / "run", "cpu"
        )
    )
    return home / "run"


def check(good: bool, what: str) -> None:
    if not good:
        raise AssertionError(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-videos", type=int, default=2000)
    parser.add_argument("--files", type=int, default=300, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        torch.manual_seed(0)
        encoder = home / "random.safetensors"
        write_encoder(encoder, resnet18_backbone().state_dict(), "random", "imagenet", {"source": "fuzzing"})
        with contextlib.chdir(home):  # configurations are looked for in the working folder
            came = fuzz_files(home, encoder, arguments.files, arguments.seed)
        came += fuzz_videos(home, encoder, arguments.videos, arguments.seed, print)
    for what, number in sorted(came.items()):
        print(f"{number:6d}  {what}")
    print(f"{sum(came.values())} broken files: each was refused with a reason or read as it was written")


if __name__ == "__main__":
    main()
