"""Subtitles that play beside the video, WebVTT and SubRip: a cue per segment and person."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .video_result import VideoResult, milliseconds, one_line


class Cue(NamedTuple):
    """``begin`` and ``end`` in milliseconds from the start of the file."""

    begin: int
    end: int
    person: str
    text: str


def cues(result: VideoResult) -> Iterator[Cue]:
    """Yield the cues in order of time; a segment of less than half a millisecond has none."""
    every = []
    for number, person, prediction in (
        (number, each.name, track) for number, each in enumerate(result.persons) for track in each.tracks
    ):
        for row in prediction.segments().to_dict("records"):
            begin, end = milliseconds(row["begin"]), milliseconds(row["end"])
            text = f"{one_line(row['label'])} {100 * row['confidence']:.0f} %"
            if end > begin:
                every.append((begin, number, Cue(begin, end, person, text)))
    yield from (cue for *_, cue in sorted(every))


def write_vtt(result: VideoResult, path: Path, target: Path) -> None:
    """Write WebVTT (W3C Candidate Recommendation, 2019): a voice span per cue, with <, > and & escaped."""
    blocks = ["WEBVTT", f"NOTE\n{html.escape(one_line(result.name), quote=False)}"]
    for number, cue in enumerate(cues(result), start=1):
        text = f"<v {html.escape(cue.person)}>{html.escape(f'{_prefix(result, cue)}{cue.text}', quote=False)}"
        blocks.append(f"{number}\n{_clock(cue.begin, '.')} --> {_clock(cue.end, '.')}\n{text}")
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8", newline="")


def write_srt(result: VideoResult, path: Path, target: Path) -> None:
    """Write SubRip; players take text in angle brackets as markup and it has no escapes, so these become ‹ and ›."""
    blocks = []
    for number, cue in enumerate(cues(result), start=1):
        text = f"{_prefix(result, cue)}{cue.text}".translate({ord("<"): "‹", ord(">"): "›"})
        blocks.append(f"{number}\n{_clock(cue.begin, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    path.write_text("\n".join(blocks), encoding="utf-8", newline="")


def _prefix(result: VideoResult, cue: Cue) -> str:
    return f"{cue.person}: " if len(result.persons) > 1 else ""


def _clock(milliseconds: int, separator: str) -> str:
    """Return a time as text.

    >>> _clock(3_723_004, ",")
    '01:02:03,004'
    """
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{rest:03d}"
