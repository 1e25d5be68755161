"""MAFW: film and web clips known by number, with five official folds of the clips with a single label."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import add_listed_videos, find_fold_lists, index_videos_by_number, read_folds
from ..scan import ScanResult, label_of

LAYOUT = """the folder of MAFW, or its parent:
  clips/00025.mp4 …
  …/single/no_caption/set_1/train.txt, test.txt … set_5/      (lines such as: 03747.mp4 anger)"""
NUM_FOLDS = 5
_UNUSED_LISTS = ("compound", "with_caption")


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List every clip of the single-label lists; one without a file stays listed and counts as a failed clip.

    The lists of compound labels and those with captions are ignored. Raises CeflError if there are no lists.
    """
    result = ScanResult()
    lists = find_fold_lists(root, (".txt", ".csv"), lambda path: not any(word in path for word in _UNUSED_LISTS))
    if not lists:
        raise CeflError(f"{root}: no lists of the five single-label folds below it; expected\n{LAYOUT}")
    clips = read_folds(root, lists, NUM_FOLDS, partial(label_of, labels=labels), result)
    files = index_videos_by_number(root)
    add_listed_videos(result, root, clips, files, expected_path="clips/{:05d}.mp4", labels=labels)
    return result
