"""Result of scanning a data set: its videos, skipped files and missing parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.errors import CeflError
from .files import printable
from .labels import label_of_name, label_of_word, normalize_label
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
        self.skipped.append((printable(path), reason))

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
    return _custom_label(text, labels) or normalize_label(text)


def _custom_label(text: str, labels: Sequence[str]) -> str | None:
    return next((label for label in labels if label.lower() == text.lower()), None)


def label_of_folders(folders: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return the label that the folders above a video name by a whole word, or None.

    Abbreviations do not count, since An and Su are also names of people. Joy, which is both, counts only if no other
    folder names a label. With ``labels`` only those count, in any usual spelling. Raises CeflError that names both folders
    if two of them name different labels.
    """
    named = labels_of_folders(folders, labels)
    if len(named) > 1:
        pairs = " and ".join(f"{name} ({label})" for label, name in named.items())
        raise CeflError(
            f"{printable('/'.join(folders))}: folders of different expressions inside each other: {pairs}; rename or move "
            "one of them, or list these videos in a CSV with their labels"
        )
    return next(iter(named), None)


def labels_of_folders(folders: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return every label that ``folders`` name, as in ``label_of_folders``, with the first folder that names it."""
    for find_label in (label_of_word, label_of_name):
        named: dict[str, str] = {}
        for name in folders:
            label = _custom_label(name, labels) or find_label(name)
            if label and (not labels or label in labels):
                named.setdefault(label, name)
        if named:
            return named
    return {}
