"""Executors: run one function over many tasks, in local processes (joblib) or on a Dask cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..cache.errors import CeflError
from ..cache.processes import pid_alive
from ..stages.callbacks import Executor

RETRIES = 2
"""How often Dask runs a task again if its worker was lost, before the task counts as lost."""


def num_cores() -> int:
    """Return the number of processors this process may use (containers and Slurm give fewer than the machine has)."""
    return joblib.cpu_count()


def process_executor(count: int, threads: int = 1) -> Executor:
    """Return an executor of ``count`` local processes with ``threads`` threads each, in the working folder of this one.

    Arrays of more than a megabyte in the tasks, e.g. a feature table, are in memory once: workers map them. If a worker dies
    (killed, out of memory, a crash in a native library), all tasks without a result come back as (task, reason).
    """
    return partial(
        _run_tasks,
        threads=threads,
        folder=os.getcwd(),
        backend={
            "backend": "loky",
            "inner_max_num_threads": threads,
            "initializer": _start_worker,
            "initargs": (os.getpid(),),
        },
        # joblib runs a single job in this process, which a crash of the task would take down; so there are always two
        # workers, and with ``count`` 1 one of them idles
        parallel={"n_jobs": max(2, count), "pre_dispatch": 1 if count == 1 else 2 * count, "mmap_mode": "c"},
        crash=TerminatedWorkerError,
        reason="the worker process died (killed, out of memory, or a crash in a native library)",
    )


def dask_executor(address: str, *, threads: int = 1, resource: str = "") -> tuple[Executor, int, int]:
    """Return an executor of the workers of a Dask cluster, how many tasks these run at a time now, and how many on one machine.

    ``address``: dask://HOST:PORT. ``resource``: only workers that offer it (``dask worker --resources GPU=1``) are used, for
    one task at a time per unit. Raises CeflError if Dask is not installed, no scheduler answers, or no worker has joined.
    """
    parts = urlsplit(address)
    host = parts.netloc
    if parts.scheme != "dask" or not host:
        raise CeflError(f"--cluster {address}: not the address of a cluster; write dask://HOST:PORT")
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise CeflError('--cluster dask://…: Dask is not installed; pip install "ceflpipe[dask]"') from None
    try:
        client = Client(f"tcp://{host}", timeout=10, set_as_default=True)
    except (OSError, TimeoutError) as error:
        raise CeflError(
            f"--cluster dask://{host}: no scheduler answers there ({type(error).__name__}); start one with dask scheduler"
        ) from None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    usable = [worker for worker in workers if not resource or worker["resources"].get(resource)]
    if not usable:
        option = f" --resources {resource}=1" if resource else ""
        raise CeflError(
            f"--cluster dask://{host}: no worker{option and f' with{option}'} has joined it; "
            f"start one with dask worker {host}{option}"
        )
    tasks = Counter()
    for worker in usable:
        tasks[worker["host"]] += int(worker["resources"][resource]) if resource else worker["nthreads"]
    count = tasks.total()
    backend: dict[str, Any] = {"backend": "dask", "n_jobs": count, "retries": RETRIES, "pure": False}
    if resource:
        backend["resources"] = {resource: 1}
    executor = partial(
        _run_tasks,
        threads=threads,
        folder=None,
        backend=backend,
        parallel={"pre_dispatch": 4 * count},
        crash=KilledWorker,
        reason="its Dask worker was lost (KilledWorker)",
    )
    return executor, count, max(tasks.values())


def _run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    threads: int,
    folder: str | None,
    backend: dict[str, Any],
    parallel: dict[str, Any],
    crash: type[Exception],
    reason: str,
) -> Iterator[Any]:
    """Yield results one by one, not in batches; after a ``crash`` each task without a result as (task, reason)."""
    pending = dict(enumerate(tasks))
    try:
        with joblib.parallel_config(**backend):
            calls = (
                joblib.delayed(_run_in_worker)(folder, threads, number, function, task)
                for number, task in enumerate(tasks)
            )
            results: Any = joblib.Parallel(return_as="generator_unordered", batch_size=1, **parallel)(calls)  # pyright: ignore[reportArgumentType] - joblib does not declare return_as
            for number, result in results:
                del pending[number]
                yield result
    except crash:
        for task in pending.values():
            yield task, reason


def _run_in_worker(
    folder: str | None, threads: int, number: int, function: Callable[[Any], Any], task: Any
) -> tuple[int, Any]:
    """Run the function in a worker with ``threads`` threads.

    joblib keeps local workers for later calls. They change to ``folder``: paths of tasks may be relative to it.
    """
    if folder is not None:
        os.chdir(folder)
    import cv2

    cv2.setNumThreads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch and OpenVINO when a task imports them
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return number, function(task)


def _start_worker(parent: int) -> None:
    """Let this local worker exit soon after the process that started it has ended, however it ended.

    joblib calls this before the first task: a worker that waits for one would stay for minutes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means

    def monitor() -> None:
        while pid_alive(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=monitor, daemon=True).start()
