"""What a Dask cluster costs: python tests/bench/cluster.py [--workers 2,4,8] [--frames 60] [--rounds 3]

A scheduler and workers of one thread, all processes of this machine, so that more workers than it has cores are no faster. For
each number of workers: milliseconds per task that does nothing; stage one, in seconds, and the bytes that the scheduler has
received and sent for it, against those of the features; and by how much longer stage one takes when one of the workers is
killed after a third of the videos. All caches are compared byte for byte with one that local processes made.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_videos import write_videos

from ceflpipe.pipeline.executor import dask_executor, process_executor
from ceflpipe.pipeline.paths import PRETRAINED_DIR
from ceflpipe.stages.callbacks import Executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

COPIES = 6
TASKS = 500


class CountingProxy:
    """Passes connections on to a port of this machine and counts the bytes in both directions."""

    def __init__(self, port: int) -> None:
        self.bytes, self._target = 0, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the scheduler has ended, and a worker tries again
                client.close()
                continue
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, client, server, suppress(OSError):
            for source, target in ((client, server), (server, client)):
                selector.register(source, selectors.EVENT_READ, target)
            while True:
                for key, _ in selector.select():
                    content = key.fileobj.recv(1 << 16)  # pyright: ignore[reportAttributeAccessIssue]
                    if not content:
                        return
                    self.bytes += len(content)
                    key.data.sendall(content)


@dataclass
class Cluster:
    """A running cluster: the address that counts, and its workers."""

    proxy: CountingProxy
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"dask://127.0.0.1:{self.proxy.port}"


@contextmanager
def cluster(count: int, folder: Path) -> Iterator[Cluster]:
    """Run a scheduler and ``count`` workers without nannies, so that a killed one is gone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", *arguments]
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        running = Cluster(CountingProxy(port))
        worker = ("worker", f"127.0.0.1:{running.proxy.port}", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        running.workers += [start(*worker) for _ in range(count)]
        from distributed import Client

        with Client(f"tcp://127.0.0.1:{running.proxy.port}") as client:
            client.wait_for_workers(count)
        yield running


def do_nothing(task: int) -> int:
    return task


def extract(manifest: Manifest, cache: Path, executor: Executor, workers: int, on_progress: Any = None) -> float:
    """Extract into a new cache and return the seconds."""
    config = ExtractConfig(encoder=PRETRAINED_DIR / "faces.safetensors")
    started = time.perf_counter()
    result = extract_features(
        manifest, config, cache, executor=executor, workers=workers, on_progress=on_progress or (lambda *_: None)
    )
    if result.failed:
        raise RuntimeError(f"videos failed: {result.failed}")
    return time.perf_counter() - started


def measure(count: int, manifest: Manifest, expected: bytes, rounds: int, folder: Path) -> str:
    """Return a row of the table for ``count`` workers; raises RuntimeError if a cache differs."""
    idle: list[float] = []
    seconds: list[float] = []
    longer: list[float] = []
    sent: list[int] = []
    for number in range(rounds):
        with cluster(count, folder) as running:
            executor, _, _ = dask_executor(running.address, threads=1)
            list(executor(do_nothing, range(2 * count)))
            started = time.perf_counter()
            list(executor(do_nothing, range(TASKS)))
            idle.append(1e3 * (time.perf_counter() - started) / TASKS)
            extract(manifest, folder / f"warm-{count}-{number}.h5", executor, count)  # each worker loads its networks
            before, cache = running.proxy.bytes, folder / f"{count}-{number}.h5"
            seconds.append(extract(manifest, cache, executor, count))
            sent.append(running.proxy.bytes - before)
            killed: list[float] = []

            def kill_one(
                completed: int, total: int, note: str = "", running: Cluster = running, killed: list = killed
            ) -> None:
                if completed >= total // 3 and not killed:
                    killed.append(time.perf_counter())
                    running.workers[0].send_signal(signal.SIGKILL)

            lossy = folder / f"{count}-{number}-killed.h5"
            longer.append(extract(manifest, lossy, executor, count, kill_one) - seconds[-1])
            if not killed or {cache.read_bytes(), lossy.read_bytes()} != {expected}:
                raise RuntimeError("a cache differs from the one of local processes, or no worker was killed")
    return (
        f"| {count} | {_median(idle, 2)} ms | {_median(seconds, 1)} s | {statistics.median(sent) / 1e3:,.0f} kB | "
        f"{_median(longer, 1)} s |"
    )


def _median(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="2,4,8")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = write_videos(folder, (640, 480), arguments.frames)
        entries = []
        for copy in range(COPIES):
            for path in originals:
                shutil.copy(path, folder / f"{copy}-{path.name}")
                entries.append(VideoEntry(f"{copy}-{path.stem}", f"{copy}-{path.name}", "fear"))
        manifest = Manifest("cluster", folder, tuple(entries), ("fear",))
        local = extract(manifest, folder / "local.h5", process_executor(2), 2)
        expected = (folder / "local.h5").read_bytes()
        frames = len(entries) * arguments.frames
        print(
            f"{len(entries)} videos, {frames} frames; their features are {2 * 512 * frames / 1e3:,.0f} kB; two local "
            f"processes take {local:.1f} s, start-up included; median of {arguments.rounds} rounds (lowest to highest)"
        )
        print("| workers | task that does nothing | stage one | through the scheduler | longer with a lost worker |")
        print("|---|---|---|---|---|")
        for count in map(int, arguments.workers.split(",")):
            print(measure(count, manifest, expected, arguments.rounds, folder), flush=True)


if __name__ == "__main__":
    main()
