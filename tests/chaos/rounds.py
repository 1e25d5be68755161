"""Kill tests: start a command, SIGKILL a random process of it at a random moment, or let its disk be full; run it again, compare.

python tests/chaos/rounds.py --rounds 200 [--seed 1] [--only extract,predict]

The oracle is an undisturbed run of the same command: every output file must be the same to the byte. Also, finished videos
are not redone, no temporary file and no process is left, and a full disk ends the command with exit code 2. Prints a line per
round, at the end the number of rounds by command and disturbance, and exits with 1 if a round failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shlex
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from chaos.fork_server import ForkedProcess, ForkServer

from ceflpipe.cache.ownership import SUMS_FILE, is_recorded

COMMAND = [sys.executable, "-m", "ceflpipe.pipeline"]
TIMEOUT = 1200.0
VIDEOS = 10
DISK_FULL_SHARE = 0.25
"""Share of the disturbances that are a full disk; the others are a kill."""
PACKING_TIME = 0.03
"""Seconds that packing so few videos takes, fsync included."""
SHORT = ["--epochs", "40", "--folds", "2", "--clips", "3", "--frames", "2", "--quiet"]


@dataclass(frozen=True)
class Kind:
    """A command, its outputs (relative to the work folder), what else to remove before it starts from nothing, and the kinds that
    make its inputs.

    A report says how long the last extraction took, which differs between two: that is removed first, too."""

    command: list[str]
    outputs: tuple[str, ...]
    state: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("extract",)


KINDS = {
    "manifest": Kind(
        [*COMMAND, "manifest", "--dataset", "chaos"],
        ("artifacts/manifests/chaos.csv", "artifacts/manifests/chaos.csv.settings.json"), needs=(),
    ),
    "encoder": Kind(
        [*COMMAND, "encoder", "photographs:photographs", "--joint", "actors", "--threads", "1", "--quiet"],
        ("artifacts/weights/photographs.safetensors",), ("artifacts/weights/photographs.safetensors.training",), (),
    ),
    "extract": Kind(
        [*COMMAND, "extract", "--dataset", "chaos", "--workers", "2", "--json"], ("artifacts/features/chaos/random.h5",), needs=(),
    ),
    "train-heads": Kind([*COMMAND, "train-heads", "--dataset", "chaos", *SHORT], ("artifacts/runs/chaos/random/cefl",)),
    "sweep": Kind(
        [*COMMAND, "sweep", "--dataset", "chaos", "--clips", "1,3", "--frames", "2,4", "--epochs", "15", "--folds", "2",
         "--workers", "2", "--quiet"],
        ("artifacts/sweeps/chaos/random",),
    ),
    "report": Kind(
        [*COMMAND, "report", "--dataset", "chaos", "--run", "artifacts/runs/chaos/random/cefl", "--quiet"], ("artifacts/reports/chaos",),
        ("artifacts/features/chaos/random.h5.timing.json",), ("extract", "train-heads"),
    ),
    "predict": Kind(
        [*COMMAND, "predict", "data/chaos", "--run", "artifacts/runs/chaos/random/cefl", "--out", "artifacts/predictions",
         "--format", "csv,parquet,eaf,boris,vtt,srt,openface,png,mp4"],
        ("artifacts/predictions",), needs=("extract", "train-heads"),
    ),
    "dvc": Kind(
        [sys.executable, "-m", "dvc", "repro"],
        ("artifacts/features/tracked/random.h5", "artifacts/runs/tracked/random/cefl"),
        ("dvc.lock", ".dvc/cache"), (),
    ),
}  # fmt: skip


def _of_tracked(name: str) -> str:
    """Return the command of a kind for the data set that DVC tracks."""
    return shlex.join("tracked" if part == "chaos" else part for part in KINDS[name].command)


# both stages as in the dvc.yaml of the project: the cache persists between runs of its stage, so an extraction resumes
TRACKED = f"""stages:
  extract:
    cmd: {_of_tracked("extract")}
    deps: [data/chaos]
    outs: [artifacts/features/tracked/random.h5: {{persist: true}}]
  train-heads:
    cmd: {_of_tracked("train-heads")}
    deps: [artifacts/features/tracked/random.h5]
    outs: [artifacts/runs/tracked/random/cefl]
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
    for number in range(24):
        image = home / "photographs" / ("happy", "sad")[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), photograph[20 : 220 - number, 130 + number : 330, ::-1])
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    (home / "configs/chaos.yaml").write_text(
        "title: chaos\nloader: folders\nroot: data/chaos\nlabels: [happiness, sadness]\n"
        "cv: {fold_scheme: stratified, folds: 2}\nextract: {encoder: random, crop_size: 64}\n"
    )
    shutil.copy(home / "configs/chaos.yaml", home / "configs/tracked.yaml")
    (home / "configs/encoder.yaml").write_text(
        "photographs: {epochs: 2, batch_size: 6, crop_size: 32, actor_images: 64, checkpoint_minutes: 0}\n"
    )
    (home / "dvc.yaml").write_text(TRACKED)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=home, check=True)


def contents(home: Path, kind: Kind) -> dict[str, str]:
    """Return the hash of every output file by path.

    Checksums of a folder have lines of earlier versions too: what counts is that every file of the folder has one.
    """
    hashes = {}
    for output in kind.outputs:
        path = home / output
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if file.name == SUMS_FILE:
                others = [other for other in file.parent.iterdir() if other.is_file() and other != file]
                digest = f"without {[other.name for other in others if not is_recorded(other)]}"
            hashes[str(file.relative_to(home))] = digest
    return hashes


