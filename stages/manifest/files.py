"""File-system walking: videos, image folders, natural sort order, and command-line patterns."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.errors import CeflError, shorten_list

VIDEO_EXTENSIONS = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".m4v", ".flv", ".gif",  # what most people have
    ".3g2", ".3gp", ".3gp2", ".3gpp", ".f4v", ".ismv", ".mj2", ".mp4v", ".mpg4", ".qt",  # QuickTime and MP4
    ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".mod", ".mpe", ".mpv", ".mts", ".tod", ".trp", ".ts", ".vob", ".vro",  # MPEG
    ".divx", ".dif", ".dv", ".xvid",  # AVI and DV
    ".asf", ".dvr-ms", ".wm", ".wtv", ".xmv",  # Windows Media
    ".mk3d", ".ogm", ".ogv", ".ogx",  # Matroska and Ogg
    ".rm", ".rmvb", ".rv", ".ivr", ".viv",  # RealMedia, Vivo
    ".264", ".265", ".266", ".avc", ".h261", ".h263", ".h264", ".h265", ".h266", ".hevc", ".vvc",  # bare streams
    ".avs2", ".avs3", ".cavs", ".dnxhd", ".dnxhr", ".h26l", ".imx", ".ivf", ".mjpeg", ".mjpg", ".obu", ".vc1", ".y4m",
    ".amv", ".apng", ".dav", ".dvd", ".flc", ".fli", ".gxf", ".ifv", ".insv", ".kux", ".moflex", ".mxf", ".mxg", ".nsv",  # others
    ".nut", ".psp", ".roq", ".smk", ".swf", ".ty", ".usm",
)  # fmt: skip
"""Endings of the video files that FFmpeg reads, in lower case. Left out are those that mostly mean something else: sound
(.m4a, .ogg), single pictures (.avif, .heic), data and text (.dat, .txt)."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_DEPTH = 6
"""Levels below the root that are searched for the parts of a data set: enough for parent folders and nested X/X/."""
_SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_THUMBNAIL_FOLDERS = {"thumb", "thumbs", "thumbnail", "thumbnails"}


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
            kind = _kind(item)
            if kind == "folder":
                folders.append(item.name)
            elif kind == "file":
                files.append(item.name)
    return FolderListing(tuple(sorted(folders, key=natural_key)), tuple(sorted(files, key=natural_key)))


def _kind(item: os.DirEntry[str]) -> str:
    """Return folder, file, device (also a FIFO or a socket), or broken (a link that leads nowhere, or to itself)."""
    try:
        if item.is_dir():
            return "folder"
        if item.is_file():
            return "file"
        return "device" if os.path.exists(item.path) else "broken"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "broken"
        raise


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
    """Yield (folder, listing, whether it matches) of every folder searched, level by level; each once, as in ``walk``."""
    level, visited = [root], set()
    for depth in range(max_depth + 1):
        next_level: list[Path] = []
        for folder in level:
            if depth and folder.name.isdecimal():
                continue
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            listing = list_folder(folder)
            is_match = matches(folder, listing)
            yield folder, listing, is_match
            if not is_match:
                next_level += [folder / name for name in listing.folders]
        level = next_level


@dataclass
class VideoListing:
    """Videos in the order in which they were found, and (path, reason) of what was passed over."""

    videos: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def find_videos(folder: Path, group_of: Callable[[Path], Hashable] | None = None) -> VideoListing:
    """Return every video below a folder in natural order: video files, and folders of images.

    A folder of images is a video only if no video file is in it or below it: a picture beside films is their cover. A
    single picture beside folders of images is none either, nor are the pictures in a folder named thumbnails. Hidden
    names are passed over. Links to folders are followed; a folder is searched once, or once per value of ``group_of`` (of
    its path), and never from within itself. Raises CeflError for a folder that cannot be read.
    """
    search = _VideoSearch(group_of)
    search.visit(folder, ())
    return search.result


