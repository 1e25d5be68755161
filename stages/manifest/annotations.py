"""Annotation files of data sets: text lists, fold lists, and videos known by number."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError
from .files import VIDEO_EXTENSIONS, find_files, find_folders, has_image, list_folder
from .manifest import VideoEntry
from .scan import ScanResult, relative_posix


def read_lines(file: Path) -> list[list[str]]:
    """Return the words of every line, cut at commas, semicolons, tabs or spaces, without empty lines and # comments.

    Raises CeflError when the file cannot be read as text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: not a text list that can be read: {error}") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [[word for word in re.split(r"[,;\s]+", line) if word] for line in lines if line]


def read_names(root: Path, name: str, key: str) -> set[str]:
    """Return the first word of each line of the list ``name``, which lies in the data set's folder; '' names no list.

    ``key`` is what to call the setting in the message of the CeflError that a missing or empty list raises.
    """
    if not name:
        return set()
    file = root / Path(name).expanduser()
    if not file.is_file():
        raise CeflError(f"{file}: no such file ({key}); a path there starts from the data set's folder")
    names = {words[0].strip("/") for words in read_lines(file)}
    if not names:
        raise CeflError(f"{file}: no name in it ({key}); one per line, # begins a comment")
    return names


@dataclass(frozen=True)
class FoldList:
    """One file: the videos that fold ``number`` trains or tests on (``part``)."""

    number: int
    part: str
    file: Path


def find_fold_lists(root: Path, endings: tuple[str, ...], usable: Callable[[str], bool]) -> list[FoldList]:
    """Return the lists below ``root`` whose path names a part (train, test) and a fold, in whatever order and spelling.

    train(single-labeled)/set_1.csv, train_set_1.csv, single_trainset_1.csv and set_1/train.txt all mean the same. The
    file's own name counts before those of the folders above it. ``usable`` judges the path in lower-case letters.
    """
    lists = []
    for file in find_files(root, endings):
        path = relative_posix(file, root).lower()
        parts = list(reversed(Path(path).with_suffix("").parts))[:3]
        part = next((m[0] for name in parts if (m := re.search(r"train|test", name))), None)
        number = next((m[1] for name in parts if (m := re.search(r"(?:set|fold|fd|split)[_\- ]?0*(\d+)", name))), None)
        if part and number and usable(path):
            lists.append(FoldList(int(number), part, file))
    return lists


def read_folds(
    root: Path, lists: list[FoldList], count: int, label_of: Callable[[str], str | None], found: ScanResult
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
    _add_note(found, labels.keys() - fold.keys(), "stand in train lists only; without a fold they are not used")
    _add_note(found, clashes, "have different labels in different lists; the first is taken")
    _add_note(found, twice, "are tested by more than one fold; the first is taken")
    for number in sorted(tested.keys() & trained.keys()):
        both = tested[number].keys() & trained[number].keys()
        _add_note(found, both, f"stand in the train list and in the test list of fold {number}")
        others = fold.keys() - tested[number].keys()
        _add_note(
            found,
            (others ^ trained[number].keys()) - both,
            f"make fold {number} train on other videos than its list says",
        )
    return _labelled(labels, fold, label_of, found)


def _labelled(
    words: dict[int, str], fold: dict[int, str], label_of: Callable[[str], str | None], found: ScanResult
) -> dict[int, tuple[str, str]]:
    videos = {}
    for video, word in sorted(words.items()):
        label = label_of(word)
        if label is None:
            found.skip(f"{video:05d}", f"its label in the lists is {word}")
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
            where = f"{relative_posix(file, root)}: line {number}"
            raise CeflError(f"{where}: expected a video's number and its label, found {' '.join(words)}")
    return videos


def _add_note(found: ScanResult, videos: set[int], what: str) -> None:
    if videos:
        found.notes.append(f"{len(videos)} videos (e.g. {min(videos):05d}) {what}")


DUPLICATE = "a second file of a video that is listed already"


def index_videos_by_number(root: Path, passed_over: Sequence[str] = ()) -> dict[int, list[Path]]:
    """Return the video files below ``root`` by number; those in folders of the names ``passed_over`` do not count."""
    names = {name.lower() for name in passed_over}
    files: dict[int, list[Path]] = {}
    for file in find_files(root, VIDEO_EXTENSIONS):
        above = {part.lower() for part in file.relative_to(root).parts[:-1]} if names else set()
        if file.stem.isdecimal() and not names & above:
            files.setdefault(int(file.stem), []).append(file)
    return files


def index_crops_by_number(root: Path, names: Sequence[str]) -> tuple[Path | None, dict[int, list[Path]]]:
    """Return the first folder of one of the ``names`` that holds crops, and the crops of each video by its number.

    The crops of a video are a folder of pictures, or in some copies a video file.
    """
    for name in names:
        for home in find_folders(root, lambda folder, inside, name=name: folder.name.lower() == name.lower()):
            holders = find_folders(home, lambda folder, inside: any(inner.isdecimal() for inner in inside.folders))
            found: dict[int, list[Path]] = {}
            for holder in holders:
                for inner in list_folder(holder).folders:
                    if inner.isdecimal() and has_image(holder / inner):
                        found.setdefault(int(inner), []).append(holder / inner)
            found = found or index_videos_by_number(home)
            if found:
                return (holders[0] if holders else home), found
    return None, {}


def add_listed_videos(
    root: Path,
    listed: Mapping[int, tuple[str, str]],
    files: Mapping[int, list[Path]],
    place: str,
    labels: tuple[str, ...],
    found: ScanResult,
) -> None:
    """Add a row for every video of the lists (label and fold by number), whether its file is there or not.

    ``place`` is where the file should be when it is not there, e.g. clips/{:05d}.mp4: a video that is missing stays in
    the manifest, so that it counts as an error instead of vanishing from the score.
    """
    for number, (label, fold) in listed.items():
        there = files.get(number)
        path = relative_posix(there[0], root) if there else place.format(number)
        if found.add(VideoEntry(f"{number:05d}", path, label, fold=fold), labels) and not there:
            found.missing.append(f"{number:05d} ({path})")
    for number in sorted(files):
        first, *others = files[number]
        if number not in listed:
            found.skip(
                relative_posix(first, root), "in none of the lists of folds, which hold the videos with a single label"
            )
        for other in others:
            found.skip(relative_posix(other, root), DUPLICATE)
