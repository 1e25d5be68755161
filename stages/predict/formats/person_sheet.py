"""Contact sheet of a person: the best faces of every face track with time and similarity, so that mistakes are seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...extract.face_crops import TrackFrames, read_track_crops
from ...plots.style import ACCENT, GRID, MUTED, QUALITATIVE, TEXT, abbreviate, display_label, font_file
from ..person_names import one_line
from ..prediction import Prediction
from .video_result import VideoResult

FACES = 3
"""Faces per track, spread over it."""
SIDE = 96
"""Side of a face in pixels."""
COLUMNS = 4
"""Tracks side by side."""
MAX_TRACKS = 240
"""On a sheet; of more the unsure ones come first, then those spread over the video."""
PAD, GAP, LINE, HEADING = 8, 16, 20, 76
FONT, SMALL, TITLE = (ImageFont.truetype(font_file(), size) for size in (12, 11, 20))

Crops = dict[int, list[np.ndarray | None]]
"""Face crops (SIDE, SIDE, 3) by track."""


@dataclass(frozen=True)
class Section:
    """A person with its face tracks, or all persons of one track together; ``facts``: a line under the heading."""

    heading: str
    facts: str
    color: str
    tracks: Sequence[Prediction]
    named: bool = False
    """Whether a card says whose it is."""


def write_person_sheet(result: VideoResult, path: Path, target: Path) -> None:
    """Write the sheet of all persons as PNG; the video is read once more."""
    sections = _sections(result)
    crops = _read_crops(result, [track for section in sections for track in section.tracks])
    parts = [_draw_section(section, crops) for section in sections]
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    canvas.save(path, format="PNG")


def _sections(result: VideoResult) -> list[Section]:
    """Return the persons of several tracks in order of their numbers, then those of one track."""
    persons = result.persons
    several = [person for person in persons if len(person.tracks) > 1 or len(persons) == 1]
    single = [person.tracks[0] for person in persons if person not in several]
    video = abbreviate(result.name, 60)
    sections = []
    for person in several:
        shown = _shown_tracks(person.tracks)
        number = f"person {person.number}, " if person.tracks[0].name else ""
        facts = f"{number}{_count(person.tracks, len(shown))}, {video}"
        color = QUALITATIVE[(person.number - 1) % len(QUALITATIVE)]
        sections.append(Section(display_label(person.name, 60), facts, color, shown))
    if single:
        shown = _shown_tracks(single)
        sections.append(
            Section("persons of one face track", f"{_count(single, len(shown))}, {video}", MUTED, shown, True)
        )
    return sections


def _count(tracks: Sequence[Prediction], shown: int) -> str:
    count, seconds = len(tracks), sum(track.end - track.begin for track in tracks)
    part = f", {shown} of them shown" if shown < count else ""
    return f"{count} {'face track' if count == 1 else 'face tracks'}{part}, {seconds:.0f} s in view"


def _read_crops(result: VideoResult, tracks: Sequence[Prediction]) -> Crops:
    """Return the faces of tracks; those of frames that cannot be read are None."""
    frames = [
        TrackFrames(_shown_frames(track), track.face.landmarks, track.face.box, track.first_frame) for track in tracks
    ]
    rotation = tracks[0].rotation
    crops = read_track_crops(result.video, frames, rotation, result.view.region, align=result.align, size=SIDE)
    return {track.track: faces for track, faces in zip(tracks, crops, strict=True)}


def _shown_tracks(tracks: Sequence[Prediction]) -> Sequence[Prediction]:
    """Return the tracks that are drawn, in order of time."""
    if len(tracks) <= MAX_TRACKS:
        return tracks
    unsure = [track for track in tracks if track.unsure][:MAX_TRACKS]
    rest = [track for track in tracks if not track.unsure]
    spread = np.linspace(0, max(0, len(rest) - 1), MAX_TRACKS - len(unsure)).round().astype(int)
    chosen = {track.track for track in unsure} | {rest[index].track for index in np.unique(spread) if rest}
    return [track for track in tracks if track.track in chosen]


def _shown_frames(track: Prediction) -> list[int]:
    """Return the frames of the file whose faces are shown: of those that stand for the track, else of all."""
    frames = track.faces or tuple(range(track.first_frame, track.first_frame + track.num_frames))
    chosen = (
        np.linspace(0, len(frames) - 1, FACES + 2)[1:-1].round().astype(int)
        if len(frames) > FACES
        else range(len(frames))
    )
    return [frames[index] for index in chosen]


def _draw_section(section: Section, crops: Crops) -> Image.Image:
    """Draw a section: a card per track, with an orange frame if it is unsure."""
    tracks, lines = section.tracks, 2 if any(track.unsure for track in section.tracks) else 1
    card_width, card_height = FACES * SIDE + 2 * PAD, SIDE + lines * LINE + 2 * PAD
    columns = min(COLUMNS, max(1, len(tracks)))
    width = max(2 * GAP + columns * (card_width + GAP) - GAP, 2 * GAP + 2 * card_width)
    sheet = Image.new("RGB", (width, HEADING + math.ceil(len(tracks) / columns) * (card_height + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((GAP, GAP, GAP + 6, GAP + 44), fill=section.color)
    draw.text((GAP + 16, GAP - 1), section.heading, font=TITLE, fill=TEXT)
    draw.text((GAP + 16, GAP + 28), section.facts, font=FONT, fill=MUTED)
    for number, track in enumerate(tracks):
        corner = (GAP + number % columns * (card_width + GAP), HEADING + number // columns * (card_height + GAP))
        box = (*corner, corner[0] + card_width, corner[1] + card_height)
        _draw_card(sheet, draw, box, track, crops, named=section.named)
    return sheet


def _draw_card(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, ...],
    track: Prediction,
    crops: Crops,
    *,
    named: bool,
) -> None:
    left, top = box[:2]
    draw.rounded_rectangle(box, 6, outline=ACCENT if track.unsure else GRID, width=2 if track.unsure else 1)
    for column, crop in enumerate(crops[track.track]):
        x, y = left + PAD + column * SIDE, top + PAD
        if crop is None:
            draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=GRID)
        else:
            sheet.paste(Image.fromarray(crop), (x, y))
    whose = f"{display_label(one_line(track.display_name), 14)}, " if named else ""
    similarity = "" if track.similarity is None else f", similarity {track.similarity:.3f}"
    line = f"{whose}track {track.track}, {clock(track.begin)}–{clock(track.end)}{similarity}"
    draw.text((left + PAD, top + PAD + SIDE + 5), line, font=FONT, fill=TEXT)
    draw.text((left + PAD, top + PAD + SIDE + 5 + LINE), display_label(track.unsure, 46), font=SMALL, fill=ACCENT)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds.

    >>> clock(75.25)
    '1:15.2'
    """
    tenths = int(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
