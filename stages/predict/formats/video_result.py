"""What a format writes: the predictions of one video; and texts and times as formats need them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ...manifest.files import printable
from ..predict import DEFAULT_VIEW, FrameCounter, VideoView
from ..prediction import Prediction

CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""Characters that XML has no way to write (the last two), or that a text editor or player does not show."""


@dataclass(frozen=True)
class VideoResult:
    """The predictions of a video, a face track each, in order of their numbers; none of them has a ``failure``.

    ``align``: how face crops are cut, as in ExtractConfig, or resize. ``counter`` counts the frames that are read again.
    """

    video: Path
    predictions: Sequence[Prediction]
    labels: Sequence[str]
    align: str = "landmarks"
    view: VideoView = field(default=DEFAULT_VIEW)
    counter: FrameCounter | None = None

    @property
    def name(self) -> str:
        """Name of the file as a text."""
        return printable(self.video.name)


def milliseconds(seconds: float) -> int:
    """Return a time rounded to milliseconds, not negative."""
    return max(0, round(1000 * seconds))


def one_line(text: str) -> str:
    """Return a text on one line, without control characters.

    >>> one_line("a\\nb\\x00")
    'a b\\ufffd'
    """
    return CONTROL_CHARACTERS.sub("\ufffd", " ".join(printable(text).splitlines()))


def relative_path(video: Path, folder: Path) -> Path:
    """Return the path of a video from a folder; the absolute one if there is none, as between two drives."""
    video, folder = Path(os.path.abspath(video)), Path(os.path.abspath(folder))
    try:
        return Path(os.path.relpath(video, folder))
    except ValueError:
        return video


def file_url(path: Path) -> str:
    """Return the URL of an absolute path, also of one on a drive.

    >>> file_url(Path("/a b/c.mp4"))
    'file:///a%20b/c.mp4'
    """
    return f"file:///{url_path(path).removeprefix('/')}"


def url_path(path: Path) -> str:
    """Return a path with slashes as part of a URL, also a name that is not UTF-8.

    >>> url_path(Path("a b/c#1.mp4"))
    'a%20b/c%231.mp4'
    """
    return quote(os.fsencode(path.as_posix()), safe="/:")
