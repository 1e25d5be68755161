"""Fold rules over subject numbers, and data sets with a folder per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .files import FolderListing, find_folders, list_folder, skip_nested_folder
from .manifest import VideoEntry
from .scan import ScanResult, label_of, relative_posix


def block_folds(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """Cut subjects, in the order given, into blocks of these sizes, and return the fold of each ('1', '2', …).

    >>> in_blocks(["a", "b", "c"], (2, 1))
    {'a': '1', 'b': '1', 'c': '2'}
    """
    folds = [str(number) for number, size in enumerate(sizes, start=1) for _ in range(size)]
    return dict(zip(subjects, folds, strict=True))


def round_robin_folds(subjects: Sequence[str], count: int) -> dict[str, str]:
    """Deal subjects out to ``count`` folds one after the other, in the order given.

    >>> by_turns(["a", "b", "c"], 2)
    {'a': '1', 'b': '2', 'c': '1'}
    """
    return {subject: str(place % count + 1) for place, subject in enumerate(subjects)}


def split_folders(root: Path, split_of: Callable[[str], str | None]) -> list[tuple[str, Path]]:
    """Return (split, folder) of every folder whose name ``split_of`` knows and that holds expressions or videos."""

    def wanted(folder: Path, inside: FolderListing) -> bool:
        if split_of(folder.name) is None:
            return False
        return bool(inside.videos()) or any(label_of(name, ()) for name in inside.folders)

    return [(split_of(folder.name) or "", folder) for folder in find_folders(root, wanted)]


def scan_splits(root: Path, split_of: Callable[[str], str | None], labels: tuple[str, ...]) -> ScanResult:
    """List the videos as split/label/name, since in these data sets names repeat across splits and expressions."""
    found = ScanResult()
    for split, folder in split_folders(root, split_of):
        inside = list_folder(folder)
        for name in inside.videos():
            found.skip(relative_posix(folder / name, root), f"not in a folder of an expression ({split})")
        for name in inside.folders:
            home = skip_nested_folder(folder / name)
            word, videos = label_of(name, labels), list_folder(home).videos()
            if word is None:
                for video in videos:
                    found.skip(relative_posix(home / video, root), f"the folder {name} names no expression known here")
                continue
            for video in videos:
                identifier = f"{split}/{word}/{Path(video).stem}"
                found.add(VideoEntry(identifier, relative_posix(home / video, root), word, split=split), labels)
    return found
