"""Kill tests: start a command, SIGKILL a random process of it at a random moment, run it again, compare.

python tests/chaos/rounds.py --rounds 200 [--seed 1] [--only extract,train-heads,sweep,dvc]

The oracle is an undisturbed run of the same command: every output file must be the same to the byte. Also, finished videos
are not redone, and no temporary file and no process is left.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

COMMAND = [sys.executable, "-m", "ceflpipe.pipeline"]
VIDEOS = 10
PACKING_TIME = 0.03
"""Seconds that packing so few videos takes, fsync included."""
SHORT = ["--epochs", "40", "--folds", "2", "--clips", "3", "--frames", "2", "--quiet"]


@dataclass(frozen=True)
class Kind:
    """A command, its outputs (relative to the work folder), and what else to remove before it starts from nothing."""

    command: list[str]
    outputs: tuple[str, ...]
    state: tuple[str, ...] = ()


KINDS = {
    "extract": Kind([*COMMAND, "extract", "--dataset", "chaos", "--workers", "2", "--json"], ("artifacts/features/chaos.h5",)),
    "train-heads": Kind([*COMMAND, "train-heads", "--dataset", "chaos", *SHORT], ("artifacts/runs/chaos/cefl",)),
    "sweep": Kind(
        [*COMMAND, "sweep", "--dataset", "chaos", "--clips", "1,3", "--frames", "2,4", "--epochs", "15", "--folds", "2",
         "--workers", "2", "--quiet"],
        ("artifacts/sweeps/chaos",),
    ),
    "dvc": Kind(
        [sys.executable, "-m", "dvc", "repro"],
        ("artifacts/features/tracked.h5", "artifacts/runs/tracked/cefl"),
        ("dvc.lock", ".dvc/cache"),
    ),
}  # fmt: skip

# both stages as in the dvc.yaml of the project: the cache persists between runs of its stage, so an extraction resumes
TRACKED = f"""stages:
  extract:
    cmd: {" ".join(KINDS["extract"].command).replace("chaos", "tracked")}
    deps: [data/chaos]
    outs: [artifacts/features/tracked.h5: {{persist: true}}]
  train-heads:
    cmd: {" ".join(KINDS["train-heads"].command).replace("chaos", "tracked")}
    deps: [artifacts/features/tracked.h5]
    outs: [artifacts/runs/tracked/cefl]
"""


def make_dataset(home: Path, encoder: Path, photograph: np.ndarray) -> None:
    """Create a user's folder: videos in a folder per expression, a configuration, an encoder."""
    rng = random.Random(0)
    for number in range(VIDEOS):
        folder = home / "data/chaos" / ("happy", "sad")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(folder / f"v{number}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (192, 192))
        x, y = rng.randrange(80, 120), rng.randrange(10, 40)
        for step in range(rng.randrange(10, 40)):
            writer.write(np.ascontiguousarray(photograph[y : y + 192, x + step : x + step + 192, ::-1]))
        writer.release()
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    (home / "configs/chaos.yaml").write_text(
        "title: chaos\nloader: folders\nroot: data/chaos\nlabels: [happiness, sadness]\n"
        "cv: {fold_scheme: stratified, folds: 2}\nextract: {encoder: random, crop_size: 64}\n"
    )
    shutil.copy(home / "configs/chaos.yaml", home / "configs/tracked.yaml")
    (home / "dvc.yaml").write_text(TRACKED)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=home, check=True)


