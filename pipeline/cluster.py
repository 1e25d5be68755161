"""How does the same joblib call run on many machines? (the only file that knows Dask)

The machines share a folder: data, weights and part files are seen under the same paths everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import joblib

from ..cache.errors import CeflError
from .workers import Mapper, as_they_come, in_worker

RETRIES = 2
"""How often a cluster tries a task again whose machine went away, before the task comes back as lost."""


def on_cluster(address: str, *, threads: int = 1, tag: str = "") -> tuple[Mapper, int]:
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
    able = [worker for worker in workers if not tag or worker["resources"].get(tag)]
    if not able:
        raise CeflError(
            f"--cluster dask://{place}: no worker{f' with --resources {tag}=1' if tag else ''} has joined it; "
            f"start one with dask worker {place}"
        )
    count = sum(int(worker["resources"][tag]) if tag else worker["nthreads"] for worker in able)
    settings: dict[str, Any] = {"retries": RETRIES, "pure": False} | ({"resources": {tag: 1}} if tag else {})
    return partial(_map, count=count, threads=threads, settings=settings), count


def _map(
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
                joblib.delayed(in_worker)(None, threads, number, function, task) for number, task in enumerate(tasks)
            )
            for number, result in as_they_come(calls, pre_dispatch=4 * count):
                del waiting[number]
                yield result
    except KilledWorker as error:
        for task in waiting.values():
            yield task, f"the worker that had it was lost ({type(error).__name__})"