def leftovers(home: Path) -> list[str]:
    """Return temporary files, part folders and locks, none of which a finished command may leave."""
    return [
        str(p.relative_to(home))
        for p in (home / "artifacts").rglob("*")
        if "partial" in p.name or p.name.endswith((".parts", ".lock", ".tmp"))
    ]


Process = ForkedProcess | subprocess.CompletedProcess[str]


@lru_cache
def _server() -> ForkServer:
    return ForkServer()


def start(command: list[str], home: Path) -> ForkedProcess | subprocess.Popen[bytes]:
    """Start a command, its session of its own: ceflpipe by a fork, DVC as it is."""
    if command[:3] == COMMAND:
        return _server().start(command[3:], home)
    return subprocess.Popen(
        command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def run(command: list[str], home: Path) -> Process:
    """Run a command to its end."""
    if command[:3] == COMMAND:
        return _server().run(command[3:], home, TIMEOUT)
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=TIMEOUT)


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


def fill_disk_once(home: Path, kind: Kind, rng: random.Random) -> str:
    """Run the command with a limit on the size of files, as if the disk became full at one of them."""
    limit = int(2 ** rng.uniform(6, 26))
    done = _server().run(kind.command[3:], home, TIMEOUT, max_file_size=limit)
    disturbed = f"disk full at {limit} bytes" if done.returncode else "nothing"
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        raise AssertionError(f"{disturbed}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return disturbed.partition(" at ")[0]


def kill_once(home: Path, kind: Kind, rng: random.Random, max_delay: float) -> str:
    """Start the command and kill the parent, one worker, or all of them after a random time; return what was killed."""
    running = start(kind.command, home)
    target = rng.choice(("parent", "worker", "all", *(["packing"] if kind is KINDS["extract"] else [])))
    deadline = time.monotonic() + rng.uniform(0.0, max_delay)
    if target == "packing":  # the parent, from the moment when the temporary file of the packed cache exists
        temporary = f".{Path(kind.outputs[0]).name}.{running.pid}.partial"
        while running.poll() is None and not (home / kind.outputs[0]).with_name(temporary).exists():
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
    running.wait(timeout=TIMEOUT)
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


def num_finished_videos(home: Path, name: str) -> int:
    """Return how many videos the next run of a command must not do again."""
    if name == "extract" and not (home / KINDS[name].outputs[0]).exists():
        return len(list((home / "artifacts/features/chaos").glob("random.h5.parts/*.h5")))
    return len(list((home / "artifacts/predictions").glob("*.cefl.json"))) if name == "predict" else 0


def num_kept_videos(done: Process, name: str) -> int:
    """Return how many videos a command says it did not do again."""
    if name == "extract":
        return json.loads(done.stdout)["cached"]
    match = re.search(r"(\d+) of \d+ videos are finished", done.stderr)
    return int(match[1]) if match else 0


def start_from_nothing(home: Path, kind: Kind) -> None:
    for output in kind.outputs + kind.state:
        path = home / output
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(path.with_name(path.name + ".parts"), ignore_errors=True)


def run_round(home: Path, name: str, rng: random.Random, max_delay: float, expected: dict[str, str]) -> str:
    kind = KINDS[name]
    start_from_nothing(home, kind)
    kills = [
        fill_disk_once(home, kind, rng)
        if kind is not KINDS["dvc"] and rng.random() < DISK_FULL_SHARE
        else kill_once(home, kind, rng, max_delay)
        for _ in range(rng.choice((1, 1, 2)))
    ]
    num_finished = num_finished_videos(home, name)
    again = run(kind.command, home)
    if again.returncode != 0:
        raise AssertionError(f"after {kills}: exit {again.returncode}\n{(again.stdout + again.stderr)[-2000:]}")
    if num_finished and num_kept_videos(again, name) < num_finished:
        output = again.stdout + again.stderr
        raise AssertionError(f"after {kills}: {num_finished} videos were finished, but the output is {output}")
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
    start_from_nothing(home, KINDS[name])
    started = time.monotonic()
    done = run(KINDS[name].command, home)
    if done.returncode:
        raise RuntimeError(f"{name} fails undisturbed: exit {done.returncode}\n{done.stderr[-2000:]}")
    return 1.1 * (time.monotonic() - started), contents(home, KINDS[name])


def run_rounds(
    home: Path, rounds: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS), log: Callable[[str], None] = print
) -> tuple[Counter[str], list[str]]:
    """Run ``rounds`` rounds in a folder of make_dataset, the kinds in turn.

    Returns how often each command was disturbed by what with the same result after it, and what was wrong in other rounds.
    """
    rng, counts, failures = random.Random(seed), Counter(), []
    expected = {name: run_undisturbed(home, name) for kind in kinds for name in (*KINDS[kind].needs, kind)}
    for number in range(rounds):
        name, started = kinds[number % len(kinds)], time.monotonic()
        try:
            disturbed = run_round(home, name, rng, *expected[name])
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failures.append(f"round {number + 1}, {name}: {error}")
            log(f"FAILED {failures[-1]}")
            start_from_nothing(home, KINDS[name])  # other commands need its output
            run(KINDS[name].command, home)
            continue
        counts[f"{name}: {disturbed}"] += 1
        log(f"round {number + 1} of {rounds}: {name}, {disturbed}: the same result, {time.monotonic() - started:.0f} s")
    return counts, failures


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
        counts, failures = run_rounds(home, arguments.rounds, arguments.seed, tuple(arguments.only.split(",")))
    for name, count in sorted(counts.items()):
        print(f"{count:5d}  {name}")
    print(f"{sum(counts.values())} of {arguments.rounds} rounds had the same result as an undisturbed run")
    for failure in failures:
        print(f"FAILED {failure}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
