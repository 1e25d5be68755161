"""Result of scanning a data set: the videos found, and everything seen and skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .labels import normalize_label
from .manifest import VideoEntry


@dataclass(frozen=True)
class ViewTransform:
    """One way to look at a video: turned clockwise by ``rotation`` degrees, then ``region`` 'x y w h' cut out."""

    rotation: str = ""
    region: str = ""

    def __str__(self) -> str:
        turned = [f"turned by {self.rotation} degrees"] if self.rotation not in ("", "0") else []
        return ", ".join([*turned, *([f"region {self.region}"] if self.region else [])]) or "as it is"


@dataclass
class ScanResult:
    """What a loader found.

    ``left_out``: (path relative to the root, reason). ``missing``: what the data set should hold and does not, by name.
    ``notes``: what a user should know or check. ``views``: for videos whose picture may lie on its side or show a face
    twice, by id the ways to look at it, the one taken by rule first; opening the video can settle which is right.
    """

    entries: list[VideoEntry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    views: dict[str, tuple[ViewTransform, ...]] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set, repr=False)

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))

    def add(self, row: VideoEntry, labels: Sequence[str] = ()) -> bool:
        """Take a row, unless its id is taken or its label is not one of ``labels`` (none given: any); tell whether."""
        if labels and row.label not in labels:
            self.skip(row.path, f"{row.label} is not one of the labels: of this data set's configuration")
        elif row.id in self._ids:
            self.skip(row.path, "a second file of a video that is listed already")
        else:
            self._ids.add(row.id)
            self.entries.append(row)
            return True
        return False

    def holds(self, identifier: str) -> bool:
        return identifier in self._ids


def relative_posix(path: Path, root: Path) -> str:
    """Return the path as a manifest holds it: from the root, with forward slashes on every system."""
    return path.relative_to(root).as_posix()


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that a folder's or file's name stands for: a word of the user's own, or a known expression."""
    own = {label.lower(): label for label in labels}
    return own.get(text.lower()) or normalize_label(text)
