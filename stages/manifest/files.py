"""File-system walking: videos, image folders, natural sort order, and command-line patterns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError

VIDEO_EXTENSIONS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".flv", ".webm", ".m4v", ".mpg", ".mpeg")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
MAX_DEPTH = 6
"""Folders below a data set's root in which its parts are looked for: room for a parent, and for X/X/ of an unzip."""
_SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information"}


@dataclass(frozen=True)
class FolderListing:
    """The names of the folders and of the files in one folder, each in natural order, without hidden ones."""

    folders: tuple[str, ...]
    files: tuple[str, ...]

    def videos(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.lower().endswith(VIDEO_EXTENSIONS))

    def images(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.lower().endswith(IMAGE_EXTENSIONS))

    def find_folder(self, name: str) -> str | None:
        """Return the folder of a name in whatever upper and lower case it is written, or None."""
        return next((folder for folder in self.folders if folder.lower() == name.lower()), None)

    def find_file(self, name: str) -> str | None:
        """Return the file of a name in whatever upper and lower case it is written, or None."""
        return next((file for file in self.files if file.lower() == name.lower()), None)


def natural_key(text: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which 2.jpg comes before 10.jpg, and 02.jpg before 2.jpg.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=natural)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]
    return parts, text


def list_folder(folder: Path) -> FolderListing:
    """List one folder; links are followed."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FOLDERS:
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
    return FolderListing(tuple(sorted(folders, key=natural_key)), tuple(sorted(files, key=natural_key)))


def walk(root: Path) -> Iterator[tuple[Path, FolderListing]]:
    """Yield every folder from ``root`` down with its listing; a folder that a link leads to twice comes once."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        found = list_folder(folder)
        yield folder, found
        waiting += [folder / name for name in reversed(found.folders)]


def find_folders(root: Path, wanted: Callable[[Path, FolderListing], bool], deepest: int = MAX_DEPTH) -> list[Path]:
    """Return the folders from ``root`` down to ``deepest`` levels below it that are ``wanted``, shallow ones first.

    What lies below a found folder is not looked at, nor what lies below a folder named by a number alone: there are
    thousands of those, and they hold frames.
    """
    level, found = [root], []
    for depth in range(deepest + 1):
        below: list[Path] = []
        for folder in level:
            if depth and folder.name.isdecimal():
                continue
            inside = list_folder(folder)
            if wanted(folder, inside):
                found.append(folder)
            else:
                below += [folder / name for name in inside.folders]
        level = below
    return found


def find_files(root: Path, endings: tuple[str, ...], deepest: int = MAX_DEPTH) -> list[Path]:
    """Return the files with one of the endings as deep below ``root`` as ``search`` looks."""
    files: list[Path] = []

    def collect(folder: Path, inside: FolderListing) -> bool:
        files.extend(folder / name for name in inside.files if name.lower().endswith(endings))
        return False

    find_folders(root, collect, deepest)
    return files


def skip_nested_folder(folder: Path) -> Path:
    """Return the inner folder of X/X/, which some programs make of an archive X.zip that holds X/; else ``folder``."""
    inner = list_folder(folder).find_folder(folder.name)
    return skip_nested_folder(folder / inner) if inner else folder


def has_image(folder: Path) -> bool:
    """Tell whether a folder holds at least one picture, without listing it to the end."""
    with os.scandir(folder) as entries:
        return any(e.name.lower().endswith(IMAGE_EXTENSIONS) and not e.name.startswith(".") for e in entries)


def iter_videos(folder: Path) -> Iterator[Path]:
    """Yield every video below a folder in natural order: files with a video's ending, and folders of images.

    Names that start with a dot are passed over, and links to folders are not followed (they may lead round).
    """
    with os.scandir(folder) as listed:
        entries = sorted(
            (entry for entry in listed if not entry.name.startswith(".")), key=lambda e: natural_key(e.name)
        )
    if any(entry.is_file() and entry.name.lower().endswith(IMAGE_EXTENSIONS) for entry in entries):
        yield folder
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from iter_videos(Path(entry.path))
        elif entry.is_file() and entry.name.lower().endswith(VIDEO_EXTENSIONS):
            yield Path(entry.path)


def expand_video_paths(arguments: Iterable[Path]) -> list[Path]:
    """Return the videos of the arguments, each once, in order: files as they are, folders searched, patterns expanded.

    A folder of images is one video; of any other folder all videos below it are meant. A file that is not there stays
    in the list, so that it is said. Raises CeflError for a folder without videos and a pattern that nothing matches."""
    meant: dict[Path, None] = {}
    for argument in arguments:
        if argument.is_dir():
            found = list(iter_videos(argument))
            if not found:
                raise CeflError(f"{argument}: no video in this folder, nor below it")
        elif not argument.exists() and glob.has_magic(str(argument)):
            found = [Path(name) for name in sorted(glob.glob(str(argument), recursive=True), key=natural_key)]
            if not found:
                raise CeflError(f"{argument}: nothing matches this pattern")
        else:
            found = [argument]
        meant.update(dict.fromkeys(found))
    return list(meant)
