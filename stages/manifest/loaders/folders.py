"""A folder per expression, e.g. ROOT/Happy/video.mp4."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..files import find_videos
from ..manifest import VideoEntry, default_ids
from ..scan import ScanResult, label_of_folders, labels_of_folders, relative_posix
from ..splits import SPLIT_NAMES

LAYOUT = """a folder per expression, named by the whole word in any usual spelling, with videos or folders of images below:
  ROOT/Angry/one.mp4
  ROOT/happy/two/0001.jpg …
  ROOT/train/Sad/three.avi      (a parent folder named train, val or test becomes the split)"""


def scan(root: Path, labels: tuple[str, ...] = ()) -> ScanResult:
    """Read the label of each video from the parent folder that names an expression.

    ``labels`` are custom labels; known expressions among them are accepted in any usual spelling. The list that
    ``ceflpipe manifest --folder`` writes there is no video and is not counted as skipped. Raises CeflError if two folders
    above a video name different expressions.
    """
    result = ScanResult()
    listing = find_videos(root, partial(_label_and_split, root, labels))
    for path, reason in listing.skipped:
        if path != root / "videos.csv":
            result.skip(relative_posix(path, root), reason)
    paths = [relative_posix(video, root) for video in listing.videos]
    for video, relative, video_id in zip(listing.videos, paths, default_ids(paths), strict=True):
        folders = Path(relative).parts[: -1 if video.is_file() else None]
        label = label_of_folders(folders, labels)
        if label is not None:
            result.entries.append(VideoEntry(video_id, relative, label, split=_split_of(folders)))
        elif labels and (label := label_of_folders(folders, ())):
            result.skip(relative, f"its folder names {label}, which is not one of the labels {', '.join(labels)}")
        else:
            result.skip(relative, "no folder above it names an expression")
    return result


def _label_and_split(root: Path, labels: tuple[str, ...], folder: Path) -> tuple[tuple[str, ...], str]:
    """Return what the names of a folder and those above it say; a link to a folder searched with other names is followed."""
    folders = folder.relative_to(root).parts
    return tuple(labels_of_folders(folders, labels)), _split_of(folders)


def _split_of(folders: Sequence[str]) -> str:
    return next((SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES), "")
