"""What if a decoder never gives the next frame? The worker notes which video it was and ends itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from .video import Job

PATIENCE = 120.0
"""Seconds without a new frame after which a video counts as stalled."""


class Watchdog:
    """While entered, calls ``give_up(job)`` and ends this process when no frame was reported for ``patience`` seconds.

    A thread cannot stop a library that never returns, so the process has to go; the others carry its work on.
    """

    def __init__(self, patience: float, give_up: Callable[[Job, str], None]) -> None:
        self._patience, self._give_up = patience, give_up
        self._job: Job | None = None
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def alive(self, job: Job) -> None:
        """Say that this video is being worked on and has just begun or given a frame."""
        self._job, self._since = job, time.monotonic()

    def rest(self) -> None:
        """Say that no decoder is at work: a large file may be hashed for longer than a frame may take."""
        self._job = None

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._patience / 4)):
            job, silent = self._job, time.monotonic() - self._since
            if job is not None and silent > self._patience:
                self._give_up(job, f"no frame came for {self._patience:g} s; the decoder stalls on this file")
                os._exit(1)
