"""Run one function over many tasks: in local processes (joblib) or on a Dask cluster."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..cache.atomic import pid_alive
from ..cache.errors import CeflError

Executor = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Runs a function over tasks and gives results as they come; a task that was lost comes back as (task, reason)."""


def num_cores() -> int:
    """Return the number of processors this process may use (containers and Slurm give fewer than the machine has)."""
    return joblib.cpu_count()


def process_executor(count: int, threads: int = 1) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]:
    """Return a mapper that runs tasks in ``count`` processes of ``threads`` each and gives results as they come.

    When a worker dies (killed, out of memory, a crash in a native library) the tasks without a result come back as
    (task, reason), and the caller decides; results that were already given stay given.
    """
    return partial(_map_processes, count=count, threads=threads)


def _map_processes(function: Callable[[Any], Any], tasks: Sequence[Any], *, count: int, threads: int) -> Iterator[Any]:
    waiting = dict(enumerate(tasks))
    # joblib runs a single job in this process, which a crash of the task would take down; so there are always two
    # workers, and one of them idles where only one is wanted
    dispatched = 1 if count == 1 else 2 * count
    try:
        with joblib.parallel_config("loky", inner_max_num_threads=threads):
            calls = (
                joblib.delayed(run_in_worker)(os.getpid(), threads, number, function, task)
                for number, task in enumerate(tasks)
            )
            for number, result in iter_completed(calls, n_jobs=max(2, count), pre_dispatch=dispatched):
                del waiting[number]
                yield result
    except TerminatedWorkerError:
        for task in waiting.values():
            yield task, "the worker process died (killed, out of memory, or a crash in a native library)"


def iter_completed(calls: Iterable[Any], **settings: Any) -> Iterator[tuple[int, Any]]:
    """Run joblib's delayed calls one by one, not in batches, and yield each result when it is there."""
    results: Any = joblib.Parallel(return_as="generator_unordered", batch_size=1, **settings)(calls)  # pyright: ignore[reportArgumentType] - joblib does not declare return_as
    yield from results


def run_in_worker(
    parent: int | None, threads: int, number: int, function: Callable[[Any], Any], task: Any
) -> tuple[int, Any]:
    """What a worker runs: the function, in as many threads as are its share, for as long as ``parent`` lives."""
    if parent is not None:
        _exit_with_parent(parent)
    import cv2

    cv2.setNumThreads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch and OpenVINO when a task brings them in
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return number, function(task)


_watched_parents: set[int] = set()


def _exit_with_parent(parent: int) -> None:
    """Let this worker end itself when the process that started it is gone, however that ended."""
    if parent in _watched_parents or parent == os.getpid():
        return
    _watched_parents.add(parent)

    def watch() -> None:
        while pid_alive(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


RETRIES = 2
"""How often a cluster tries a task again whose machine went away, before the task comes back as lost."""


def dask_executor(address: str, *, threads: int = 1, resource: str = "") -> tuple[Executor, int]:
    """Return a mapper over the workers of a cluster, and how many workers there are now.

    ``address``: dask://HOST:PORT. ``tag``: a resource that a task needs, such as GPU; workers that offer
    it (``dask worker --resources GPU=1``) run one task at a time per unit. Raises CeflError when the package is not
    installed, nobody answers, or no worker offers the tag.
    """
    parts = urlsplit(address)
    if parts.scheme != "dask" or not parts.netloc:
        raise CeflError(f"--cluster {address}: not the address of a cluster; write dask://HOST:PORT")
    place = parts.netloc
    try:
        from distributed import Client
    except ImportError:
        raise CeflError('--cluster dask://…: Dask is not installed; pip install "ceflpipe[dask]"') from None
    try:
        client = Client(f"tcp://{place}", timeout=10, set_as_default=True)
    except (OSError, TimeoutError) as error:
        raise CeflError(f"--cluster dask://{place}: no scheduler answers there ({type(error).__name__})") from None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    able = [worker for worker in workers if not resource or worker["resources"].get(resource)]
    if not able:
        raise CeflError(
            f"--cluster dask://{place}: no worker{f' with --resources {resource}=1' if resource else ''} has joined it; "
            f"start one with dask worker {place}"
        )
    count = sum(int(worker["resources"][resource]) if resource else worker["nthreads"] for worker in able)
    settings: dict[str, Any] = {"retries": RETRIES, "pure": False} | ({"resources": {resource: 1}} if resource else {})
    return partial(_map_dask, count=count, threads=threads, settings=settings), count


def _map_dask(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    count: int,
    threads: int,
    settings: dict[str, Any],
) -> Iterator[Any]:
    """Yield results as they come; a task that its machine did not survive comes back as (task, reason)."""
    from distributed import KilledWorker

    waiting = dict(enumerate(tasks))
    try:
        with joblib.parallel_config("dask", n_jobs=count, **settings):
            calls = (
                joblib.delayed(run_in_worker)(None, threads, number, function, task)
                for number, task in enumerate(tasks)
            )
            for number, result in iter_completed(calls, pre_dispatch=4 * count):
                del waiting[number]
                yield result
    except KilledWorker as error:
        for task in waiting.values():
            yield task, f"the worker that had it was lost ({type(error).__name__})"
