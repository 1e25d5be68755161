"""What does a loader give back, and how does every loader walk a folder?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .table import Row

VIDEO_ENDINGS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".flv", ".webm", ".m4v", ".mpg", ".mpeg")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass
class Scan:
    """What a loader found: the rows, and what it left out with the reason, so that nothing vanishes silently."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (path relative to the root, reason)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, path: str, reason: str) -> None:
        self.left_out.append((path, reason))


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which 2.jpg comes before 10.jpg.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=natural)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]


def videos_below(folder: Path) -> Iterator[Path]:
    """Yield every video below a folder in natural order: files with a video's ending, and folders of images.

    Names that start with a dot are passed over, and links to folders are not followed (they may lead round).
    """
    with os.scandir(folder) as listing:
        entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: natural(e.name))
    if any(entry.is_file() and entry.name.lower().endswith(IMAGE_ENDINGS) for entry in entries):
        yield folder
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from videos_below(Path(entry.path))
        elif entry.is_file() and entry.name.lower().endswith(VIDEO_ENDINGS):
            yield Path(entry.path)
