"""Kill tests: start a command, SIGKILL a random process of it at a random moment, run it again, compare.

python tests/chaos/rounds.py --rounds 200 [--seed 1] [--only extract,train-heads,sweep,dvc]

The oracle is an undisturbed run of the same command: features byte for byte, every file of a run folder but its log of times,
the table of a sweep. Also: what was finished is not done again, no temporary file and no process is left.
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
from pathlib import Path

import cv2
import numpy as np

COMMAND = [sys.executable, "-m", "ceflpipe.pipeline"]
VIDEOS = 10
MERGE = 0.03
"""Seconds in which the merge of so few videos is over, fsync included."""
SHORT = ["--epochs", "40", "--folds", "2", "--clips", "3", "--frames", "2", "--quiet"]


@dataclass(frozen=True)
class Kind:
    """A command, what it makes (relative to the work folder), and what else must be gone before it starts from nothing."""

    command: list[str]
    made: tuple[str, ...]
    memory: tuple[str, ...] = ()


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

# stage one and stage two as the project's own dvc.yaml has them: the cache outlives a run of its stage, so it goes on
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


def make_world(home: Path, encoder: Path, photograph: np.ndarray) -> None:
    """A folder as a user has it: videos in a folder per expression, a configuration, an encoder."""
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
        "title: chaos\nloader: folders\nroot: data/chaos\nencoder: random\nlabels: [happiness, sadness]\n"
        "protocol: {scheme: stratified, folds: 2}\nextract: {size: 64}\n"
    )
    shutil.copy(home / "configs/chaos.yaml", home / "configs/tracked.yaml")
    (home / "dvc.yaml").write_text(TRACKED)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=home, check=True)


def contents(home: Path, kind: Kind) -> dict[str, str]:
    """Return the hash of every file that the command made; seconds and times of day are left out."""
    found = {}
    for made in kind.made:
        path = home / made
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            found[str(file.relative_to(home))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def strays(home: Path) -> list[str]:
    """Return what a finished command must not leave: temporary files, part folders, locks."""
    return [
        str(p.relative_to(home))
        for p in (home / "artifacts").rglob("*")
        if "partial" in p.name or p.name.endswith((".parts", ".lock", ".tmp"))
    ]


def family(pid: int) -> list[int]:
    """Return the processes of the session that ``pid`` leads, itself first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return sorted(found, key=lambda p: p != pid)


def strike(home: Path, kind: Kind, rng: random.Random, longest: float) -> str:
    """Start the command and kill the parent, one worker, or all of them after a random time; return what was hit."""
    running = subprocess.Popen(
        kind.command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    aim = rng.choice(("parent", "worker", "all", *(["merge-shards"] if kind is KINDS["extract"] else [])))
    deadline = time.monotonic() + rng.uniform(0.0, longest)
    if (
        aim == "merge-shards"
    ):  # part files become one cache: the moment when its temporary file is there, and a little later
        temporary = f".{Path(kind.made[0]).name}.{running.pid}.partial"
        while running.poll() is None and not (home / "artifacts/features" / temporary).exists():
            time.sleep(0.0001)
        deadline = time.monotonic() + rng.uniform(0.0, MERGE)
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.0001 if aim == "merge-shards" else 0.005)
    members = family(running.pid)
    workers = members[1:]
    hit = {
        "parent": members[:1],
        "merge-shards": members[:1],
        "worker": [rng.choice(workers)] if workers else members[:1],
        "all": members,
    }[aim]
    for pid in hit:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait(timeout=300)
    # workers go with their parent; a command that DVC had begun is nobody's worker, and goes on to its own end
    patience = 5 * longest if kind is KINDS["dvc"] else 20
    limit = time.monotonic() + patience
    while family(running.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    if family(running.pid):
        raise AssertionError(
            f"processes {family(running.pid)} outlived their parent by {patience} s ({aim} was killed)"
        )
    return aim if hit else "nothing"


def finished_videos(home: Path) -> int:
    return len(list((home / "artifacts/features").glob("chaos.h5.parts/*.h5")))


def one_round(home: Path, name: str, rng: random.Random, longest: float, expected: dict[str, str]) -> str:
    kind = KINDS[name]
    for made in kind.made + kind.memory:
        path = home / made
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(path.with_name(path.name + ".parts"), ignore_errors=True)
    blows = []
    for _ in range(rng.choice((1, 1, 2))):
        blows.append(strike(home, kind, rng, longest))
    kept = finished_videos(home) if name == "extract" and not (home / kind.made[0]).exists() else None
    again = subprocess.run(kind.command, cwd=home, capture_output=True, text=True, timeout=600)
    if again.returncode != 0:
        raise AssertionError(f"after {blows}: exit {again.returncode}\n{(again.stdout + again.stderr)[-2000:]}")
    if kept is not None and json.loads(again.stdout)["kept"] < kept:
        raise AssertionError(f"after {blows}: {kept} videos were finished, {again.stdout} says otherwise")
    found = contents(home, kind)
    if found != expected:
        odd = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
        raise AssertionError(f"after {blows}: not what an undisturbed run makes: {', '.join(odd)}")
    if strays(home):
        raise AssertionError(f"after {blows}: left behind {strays(home)}")
    return "+".join(blows)


def run_rounds(
    home: Path, rounds: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS), say: Callable[[str], None] = print
) -> Counter[str]:
    """Run ``rounds`` rounds in a world that is there; returns how often what was hit. Raises AssertionError at the first
    difference."""
    rng, counted = random.Random(seed), Counter()
    expected, longest = {}, {}
    for name in ("extract", *(k for k in kinds if k != "extract")):
        started = time.monotonic()
        subprocess.run(KINDS[name].command, cwd=home, check=True, capture_output=True, timeout=600)
        longest[name] = 1.1 * (time.monotonic() - started)
        expected[name] = contents(home, KINDS[name])
    for number in range(rounds):
        name = rng.choice(kinds)
        hit = one_round(home, name, rng, longest[name], expected[name])
        counted[f"{name}: {hit}"] += 1
        say(f"round {number + 1} of {rounds}: {name}, killed {hit}: the same result")
    return counted


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
        make_world(home, home / "random.safetensors", skimage.data.astronaut())
        counted = run_rounds(home, arguments.rounds, arguments.seed, tuple(arguments.only.split(",")))
    for what, count in sorted(counted.items()):
        print(f"{count:5d}  {what}")
    print(f"{sum(counted.values())} rounds, every one ended in the undisturbed result")


if __name__ == "__main__":
    main()
