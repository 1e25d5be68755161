"""MAFW: film and web clips known by a number; five official folds of the clips with a single label."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import add_listed_videos, find_fold_lists, index_videos_by_number, read_folds
from ..scan import ScanResult, label_of

LAYOUT = """the folder of MAFW, or one above it:
  clips/00025.mp4 …
  …/single/no_caption/set_1/train.txt, test.txt … set_5/      (lines such as: 03747.mp4 anger)"""
FOLDS = 5


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List every clip of the single-label lists; one whose file is not there stays listed, as a clip that fails.

    The lists of compound labels and those with captions are passed over. Raises CeflError when there are no lists.
    """
    found = ScanResult()
    lists = find_fold_lists(
        root, (".txt", ".csv"), lambda path: not any(word in path for word in ("compound", "with_caption"))
    )
    if not lists:
        raise CeflError(f"{root}: no lists of the five folds of single labels below it; expected\n{LAYOUT}")
    clips = read_folds(root, lists, FOLDS, lambda word: label_of(word, labels), found)
    add_listed_videos(root, clips, index_videos_by_number(root), "clips/{:05d}.mp4", labels, found)
    return found
