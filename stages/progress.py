"""Progress callback: the one shape in which long work reports how far it is."""

from __future__ import annotations

from typing import Protocol


class ProgressCallback(Protocol):
    def __call__(self, completed: int, total: int, note: str = "") -> None:
        """Report that ``completed`` of ``total`` units are done; ``note`` is a short text for the display."""
        ...


def ignore_progress(completed: int, total: int, note: str = "") -> None:
    """Default of every ``on_progress``."""
