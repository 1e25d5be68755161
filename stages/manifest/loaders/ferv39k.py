"""FERV39k: cropped faces in a folder per scene, expression and clip, with a train list and a test list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import read_lines
from ..files import find_files, find_folders, has_image, list_folder, skip_nested_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of FERV39k, or its parent:
  2_ClipsforFaceCrop/Action/Sad/0010/01.jpg …                 a folder per scene, expression and clip
  4_setups/All_scenes/train_All.csv, test_All.csv             (lines such as: Action/Sad/0010 Sad)"""


@dataclass(frozen=True)
class Options:
    """``setup``: the folder below 4_setups whose lists are used: All_scenes, or one scene."""

    setup: str = "All_scenes"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every clip of both lists; one without images stays listed and counts as a failed clip.

    Raises CeflError if the lists or the clips do not exist.
    """
    result = ScanResult()
    lists = _find_lists(root, options.setup)
    crops = next(iter(find_folders(root, lambda folder, _: folder.name.lower() == "2_clipsforfacecrop")), None)
    if crops is None or not lists:
        missing = f"no lists of {options.setup}" if crops else "no folder 2_ClipsforFaceCrop"
        raise CeflError(f"{root}: {missing} below it; expected\n{LAYOUT}")
    clips = _find_clips(skip_nested_folder(crops))
    differing = []
    for split, file in lists:
        for number, words in enumerate(read_lines(file), start=1):
            name, label = " ".join(words[:-1]).strip("/"), label_of(words[-1], labels)
            if label is None or not name:
                raise CeflError(
                    f"{relative_posix(file, root)}: line {number}: expected Scene/Expression/number and a label, "
                    f"found {' '.join(words)}"
                )
            folder = clips.get(name.lower())
            path = relative_posix(folder or crops / name, root)
            if result.add(VideoEntry(name, path, label, split=split), labels) and folder is None:
                result.missing.append(name)
            if label_of(name.rpartition("/")[0].rpartition("/")[2], labels) != label:
                differing.append(name)
    if differing:
        result.notes.append(
            f"{len(differing)} clips are in a folder of another expression than their label in the list, "
            f"e.g. {differing[0]}; the label of the list is used"
        )
    listed = {entry.id.lower() for entry in result.entries}
    for name, folder in clips.items():
        if name not in listed:
            result.skip(relative_posix(folder, root), "in neither list")
    return result


def _find_lists(root: Path, setup: str) -> list[tuple[str, Path]]:
    """Return (split, file) of the lists of a setup, the train list first."""
    files = [file for file in find_files(root, (".csv", ".txt")) if file.parent.name.lower() == setup.lower()]
    splits = [(next((split for split in ("train", "test") if split in file.stem.lower()), ""), file) for file in files]
    return sorted((item for item in splits if item[0]), key=lambda item: item[0], reverse=True)


def _find_clips(crops: Path) -> dict[str, Path]:
    """Return every folder Scene/Expression/number that contains images, by that name in lower case."""
    clips = {}
    for scene in list_folder(crops).folders:
        for expression in list_folder(crops / scene).folders:
            folder = crops / scene / expression
            for number in list_folder(folder).folders:
                if has_image(folder / number):
                    clips[f"{scene}/{expression}/{number}".lower()] = folder / number
    return clips
