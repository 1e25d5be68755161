"""What do a data set's own lists of folds say: the label of every numbered video, and the fold that tests it?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError
from .lists import read_lines
from .scan import Scan, relative
from .walk import find_files


@dataclass(frozen=True)
class FoldList:
    """One file: the videos that fold ``number`` trains or tests on (``part``)."""

    number: int
    part: str
    file: Path


def fold_lists(root: Path, endings: tuple[str, ...], usable: Callable[[str], bool]) -> list[FoldList]:
    """Return the lists below ``root`` whose path names a part (train, test) and a fold, in whatever order and spelling.

    train(single-labeled)/set_1.csv, train_set_1.csv, single_trainset_1.csv and set_1/train.txt all mean the same. The
    file's own name counts before those of the folders above it. ``usable`` judges the path in lower-case letters.
    """
    lists = []
    for file in find_files(root, endings):
        path = relative(file, root).lower()
        parts = list(reversed(Path(path).with_suffix("").parts))[:3]
        part = next((m[0] for name in parts if (m := re.search(r"train|test", name))), None)
        number = next((m[1] for name in parts if (m := re.search(r"(?:set|fold|fd|split)[_\- ]?0*(\d+)", name))), None)
        if part and number and usable(path):
            lists.append(FoldList(int(number), part, file))
    return lists


def read_folds(
    root: Path, lists: list[FoldList], count: int, label_of: Callable[[str], str | None], found: Scan
) -> dict[int, tuple[str, str]]:
    """Return (label, fold that tests it) of every numbered video; what the lists disagree about goes into the notes.

    ``label_of`` gives the label for a word of a list, or None for a video to leave out. A video that only train lists
    name has no fold. Raises CeflError where a line is not 'number label'.
    """
    tested: dict[int, dict[int, str]] = {}
    trained: dict[int, dict[int, str]] = {}
    for entry in lists:
        videos = (tested if entry.part == "test" else trained).setdefault(entry.number, {})
        videos.update(_read(entry.file, root))
    labels: dict[int, str] = {}
    fold: dict[int, str] = {}
    clashes, twice = set(), set()
    for number, part in [*sorted(tested.items()), *((None, part) for _, part in sorted(trained.items()))]:
        for video, word in part.items():
            clashes |= {video} if labels.setdefault(video, word) != word else set()
            if number is not None:
                twice |= {video} if video in fold else set()
                fold.setdefault(video, str(number))
    found.missing += [
        f"the list of videos that fold {k} tests" for k in range(1, count + 1) if lists and k not in tested
    ]
    _note(found, labels.keys() - fold.keys(), "stand in train lists only; without a fold they are not used")
    _note(found, clashes, "have different labels in different lists; the first is taken")
    _note(found, twice, "are tested by more than one fold; the first is taken")
    for number in sorted(tested.keys() & trained.keys()):
        both = tested[number].keys() & trained[number].keys()
        _note(found, both, f"stand in the train list and in the test list of fold {number}")
        others = fold.keys() - tested[number].keys()
        _note(
            found,
            (others ^ trained[number].keys()) - both,
            f"make fold {number} train on other videos than its list says",
        )
    return _labelled(labels, fold, label_of, found)


def _labelled(
    words: dict[int, str], fold: dict[int, str], label_of: Callable[[str], str | None], found: Scan
) -> dict[int, tuple[str, str]]:
    videos = {}
    for video, word in sorted(words.items()):
        label = label_of(word)
        if label is None:
            found.leave_out(f"{video:05d}", f"its label in the lists is {word}")
        else:
            videos[video] = (label, fold.get(video, ""))
    return videos


def _read(file: Path, root: Path) -> dict[int, str]:
    videos: dict[int, str] = {}
    for number, words in enumerate(read_lines(file), start=1):
        stem = Path(words[0]).stem
        if len(words) >= 2 and stem.isdecimal():
            videos[int(stem)] = " ".join(words[1:])
        elif number > 1:  # the first line may be a header
            where = f"{relative(file, root)}: line {number}"
            raise CeflError(f"{where}: expected a video's number and its label, found {' '.join(words)}")
    return videos


def _note(found: Scan, videos: set[int], what: str) -> None:
    if videos:
        found.notes.append(f"{len(videos)} videos (e.g. {min(videos):05d}) {what}")
