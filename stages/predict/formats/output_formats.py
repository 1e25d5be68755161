"""Formats by name: which files of a video each of them has, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ....cache.errors import CeflError, did_you_mean
from ..outputs import LocatedFaces, timeline_png
from ..overlay import check_overlay, write_overlay_video
from .boris import write_project, write_sheet
from .eaf import write_eaf
from .page import write_page
from .person_sheet import write_person_sheet
from .subtitles import write_srt, write_vtt
from .tabular import (
    check_parquet,
    write_frames_csv,
    write_frames_parquet,
    write_openface_csv,
    write_segments_csv,
    write_segments_parquet,
)
from .video_result import VideoResult

Writer = Callable[[VideoResult, Path, Path], None]
"""Writes a file of a video at a temporary path; the second path is where the file will be."""


class Part(NamedTuple):
    """A file of a format: what its name ends with, and what writes it; ``per_track``: one for every face track."""

    suffix: str
    write: Writer
    per_track: bool = False


@dataclass(frozen=True)
class OutputFormat:
    """A format: what it is in a few words, its files, and what checks that it can be written here.

    The check raises CeflError, or returns a line for the user or ''.
    """

    title: str
    parts: tuple[Part, ...] = ()
    check: Callable[[], str] = str


def write_timeline(result: VideoResult, path: Path, target: Path) -> None:
    prediction = result.predictions[0]
    faces = result.located or LocatedFaces(result.predictions, result.align, result.view)
    path.write_bytes(timeline_png(prediction, faces.of(prediction)))


def write_overlay(result: VideoResult, path: Path, target: Path) -> None:
    write_overlay_video(result.video, result.predictions, path, result.view, result.counter)


FRAMES_CSV = Part(".csv", write_frames_csv)
"""The table of frames, which is always written: with the JSON it is what other formats are made of later."""
FORMATS = {
    "csv": OutputFormat("tables of frames and of segments", (FRAMES_CSV, Part(".segments.csv", write_segments_csv))),
    "parquet": OutputFormat(
        "the same tables as Parquet",
        (Part(".frames.parquet", write_frames_parquet), Part(".segments.parquet", write_segments_parquet)),
        check_parquet,
    ),
    "json": OutputFormat("predictions, windows and segments"),
    "eaf": OutputFormat("annotations for ELAN", (Part(".eaf", write_eaf),)),
    "boris": OutputFormat(
        "a project and a sheet of events for BORIS", (Part(".boris", write_project), Part(".boris.xlsx", write_sheet))
    ),
    "vtt": OutputFormat("WebVTT subtitles", (Part(".vtt", write_vtt),)),
    "srt": OutputFormat("SubRip subtitles", (Part(".srt", write_srt),)),
    "openface": OutputFormat("a table with OpenFace's columns first", (Part(".openface.csv", write_openface_csv),)),
    "html": OutputFormat(
        "a page to watch the video with its curves, and to correct segments", (Part(".html", write_page),)
    ),
    "png": OutputFormat("the timeline", (Part(".png", write_timeline, per_track=True),)),
    "persons": OutputFormat(
        "the faces of every person, to check who is who", (Part(".persons.png", write_person_sheet),)
    ),
    "mp4": OutputFormat("the video with boxes and labels drawn in", (Part(".mp4", write_overlay),), check_overlay),
}
DEFAULT_FORMATS = ("csv", "json", "png")
ALL_FACES_FORMATS = (*DEFAULT_FORMATS, "persons")
"""Default where every face is predicted."""
OVERLAY = "mp4"


def check_formats(names: Sequence[str]) -> list[str]:
    """Return what a user should know of the formats on this machine, in lines.

    Raises CeflError for a format that does not exist or cannot be written.
    """
    lines = []
    for name in names:
        if name not in FORMATS:
            raise CeflError(f"--format {name}: no such format{did_you_mean(name, list(FORMATS))}")
        lines.append(FORMATS[name].check())
    return [line for line in lines if line]


def parts_of(names: Sequence[str]) -> list[Part]:
    """Return the files of some formats, and those that every video has, without the JSON, each once."""
    return list(dict.fromkeys([FRAMES_CSV, *(part for name in names for part in FORMATS[name].parts)]))


def draws_overlay(parts: Sequence[Part]) -> bool:
    """Return whether an overlay video, for which the video is read once more, is among some files."""
    return any(part in FORMATS[OVERLAY].parts for part in parts)


def for_track(result: VideoResult, track: int) -> VideoResult:
    """Return the result of one face track alone."""
    return replace(result, predictions=[each for each in result.predictions if each.track == track])
