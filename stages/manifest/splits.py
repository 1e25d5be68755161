"""Fold rules over subject numbers, and data sets with a folder per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .files import Listing, listing, search, unnested
from .manifest import Row
from .scan import Scan, relative, word_of


def in_blocks(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """Cut subjects, in the order given, into blocks of these sizes, and return the fold of each ('1', '2', …).

    >>> in_blocks(["a", "b", "c"], (2, 1))
    {'a': '1', 'b': '1', 'c': '2'}
    """
    folds = [str(number) for number, size in enumerate(sizes, start=1) for _ in range(size)]
    return dict(zip(subjects, folds, strict=True))


def by_turns(subjects: Sequence[str], count: int) -> dict[str, str]:
    """Deal subjects out to ``count`` folds one after the other, in the order given.

    >>> by_turns(["a", "b", "c"], 2)
    {'a': '1', 'b': '2', 'c': '1'}
    """
    return {subject: str(place % count + 1) for place, subject in enumerate(subjects)}


def split_folders(root: Path, split_of: Callable[[str], str | None]) -> list[tuple[str, Path]]:
    """Return (split, folder) of every folder whose name ``split_of`` knows and that holds expressions or videos."""

    def wanted(folder: Path, inside: Listing) -> bool:
        if split_of(folder.name) is None:
            return False
        return bool(inside.videos()) or any(word_of(name, ()) for name in inside.folders)

    return [(split_of(folder.name) or "", folder) for folder in search(root, wanted)]


def scan_splits(root: Path, split_of: Callable[[str], str | None], labels: tuple[str, ...]) -> Scan:
    """List the videos as split/label/name, since in these data sets names repeat across splits and expressions."""
    found = Scan()
    for split, folder in split_folders(root, split_of):
        inside = listing(folder)
        for name in inside.videos():
            found.leave_out(relative(folder / name, root), f"not in a folder of an expression ({split})")
        for name in inside.folders:
            home = unnested(folder / name)
            word, videos = word_of(name, labels), listing(home).videos()
            if word is None:
                for video in videos:
                    found.leave_out(relative(home / video, root), f"the folder {name} names no expression known here")
                continue
            for video in videos:
                identifier = f"{split}/{word}/{Path(video).stem}"
                found.add(Row(identifier, relative(home / video, root), word, split=split), labels)
    return found
