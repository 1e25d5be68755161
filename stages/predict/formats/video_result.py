"""What a format writes: the predictions of one video; and texts and times as formats need them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ...manifest.files import printable
from ..outputs import LocatedFaces
from ..person_names import one_line
from ..predict import DEFAULT_VIEW, FrameCounter, VideoView
from ..prediction import Prediction


class Person(NamedTuple):
    """A person of a video: number from 1, name on one line, and face tracks in order of time, which do not overlap."""

    number: int
    name: str
    tracks: list[Prediction]


@dataclass(frozen=True)
class VideoResult:
    """The predictions of a video, a face track each, in order of their numbers; none of them has a ``failure``.

    ``align``: how face crops are cut, as in ExtractConfig, or resize. ``counter`` counts the frames that are read again.
    ``located``: faces for the timelines, shared by the results of single tracks.
    """

    video: Path
    predictions: Sequence[Prediction]
    labels: Sequence[str]
    align: str = "landmarks"
    view: VideoView = field(default=DEFAULT_VIEW)
    counter: FrameCounter | None = None
    located: LocatedFaces | None = None

    @property
    def name(self) -> str:
        """Name of the file as a text."""
        return printable(self.video.name)

    @property
    def persons(self) -> list[Person]:
        """The persons in order of their numbers; tracks of one person that overlap, as wrong names can make them, are two.

        A track ends no later than the next one of its person begins: the length of its last frame is an estimate.
        """
        persons: list[Person] = []
        for prediction in sorted(self.predictions, key=lambda each: (each.person_number, each.first_frame)):
            number, name = prediction.person_number, one_line(prediction.display_name)
            same = [person for person in persons if person.number == number]
            free = [each for each in same if prediction.first_frame >= _end_frame(each.tracks[-1])]
            if not free:
                persons.append(Person(number, f"{name} ({len(same) + 1})" if same else name, [prediction]))
                continue
            last, begin = free[0].tracks[-1], prediction.edges[0]
            if last.edges[-1] > begin:
                free[0].tracks[-1] = replace(last, edges=(*last.edges[:-1], begin), end=begin)
            free[0].tracks.append(prediction)
        return persons


def _end_frame(prediction: Prediction) -> int:
    return prediction.first_frame + prediction.num_frames


def milliseconds(seconds: float) -> int:
    """Return a time rounded to milliseconds, not negative."""
    return max(0, round(1000 * seconds))


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