@dataclass
class _VideoSearch:
    group_of: Callable[[Path], Hashable] | None
    result: VideoListing = field(default_factory=VideoListing)
    _visited: set[Hashable] = field(default_factory=set)

    def visit(self, folder: Path, above: tuple[tuple[int, int], ...]) -> bool:
        """Search one folder; ``above`` identifies the folders that lead to it. Returns whether it holds a video file."""
        try:
            status = folder.stat()
            with os.scandir(folder) as scanned:
                items = [(item, _kind(item)) for item in scanned if not _is_hidden(item.name)]
        except OSError as error:
            raise CeflError(
                f"{folder}: cannot be read: {error.strerror or error}; make it readable, or move it elsewhere"
            ) from None
        identity = (status.st_dev, status.st_ino)
        visit = (identity, self.group_of(folder) if self.group_of else None)
        if identity in above or visit in self._visited:
            self._skip(folder, "a link to a folder that is searched anyway")
            return False
        self._visited.add(visit)
        items.sort(key=lambda pair: natural_key(pair[0].name))
        files = [Path(item.path) for item, kind in items if kind == "file"]
        has_files = any(_ends_with(file, VIDEO_EXTENSIONS) for file in files)
        position, has_files_below = len(self.result.videos), False
        for item, kind in items:
            path, name = Path(item.path), item.name.lower()
            match kind:
                case "folder":
                    has_files_below |= self.visit(path, (*above, identity))
                case "broken":
                    self._skip(path, "a link that leads nowhere")
                case "device":
                    self._skip(path, "neither a file nor a folder")
                case "file" if name.endswith(VIDEO_EXTENSIONS):
                    self.result.videos.append(path)
                case "file" if not name.endswith(IMAGE_EXTENSIONS):
                    self._skip(path, _describe_ending(path))
        images = [file for file in files if _ends_with(file, IMAGE_EXTENSIONS)]
        is_cover = len(images) == 1 and len(self.result.videos) > position
        is_thumbnails = bool(above) and folder.name.lower() in _THUMBNAIL_FOLDERS
        if has_files or has_files_below or is_cover or is_thumbnails:
            for image in images:
                self._skip(image, "an image beside videos")
        elif images:
            self.result.videos.insert(position, folder)
        return has_files or has_files_below

    def _skip(self, path: Path, reason: str) -> None:
        self.result.skipped.append((path, reason))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS | _SYSTEM_FILES


def _describe_ending(path: Path) -> str:
    suffix = path.suffix.lower()
    return f"the ending {suffix} is not that of a video" if suffix else "a name without an ending"


def _ends_with(path: Path, extensions: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(extensions)


def expand_video_paths(arguments: Iterable[Path]) -> VideoListing:
    """Return the videos that files, folders and glob patterns name, each once, in order, and what was passed over.

    A folder of images is one video; any other folder stands for all videos below it. A missing file stays in the list,
    so that it is reported. Of what a pattern matches, folders are searched and files of other endings are passed over,
    unless it matches nothing else. Raises CeflError for a folder without videos and for a pattern without a match.
    """
    videos: dict[Path, None] = {}
    skipped: list[tuple[Path, str]] = []
    for argument in arguments:
        if os.path.isdir(argument):
            listing = find_videos(argument)
            if not listing.videos:
                skipped_lines = "".join(f"\n  {line}" for line in describe_skipped(listing.skipped))
                raise CeflError(
                    f"{argument}: no video in this folder or below it; give a folder with "
                    f"video files ({', '.join(VIDEO_EXTENSIONS[:8])} and others that FFmpeg reads) or images{skipped_lines}"
                )
        elif not os.path.lexists(argument) and glob.has_magic(str(argument)):
            listing = _expand_pattern(argument)
        else:
            listing = VideoListing([argument])
        videos.update(dict.fromkeys(listing.videos))
        skipped += listing.skipped
    return VideoListing(list(videos), skipped)


def _expand_pattern(pattern: Path) -> VideoListing:
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True), key=natural_key)]
    if not matches:
        raise CeflError(f"{pattern}: nothing matches this pattern; give existing files or folders")
    result = VideoListing()
    others = []
    for path in matches:
        if path.is_dir():
            listing = find_videos(path)
            result.videos += listing.videos
            result.skipped += listing.skipped
        elif _ends_with(path, VIDEO_EXTENSIONS):
            result.videos.append(path)
        else:
            others.append(path)
    if not result.videos:
        return VideoListing(others or matches)
    result.skipped += [(path, _describe_ending(path)) for path in others]
    return result


def describe_skipped(skipped: Iterable[tuple[Path | str, str]], examples: int = 3) -> list[str]:
    """Return a line per reason for which something was passed over, with the count and a few names.

    >>> describe_skipped([("a.txt", "no video"), ("b.txt", "no video")])
    ['skipped 2: no video (a.txt, b.txt)']
    """
    names: dict[str, list[str]] = {}
    for path, reason in skipped:
        names.setdefault(reason, []).append(printable(str(path)))
    return [f"skipped {len(paths)}: {reason} ({shorten_list(paths, examples)})" for reason, paths in names.items()]


def has_raw_bytes(text: str) -> bool:
    """Return whether a name holds bytes that are not UTF-8, as Python reads them from disk."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def printable(text: str) -> str:
    """Return a name as text that any program can store and print: bytes that are not UTF-8 as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if has_raw_bytes(text) else text
