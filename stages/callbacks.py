"""Types of functions that callers pass in: progress callbacks and executors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

Executor = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Runs a function over tasks, in this process, other processes or on other machines, and yields each result when it is ready,
in any order. A task whose worker died comes back as (task, reason)."""


class ProgressCallback(Protocol):
    """Receives the progress of a long computation."""

    def __call__(self, completed: int, total: int, note: str = "") -> None:
        """Report that ``completed`` of ``total`` units are done; ``note`` is a short text for the display."""
        ...


def ignore_progress(completed: int, total: int, note: str = "") -> None:
    """Default of every ``on_progress``."""
