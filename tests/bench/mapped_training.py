"""Training from a memory map against training from memory: python tests/bench/mapped_training.py [--limit-gb 2] [--steps 150]

A cache of random features twice as large as the limit; five folds of CEFLNet, 7 clips of 5 frames, batches of 8. Two ways take
turns: a process without a limit that loads the cache, and one in a group of processes with that much memory (a control group
of Linux, which counts the pages of the file too; needs root), which maps it. The file is dropped from the page cache before each.
Every epoch draws other videos from all of the file, so most are read from the disk. Seconds per step of all folds, the
median over epochs after one to warm up, and the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.fake_cache import fake_video
from helpers.runs import SETTINGS

from ceflpipe.cache.hdf5 import VideoLocation, pack, write_videos
from ceflpipe.stages.device import resolve_precision
from ceflpipe.stages.heads.feature_bank import join_features, load_table
from ceflpipe.stages.heads.train import EpochStats, ModelSpec, train
from ceflpipe.stages.heads.train_config import TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

FRAMES, LABELS, FOLDS, BATCH, EPOCHS = 77, 7, 5, 8, 5
GROUPS = {
    Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes",
    Path("/sys/fs/cgroup"): "memory.max",
}
"""Where control groups of memory are, version 1 and 2, and the file that has the limit."""


def build(path: Path, num_bytes: int) -> None:
    """Write a cache with so many bytes of features."""
    rng, videos = np.random.default_rng(0), num_bytes // (FRAMES * SETTINGS.width * 2)
    locations = []
    for first in range(0, videos, 2000):
        part = path.with_name(f"part-{first}.h5")
        names = [f"v{number:07d}" for number in range(first, min(first + 2000, videos))]
        features = rng.random((len(names), FRAMES, SETTINGS.width), np.float32).astype(np.float16)
        write_videos(part, [fake_video(name, f) for name, f in zip(names, features, strict=True)], SETTINGS)
        locations += [VideoLocation(part, number) for number in range(len(names))]
    pack(path, locations, SETTINGS)
    for part in {location.path for location in locations}:
        part.unlink()


def measure(path: Path, steps: int, precision: str, group: Path | None, results: multiprocessing.Queue) -> None:
    """Put the seconds per step, whether the features are mapped, and those in the memory of the process."""
    if group:
        (group / "cgroup.procs").write_text(str(os.getpid()))
    table = load_table(path, verify=False)
    videos = len(table.videos)
    rng = np.random.default_rng(1)
    entries = tuple(VideoEntry(name, name, f"{rng.integers(LABELS)}") for name in table.videos.id)
    manifest = Manifest("random", path.parent, entries, tuple(map(str, range(LABELS))))
    bank = join_features(manifest, table, torch.device("cpu")).bank
    config = TrainConfig(epochs=1, warmup_epochs=0, batch_size=BATCH, precision=precision)
    seconds = []
    for epoch in range(EPOCHS):
        draws = torch.from_numpy(rng.permutation(videos)[: FOLDS * steps * BATCH])
        models = [ModelSpec(epoch, str(fold), part) for fold, part in enumerate(draws.chunk(FOLDS))]
        ends = [time.perf_counter()]

        def on_epoch_end(stats: EpochStats, head: nn.Module, ends: list[float] = ends) -> None:
            ends.append(time.perf_counter())

        train(bank, models, config, on_epoch_end)
        seconds += [(end - start) / steps for start, end in pairwise(ends)]
    results.put((statistics.median(seconds[1:]), bank.is_remote))


@contextlib.contextmanager
def limited_memory(num_bytes: int) -> Iterator[Path]:
    """Yield a control group with so much memory; ends the program if there is no right to make one."""
    for root, limit in GROUPS.items():
        if (root / "cgroup.procs").exists():
            group = root / f"ceflpipe-bench-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                sys.exit(f"{group}: {error.strerror}; limiting memory needs root")
            (group / limit).write_text(str(num_bytes))
            try:
                yield group
            finally:
                group.rmdir()
            return
    sys.exit("no control groups of memory here (Linux, /sys/fs/cgroup): nothing to limit memory with")


def drop_from_page_cache(path: Path) -> None:
    os.sync()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_process(target: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"a process ended with {process.exitcode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-gb", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=150, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--precisions", default=",".join(dict.fromkeys(["fp32", resolve_precision("auto", torch.device("cpu"))]))
    )
    arguments = parser.parse_args()
    limit = int(arguments.limit_gb * 1e9)
    results = multiprocessing.get_context("spawn").Queue()
    with tempfile.TemporaryDirectory() as folder, limited_memory(limit) as group:
        path = Path(folder) / "x.h5"
        run_process(build, path, 2 * limit)
        print(
            f"{path.stat().st_size / 1e9:.1f} GB of features, limit {limit / 1e9:.1f} GB; {torch.get_num_threads()} threads"
        )
        for precision in arguments.precisions.split(","):
            for _ in range(arguments.rounds):
                seconds = {}
                for name, where in (("from memory", None), ("from the file", group)):
                    drop_from_page_cache(path)
                    run_process(measure, path, arguments.steps, precision, where, results)
                    seconds[name], is_mapped = results.get()
                    if is_mapped != (where is not None):
                        sys.exit(f"{name}: is_mapped is {is_mapped}; choose another --limit-gb")
                speed = seconds["from memory"] / seconds["from the file"]
                times = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items())
                print(f"{precision}: a step {times}: {100 * speed:.0f} % of the speed", flush=True)


if __name__ == "__main__":
    main()
