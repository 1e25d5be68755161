"""FERV39k: cropped faces in a folder per scene, expression and clip; one list to train on and one to test on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import read_lines
from ..files import find_files, find_folders, has_image, list_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of FERV39k, or one above it:
  2_ClipsforFaceCrop/Action/Sad/0010/01.jpg …                 a folder per scene, expression and clip
  4_setups/All_scenes/train_All.csv, test_All.csv             (lines such as: Action/Sad/0010 Sad)"""


@dataclass(frozen=True)
class Options:
    """``setup``: which lists to take, the folder below 4_setups: All_scenes, or one scene."""

    setup: str = "All_scenes"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every clip of both lists; one whose pictures are not there stays listed, as a clip that fails.

    Raises CeflError when the lists or the clips are not there.
    """
    found = ScanResult()
    lists = _lists(root, options.setup)
    home = next(iter(find_folders(root, lambda folder, inside: folder.name.lower() == "2_clipsforfacecrop")), None)
    if home is None or not lists:
        what = f"no lists of {options.setup}" if home else "no folder 2_ClipsforFaceCrop"
        raise CeflError(f"{root}: {what} below it; expected\n{LAYOUT}")
    inner = list_folder(home).find_folder(home.name)
    there = _clips(home / inner if inner else home)
    differing = []
    for split, file in lists:
        for number, words in enumerate(read_lines(file), start=1):
            name, word = " ".join(words[:-1]).strip("/"), label_of(words[-1], labels)
            if word is None or not name:
                raise CeflError(
                    f"{relative_posix(file, root)}: line {number}: expected Scene/Expression/number and a label"
                )
            folder = there.get(name.lower())
            path = relative_posix(folder or home / name, root)
            if found.add(VideoEntry(name, path, word, split=split), labels) and folder is None:
                found.missing.append(name)
            if label_of(name.rpartition("/")[0].rpartition("/")[2], labels) != word:
                differing.append(name)
    if differing:
        found.notes.append(f"{len(differing)} clips lie in a folder of another expression than their list says, "
                           f"e.g. {differing[0]}; the list counts")  # fmt: skip
    listed = {row.id.lower() for row in found.entries}
    for name, folder in there.items():
        if name not in listed:
            found.skip(relative_posix(folder, root), "in neither list")
    return found


def _lists(root: Path, setup: str) -> list[tuple[str, Path]]:
    files = [file for file in find_files(root, (".csv", ".txt")) if file.parent.name.lower() == setup.lower()]
    named = [(next((s for s in ("train", "test") if s in file.stem.lower()), None), file) for file in files]
    return sorted(((split, file) for split, file in named if split), key=lambda item: item[0], reverse=True)


def _clips(home: Path) -> dict[str, Path]:
    """Return every folder Scene/Expression/number that holds pictures, by that name in lower-case letters."""
    clips = {}
    for scene in list_folder(home).folders:
        for expression in list_folder(home / scene).folders:
            folder = home / scene / expression
            for number in list_folder(folder).folders:
                if has_image(folder / number):
                    clips[f"{scene}/{expression}/{number}".lower()] = folder / number
    return clips
