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
"""Levels below the root that are searched for the parts of a data set: enough for parent folders and nested X/X/."""
_SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information"}


def natural_key(text: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which 2.jpg comes before 10.jpg, and 02.jpg before 2.jpg.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=natural_key)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]
    return parts, text


@dataclass(frozen=True)
class FolderListing:
    """Names of the folders and of the files in one folder, in natural order, without hidden ones."""

    folders: tuple[str, ...]
    files: tuple[str, ...]

    def videos(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.lower().endswith(VIDEO_EXTENSIONS))

    def images(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.lower().endswith(IMAGE_EXTENSIONS))

    def folders_like(self, pattern: re.Pattern[str]) -> list[str]:
        return [name for name in self.folders if pattern.fullmatch(name)]

    def find_folder(self, name: str) -> str | None:
        """Return the folder of this name in any case, or None."""
        return next((folder for folder in self.folders if folder.lower() == name.lower()), None)

    def find_file(self, name: str) -> str | None:
        """Return the file of this name in any case, or None."""
        return next((file for file in self.files if file.lower() == name.lower()), None)


def list_folder(folder: Path) -> FolderListing:
    """List one folder; links are followed."""
    folders, files = [], []
    with os.scandir(folder) as items:
        for item in items:
            if item.name.startswith(".") or item.name.lower() in _SYSTEM_FOLDERS:
                continue
            if item.is_dir():
                folders.append(item.name)
            elif item.is_file():
                files.append(item.name)
    return FolderListing(tuple(sorted(folders, key=natural_key)), tuple(sorted(files, key=natural_key)))


def has_image(folder: Path) -> bool:
    """Return whether a folder contains an image; stops at the first."""
    with os.scandir(folder) as items:
        return any(item.name.lower().endswith(IMAGE_EXTENSIONS) and not item.name.startswith(".") for item in items)


def skip_nested_folder(folder: Path) -> Path:
    """Return the inner folder of X/X/, which some programs create from an archive X.zip with X/ in it; else ``folder``."""
    inner = list_folder(folder).find_folder(folder.name)
    return skip_nested_folder(folder / inner) if inner else folder


def walk(root: Path) -> Iterator[tuple[Path, FolderListing]]:
    """Yield every folder from ``root`` down, parents first, with its listing; each once, even if links lead to it."""
    pending, visited = [root], set()
    while pending:
        folder = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        listing = list_folder(folder)
        yield folder, listing
        pending += [folder / name for name in reversed(listing.folders)]


def find_folders(root: Path, matches: Callable[[Path, FolderListing], bool], max_depth: int = MAX_DEPTH) -> list[Path]:
    """Return the folders, from ``root`` to ``max_depth`` levels below it, for which ``matches`` is true; top level first.

    Does not search below a match, nor below a folder whose name is a number: data sets have thousands of those, and
    they contain frames.
    """
    return [folder for folder, _, is_match in _search(root, matches, max_depth) if is_match]


def find_files(root: Path, extensions: tuple[str, ...], max_depth: int = MAX_DEPTH) -> list[Path]:
    """Return the files with one of the extensions, in the folders that ``find_folders`` searches."""
    return [
        folder / name
        for folder, listing, _ in _search(root, lambda folder, listing: False, max_depth)
        for name in listing.files
        if name.lower().endswith(extensions)
    ]


def _search(
    root: Path, matches: Callable[[Path, FolderListing], bool], max_depth: int
) -> Iterator[tuple[Path, FolderListing, bool]]:
    """Yield (folder, listing, whether it matches) of every folder searched, level by level."""
    level = [root]
    for depth in range(max_depth + 1):
        next_level: list[Path] = []
        for folder in level:
            if depth and folder.name.isdecimal():
                continue
            listing = list_folder(folder)
            is_match = matches(folder, listing)
            yield folder, listing, is_match
            if not is_match:
                next_level += [folder / name for name in listing.folders]
        level = next_level


def iter_videos(folder: Path) -> Iterator[Path]:
    """Yield every video below a folder in natural order: video files, and folders of images.

    Hidden names are skipped; links to folders are not followed, since they may form a cycle.
    """
    with os.scandir(folder) as listing:
        items = sorted((i for i in listing if not i.name.startswith(".")), key=lambda item: natural_key(item.name))
    if any(item.is_file() and item.name.lower().endswith(IMAGE_EXTENSIONS) for item in items):
        yield folder
    for item in items:
        if item.is_dir(follow_symlinks=False):
            yield from iter_videos(Path(item.path))
        elif item.is_file() and item.name.lower().endswith(VIDEO_EXTENSIONS):
            yield Path(item.path)


def expand_video_paths(arguments: Iterable[Path]) -> list[Path]:
    """Return the videos that files, folders and glob patterns name, each once, in order.

    A folder of images is one video; any other folder stands for all videos below it. A missing file stays in the list,
    so that it is reported. Raises CeflError for a folder without videos and for a pattern without a match.
    """
    videos: dict[Path, None] = {}
    for argument in arguments:
        if argument.is_dir():
            paths = list(iter_videos(argument))
            if not paths:
                raise CeflError(
                    f"{argument}: no video in this folder or below it; known extensions: {' '.join(VIDEO_EXTENSIONS)}"
                )
        elif not argument.exists() and glob.has_magic(str(argument)):
            paths = [Path(name) for name in sorted(glob.glob(str(argument), recursive=True), key=natural_key)]
            if not paths:
                raise CeflError(f"{argument}: nothing matches this pattern; give existing files or folders")
        else:
            paths = [argument]
        videos.update(dict.fromkeys(paths))
    return list(videos)
