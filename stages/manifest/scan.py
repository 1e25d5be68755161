"""Result of scanning a data set: its videos, skipped files and missing parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .labels import normalize_label
from .manifest import VideoEntry

DUPLICATE = "another file of a video that is already listed"
"""Reason for which a second file of a video is skipped."""


@dataclass(frozen=True)
class ViewTransform:
    """Rotation (degrees clockwise), then crop ('x y width height' in pixels) of every frame of a video."""

    rotation: str = ""
    region: str = ""

    def __str__(self) -> str:
        rotated = [f"rotated by {self.rotation} degrees"] if self.rotation not in ("", "0") else []
        return ", ".join([*rotated, *([f"region {self.region}"] if self.region else [])]) or "as recorded"


@dataclass
class ScanResult:
    """What a loader returns.

    ``skipped``: (path relative to the root, reason). ``missing``: names of parts that the data set should have.
    ``notes``: remarks for the user. ``views``: candidate transforms by video id, the default first, for videos whose
    frames may be rotated or show a face twice; probing the video decides between them.
    """

    entries: list[VideoEntry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    views: dict[str, tuple[ViewTransform, ...]] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set, repr=False)

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))

    def add(self, entry: VideoEntry, labels: Sequence[str] = ()) -> bool:
        """Add an entry, or skip it if its id is a duplicate or ``labels`` does not contain its label (empty: any).

        Returns whether it was added.
        """
        if labels and entry.label not in labels:
            self.skip(entry.path, f"{entry.label} is not in labels: of the configuration")
        elif entry.id in self._ids:
            self.skip(entry.path, DUPLICATE)
        else:
            self._ids.add(entry.id)
            self.entries.append(entry)
            return True
        return False

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._ids


def relative_posix(path: Path, root: Path) -> str:
    """Return the path as a manifest stores it: relative to the root, with forward slashes on every system."""
    return path.relative_to(root).as_posix()


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that the name of a folder or file stands for: one of ``labels``, or a known expression."""
    custom = {label.lower(): label for label in labels}
    return custom.get(text.lower()) or normalize_label(text)


def nearest_label(folders: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return the label of the innermost folder whose name is a label, or None."""
    return next(filter(None, (label_of(name, labels) for name in reversed(folders))), None)
