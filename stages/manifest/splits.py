"""Fold rules over subject numbers, and data sets with a folder per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .files import FolderListing, find_folders, list_folder, skip_nested_folder
from .manifest import VideoEntry
from .scan import ScanResult, label_of_folders, relative_posix

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Split by the usual names of its folder, in lower case."""
UNUSED = "unused"
"""Split of videos that a protocol neither trains nor tests on."""


def block_folds(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """Cut the subjects, in order, into blocks of the given sizes; return the fold ('1', '2', …) by subject.

    >>> block_folds(["a", "b", "c"], (2, 1))
    {'a': '1', 'b': '1', 'c': '2'}
    """
    folds = [str(number) for number, size in enumerate(sizes, start=1) for _ in range(size)]
    return dict(zip(subjects, folds, strict=True))


def round_robin_folds(subjects: Sequence[str], num_folds: int) -> dict[str, str]:
    """Assign the subjects, in order, to the folds 1, 2, …, ``num_folds``, 1, 2, …; return the fold by subject.

    >>> round_robin_folds(["a", "b", "c"], 2)
    {'a': '1', 'b': '2', 'c': '1'}
    """
    return {subject: str(index % num_folds + 1) for index, subject in enumerate(subjects)}


def scan_splits(root: Path, split_of: Callable[[str], str | None], labels: tuple[str, ...]) -> ScanResult:
    """Scan folders split/expression/video; ids are split/label/stem, since stems repeat across folders.

    ``split_of`` returns the split for the name of a folder, or None if it is not the folder of a split.
    """

    def is_split(folder: Path, listing: FolderListing) -> bool:
        return split_of(folder.name) is not None and (
            bool(listing.videos()) or any(label_of_folders((name,), ()) for name in listing.folders)
        )

    result = ScanResult()
    for folder in find_folders(root, is_split):
        split, listing = split_of(folder.name) or "", list_folder(folder)
        for name in listing.videos():
            result.skip(relative_posix(folder / name, root), f"not in a folder of an expression ({split})")
        for name in listing.folders:
            inner = skip_nested_folder(folder / name)
            label = label_of_folders((name,), labels) or label_of_folders((name,), ())
            for video in list_folder(inner).videos():
                path = relative_posix(inner / video, root)
                if label is None:
                    result.skip(path, f"the folder {name} does not name a known expression")
                else:
                    result.add(VideoEntry(f"{split}/{label}/{Path(video).stem}", path, label, split=split), labels)
    return result
