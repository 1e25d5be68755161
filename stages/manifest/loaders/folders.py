"""A folder per expression: whatever/Happy/video.mp4."""

from __future__ import annotations

from pathlib import Path

from ..files import iter_videos
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of

LAYOUT = """a folder per expression, in any usual spelling, with videos or folders of images below:
  ROOT/Angry/one.mp4
  ROOT/happy/two/0001.jpg …
  ROOT/train/Sad/three.avi      (a folder named train, val or test above becomes the split)"""
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def scan(root: Path, labels: tuple[str, ...] = ()) -> ScanResult:
    """Read the label of each video from the nearest folder above it that names an expression.

    ``labels`` are a user's own words; the known expressions are understood in any usual spelling.
    """
    found = ScanResult()
    for video in iter_videos(root):
        relative = video.relative_to(root)
        folders = relative.parts[:-1] if video.is_file() else relative.parts
        label = next((word for part in reversed(folders) if (word := label_of(part, labels))), None)
        split = next((_SPLITS[part.lower()] for part in folders if part.lower() in _SPLITS), "")
        if label is None:
            found.skip(str(relative), "no folder above it names an expression")
        else:
            identifier = relative.with_suffix("") if video.is_file() else relative
            found.entries.append(VideoEntry(identifier.as_posix(), relative.as_posix(), label, split=split))
    return found
