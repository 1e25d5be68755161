"""A folder per expression, e.g. ROOT/Happy/video.mp4."""

from __future__ import annotations

from pathlib import Path

from ..files import iter_videos
from ..manifest import VideoEntry
from ..scan import ScanResult, nearest_label
from ..splits import SPLIT_NAMES

LAYOUT = """a folder per expression, in any usual spelling, with videos or folders of images below:
  ROOT/Angry/one.mp4
  ROOT/happy/two/0001.jpg …
  ROOT/train/Sad/three.avi      (a parent folder named train, val or test becomes the split)"""


def scan(root: Path, labels: tuple[str, ...] = ()) -> ScanResult:
    """Read the label of each video from its nearest parent folder that names an expression.

    ``labels`` are custom labels; the known expressions are accepted in any usual spelling.
    """
    result = ScanResult()
    for video in iter_videos(root):
        relative = video.relative_to(root)
        folders = relative.parts[:-1] if video.is_file() else relative.parts
        label = nearest_label(folders, labels)
        split = next((SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES), "")
        if label is None:
            result.skip(str(relative), "no parent folder names an expression")
        else:
            video_id = relative.with_suffix("") if video.is_file() else relative
            result.entries.append(VideoEntry(video_id.as_posix(), relative.as_posix(), label, split=split))
    return result
