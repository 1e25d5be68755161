"""Annotation files of data sets: text lists, fold lists, and videos known by number."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError
from .csv_table import decode_text
from .files import VIDEO_EXTENSIONS, FolderListing, find_files, find_folders, has_image, list_folder
from .manifest import VideoEntry
from .scan import DUPLICATE, ScanResult, relative_posix


def read_lines(file: Path) -> list[list[str]]:
    """Return the words of every line, separated by commas, semicolons or white space; skips empty lines and # comments.

    Raises CeflError if the file cannot be read as text.
    """
    try:
        text = decode_text(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: not a readable text list: {error}; save it as UTF-8 text") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [[word for word in re.split(r"[,;\s]+", line) if word] for line in lines if line]


def read_names(root: Path, name: str, key: str) -> set[str]:
    """Return the first word of each line of the list ``name`` in the folder of the data set; an empty name is no list.

    Raises CeflError, which calls the setting ``key``, if the list is missing or empty.
    """
    if not name:
        return set()
    file = root / Path(name).expanduser()
    if not file.is_file():
        raise CeflError(f"{file}: no such file ({key}); give a path relative to the folder of the data set")
    names = {words[0].strip("/") for words in read_lines(file)}
    if not names:
        raise CeflError(f"{file}: no name in it ({key}); write one per line, # begins a comment")
    return names


@dataclass(frozen=True)
class FoldList:
    """List of the videos that one fold trains or tests on; ``part`` is 'train' or 'test'."""

    fold: int
    part: str
    file: Path


def find_fold_lists(root: Path, extensions: tuple[str, ...], accepts: Callable[[str], bool]) -> list[FoldList]:
    """Return the lists below ``root`` whose path names a part (train, test) and a fold, in any order and spelling.

    train(single-labeled)/set_1.csv, train_set_1.csv, single_trainset_1.csv and set_1/train.txt are all read alike. The
    name of the file takes precedence over its folders. ``accepts`` gets the path in lower case.
    """
    lists = []
    for file in find_files(root, extensions):
        path = relative_posix(file, root).lower()
        names = list(reversed(Path(path).with_suffix("").parts))[:3]
        part = next((m[0] for name in names if (m := re.search(r"train|test", name))), None)
        fold = next((m[1] for name in names if (m := re.search(r"(?:set|fold|fd|split)[_\- ]?0*(\d+)", name))), None)
        if part and fold and accepts(path):
            lists.append(FoldList(int(fold), part, file))
    return lists


def read_folds(
    root: Path,
    lists: Sequence[FoldList],
    num_folds: int,
    resolve_label: Callable[[str], str | None],
    result: ScanResult,
) -> dict[int, tuple[str, str]]:
    """Return (label, fold that tests it) by video number. Contradictions between the lists become notes of ``result``.

    ``resolve_label`` maps the label of a list to that of the manifest, or to None to skip the video. The fold is empty for a
    video that only train lists contain. Raises CeflError if a line is not 'number label'.
    """
    train: dict[int, dict[int, str]] = {}
    test: dict[int, dict[int, str]] = {}
    for item in lists:
        (test if item.part == "test" else train).setdefault(item.fold, {}).update(_read_fold_list(item.file, root))
    labels: dict[int, str] = {}
    folds: dict[int, str] = {}
    conflicting: set[int] = set()
    repeated: set[int] = set()
    for _, videos in [*sorted(test.items()), *sorted(train.items())]:
        conflicting |= {video for video, text in videos.items() if labels.get(video, text) != text}
        labels = videos | labels
    for fold, videos in sorted(test.items()):
        repeated |= videos.keys() & folds.keys()
        folds = dict.fromkeys(videos, str(fold)) | folds
    if lists:
        result.missing += [f"the test list of fold {fold}" for fold in range(1, num_folds + 1) if fold not in test]
    _add_note(result, labels.keys() - folds.keys(), "are only in train lists; they have no fold and are not used")
    _add_note(result, conflicting, "have different labels in different lists; the first label is used")
    _add_note(result, repeated, "are tested by more than one fold; the first fold is used")
    for fold in sorted(test.keys() & train.keys()):
        both = test[fold].keys() & train[fold].keys()
        _add_note(result, both, f"are in both the train list and the test list of fold {fold}")
        differing = ((folds.keys() - test[fold].keys()) ^ train[fold].keys()) - both
        _add_note(result, differing, f"make the training set of fold {fold} differ from its list")
    labeled = {}
    for video, text in sorted(labels.items()):
        label = resolve_label(text)
        if label is None:
            result.skip(f"{video:05d}", f"its label in the lists is {text}")
        else:
            labeled[video] = (label, folds.get(video, ""))
    return labeled


def _read_fold_list(file: Path, root: Path) -> dict[int, str]:
    videos: dict[int, str] = {}
    for number, words in enumerate(read_lines(file), start=1):
        stem = Path(words[0]).stem
        if len(words) >= 2 and stem.isdecimal():
            videos[int(stem)] = " ".join(words[1:])
        elif number > 1:  # the first line may be a header
            raise CeflError(
                f"{relative_posix(file, root)}: line {number}: expected the number of a video and its label, "
                f"found {' '.join(words)}"
            )
    return videos


def _add_note(result: ScanResult, videos: Collection[int], text: str) -> None:
    if videos:
        result.notes.append(f"{len(videos)} videos (e.g. {min(videos):05d}) {text}")


def index_videos_by_number(root: Path, excluded_folders: Sequence[str] = ()) -> dict[int, list[Path]]:
    """Return the video files below ``root`` by number, without those in folders of the excluded names."""
    excluded = {name.lower() for name in excluded_folders}
    files: dict[int, list[Path]] = {}
    for file in find_files(root, VIDEO_EXTENSIONS):
        if file.stem.isdecimal() and excluded.isdisjoint(part.lower() for part in file.relative_to(root).parts[:-1]):
            files.setdefault(int(file.stem), []).append(file)
    return files


def index_crops_by_number(root: Path, names: Sequence[str]) -> tuple[Path | None, dict[int, list[Path]]]:
    """Return the first folder of one of the ``names`` that contains crops, and the crops of each video by number.

    The crops of a video are a folder of images or, in some copies, a video file.
    """

    def has_numbered_folder(folder: Path, listing: FolderListing) -> bool:
        return any(name.isdecimal() for name in listing.folders)

    for name in names:
        for folder in find_folders(root, lambda folder, _, name=name: folder.name.lower() == name.lower()):
            parents = find_folders(folder, has_numbered_folder)
            crops: dict[int, list[Path]] = {}
            for parent in parents:
                for number in list_folder(parent).folders:
                    if number.isdecimal() and has_image(parent / number):
                        crops.setdefault(int(number), []).append(parent / number)
            crops = crops or index_videos_by_number(folder)
            if crops:
                return (parents[0] if parents else folder), crops
    return None, {}


def add_listed_videos(
    result: ScanResult,
    root: Path,
    listed: Mapping[int, tuple[str, str]],
    files: Mapping[int, list[Path]],
    *,
    expected_path: str,
    labels: tuple[str, ...],
) -> None:
    """Add an entry for every listed video ((label, fold) by number), whether its file exists or not.

    A missing video stays in the manifest under ``expected_path`` (e.g. clips/{:05d}.mp4), so that it counts as an error
    instead of vanishing from the score.
    """
    for number, (label, fold) in listed.items():
        paths = files.get(number)
        path = relative_posix(paths[0], root) if paths else expected_path.format(number)
        if result.add(VideoEntry(f"{number:05d}", path, label, fold=fold), labels) and not paths:
            result.missing.append(f"{number:05d} ({path})")
    for number, (first, *others) in sorted(files.items()):
        if number not in listed:
            result.skip(
                relative_posix(first, root), "not in the fold lists, which contain the videos with a single label"
            )
        for other in others:
            result.skip(relative_posix(other, root), DUPLICATE)