def contents(home: Path, kind: Kind) -> dict[str, str]:
    """Return the hash of every output file by path."""
    hashes = {}
    for output in kind.outputs:
        path = home / output
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            hashes[str(file.relative_to(home))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes


def leftovers(home: Path) -> list[str]:
    """Return temporary files, part folders and locks, none of which a finished command may leave."""
    return [
        str(p.relative_to(home))
        for p in (home / "artifacts").rglob("*")
        if "partial" in p.name or p.name.endswith((".parts", ".lock", ".tmp"))
    ]


def session_processes(pid: int) -> list[int]:
    """Return the processes of the session that ``pid`` leads, itself first."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == pid and fields[0] != "Z":
                pids.append(int(entry.name))
    return sorted(pids, key=lambda p: p != pid)


def kill_once(home: Path, kind: Kind, rng: random.Random, max_delay: float) -> str:
    """Start the command and kill the parent, one worker, or all of them after a random time; return what was killed."""
    running = subprocess.Popen(
        kind.command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    target = rng.choice(("parent", "worker", "all", *(["packing"] if kind is KINDS["extract"] else [])))
    deadline = time.monotonic() + rng.uniform(0.0, max_delay)
    if target == "packing":  # the parent, from the moment when the temporary file of the packed cache exists
        temporary = f".{Path(kind.outputs[0]).name}.{running.pid}.partial"
        while running.poll() is None and not (home / "artifacts/features" / temporary).exists():
            time.sleep(0.0001)
        deadline = time.monotonic() + rng.uniform(0.0, PACKING_TIME)
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.0001 if target == "packing" else 0.005)
    members = session_processes(running.pid)
    workers = members[1:]
    pids = {
        "parent": members[:1],
        "packing": members[:1],
        "worker": [rng.choice(workers)] if workers else members[:1],
        "all": members,
    }[target]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait(timeout=300)
    # workers exit with their parent; a command that DVC has started is no worker and continues to its end
    timeout = 5 * max_delay if kind is KINDS["dvc"] else 20
    limit = time.monotonic() + timeout
    while session_processes(running.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    if session_processes(running.pid):
        raise AssertionError(
            f"processes {session_processes(running.pid)} outlived their parent by {timeout} s ({target} was killed)"
        )
    return target if pids else "nothing"


def num_finished_videos(home: Path) -> int:
    return len(list((home / "artifacts/features").glob("chaos.h5.parts/*.h5")))


def run_round(home: Path, name: str, rng: random.Random, max_delay: float, expected: dict[str, str]) -> str:
    kind = KINDS[name]
    for output in kind.outputs + kind.state:
        path = home / output
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(path.with_name(path.name + ".parts"), ignore_errors=True)
    kills = [kill_once(home, kind, rng, max_delay) for _ in range(rng.choice((1, 1, 2)))]
    num_finished = num_finished_videos(home) if name == "extract" and not (home / kind.outputs[0]).exists() else None
    again = subprocess.run(kind.command, cwd=home, capture_output=True, text=True, timeout=600)
    if again.returncode != 0:
        raise AssertionError(f"after {kills}: exit {again.returncode}\n{(again.stdout + again.stderr)[-2000:]}")
    if num_finished is not None and json.loads(again.stdout)["cached"] < num_finished:
        raise AssertionError(f"after {kills}: {num_finished} videos were finished, but the output is {again.stdout}")
    hashes = contents(home, kind)
    if hashes != expected:
        different = sorted(k for k in hashes.keys() | expected.keys() if hashes.get(k) != expected.get(k))
        raise AssertionError(f"after {kills}: different from an undisturbed run: {', '.join(different)}")
    if leftovers(home):
        raise AssertionError(f"after {kills}: left behind {leftovers(home)}")
    return "+".join(kills)


@lru_cache
def run_undisturbed(home: Path, name: str) -> tuple[float, dict[str, str]]:
    """Run a command once; return the longest delay of a kill, somewhat more than its time, and the hashes of its output."""
    started = time.monotonic()
    subprocess.run(KINDS[name].command, cwd=home, check=True, capture_output=True, timeout=600)
    return 1.1 * (time.monotonic() - started), contents(home, KINDS[name])


def run_rounds(
    home: Path, rounds: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS), log: Callable[[str], None] = print
) -> Counter[str]:
    """Run ``rounds`` rounds in a folder of make_dataset and return how often each target was killed.

    Raises AssertionError at the first difference.
    """
    rng, counts = random.Random(seed), Counter()
    expected = {name: run_undisturbed(home, name) for name in ("extract", *(k for k in kinds if k != "extract"))}
    for number in range(rounds):
        name = rng.choice(kinds)
        max_delay, hashes = expected[name]
        killed = run_round(home, name, rng, max_delay, hashes)
        counts[f"{name}: {killed}"] += 1
        log(f"round {number + 1} of {rounds}: {name}, killed {killed}: the same result")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(KINDS))
    arguments = parser.parse_args()
    import skimage.data
    import torch

    from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        torch.manual_seed(0)
        write_encoder(
            home / "random.safetensors", resnet18_backbone().state_dict(), "random", "imagenet", {"source": "chaos"}
        )
        make_dataset(home, home / "random.safetensors", skimage.data.astronaut())
        counts = run_rounds(home, arguments.rounds, arguments.seed, tuple(arguments.only.split(",")))
    for name, count in sorted(counts.items()):
        print(f"{count:5d}  {name}")
    print(f"{sum(counts.values())} rounds, each with the same result as an undisturbed run")


if __name__ == "__main__":
    main()
