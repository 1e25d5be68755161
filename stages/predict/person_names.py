"""Names of persons that a user gives in a CSV, and the corrections that they make: persons joined, tracks moved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...cache.errors import CeflError, did_you_mean
from ..manifest.csv_table import read_csv_table
from ..manifest.files import printable

COLUMNS = ("name", "video", "person", "track")
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""Characters that XML has no way to write (the last two), or that a text editor or player does not show."""
MAX_NAME = 100
_RESERVED = re.compile(r"person \d+( intensity)?|.* intensity", re.IGNORECASE)
"""What persons without a name, and tiers, are called."""
EXAMPLE = "write a header person,name or video,person,name, or track instead of person to correct single tracks"


def one_line(text: str) -> str:
    """Return a text on one line, without control characters.

    >>> one_line("a\\nb\\x00")
    'a b\\ufffd'
    """
    return CONTROL_CHARACTERS.sub("\ufffd", " ".join(printable(text).splitlines()))


class NameRow(NamedTuple):
    """A row: ``key`` is person or track, ``number`` which one, ``video`` a file name or path, '' for every video."""

    line: int
    video: str
    key: str
    number: int
    name: str


class GroupedTrack(NamedTuple):
    """What names need of a face track: its number, the person it was grouped into, and its frames in the file."""

    track: int
    person: int
    first_frame: int
    end_frame: int


class NamedTrack(NamedTuple):
    """Person and name of a track."""

    person: int
    name: str


@dataclass(frozen=True)
class PersonNames:
    """Rows of a CSV of names; ``source`` is its path. Without rows nobody has a name."""

    source: str = ""
    rows: tuple[NameRow, ...] = ()

    def of(self, video: Path) -> list[NameRow]:
        """Return the rows for a video: those that name it by its file name or path, and those of every video."""
        names = {printable(video.name), printable(video.stem), printable(str(video)), printable(video.as_posix())}
        return [row for row in self.rows if not row.video or row.video in names]

    def assign(self, video: Path, tracks: Sequence[GroupedTrack]) -> tuple[list[NamedTrack], str]:
        """Return person and name of each track, and what did not fit in words, '' if all did.

        A name for a person is that of all its tracks, one for a track of that track alone. Tracks of one name are one person,
        with the lowest of their numbers; a track that leaves its person for a new name gets a number after the last.
        """
        by_person, by_track, notes = {}, {}, []
        persons = {track.person for track in tracks}
        for row in self.of(video):
            known = persons if row.key == "person" else {track.track for track in tracks}
            (by_person if row.key == "person" else by_track)[row.number] = row.name
            if row.number not in known and row.video:
                notes.append(f"{self.source}, line {row.line}: there is no {row.key} {row.number}")
        names = [by_track.get(track.track, by_person.get(track.person, "")) for track in tracks]
        numbers: dict[str, int] = {}
        moved: list[str] = []
        for track, name in zip(tracks, names, strict=True):
            if track.track in by_track and by_person.get(track.person, "") != name:
                moved.append(name)
            elif name:
                numbers[name] = min(numbers.get(name, track.person), track.person)
        following = max(persons, default=0) + 1
        for name in moved:
            if name not in numbers:
                numbers[name], following = following, following + 1
        named = [NamedTrack(numbers.get(name, track.person), name) for track, name in zip(tracks, names, strict=True)]
        notes += _overlapping(tracks, named, self.source)
        return named, "; ".join(notes)


NO_NAMES = PersonNames()


def _overlapping(tracks: Sequence[GroupedTrack], named: Sequence[NamedTrack], source: str) -> list[str]:
    """Return a note for each name that is that of two tracks in view at the same time."""
    last: dict[str, int] = {}
    doubles: Counter[str] = Counter()
    for track, (_, name) in sorted(zip(tracks, named, strict=True), key=lambda pair: pair[0].first_frame):
        if name and track.first_frame < last.get(name, 0):
            doubles[name] += 1
        last[name] = max(last.get(name, 0), track.end_frame)
    return [
        f"{source}: {one_line(name)} is the name of two faces that are in view at the same time" for name in doubles
    ]


def read_person_names(path: Path) -> PersonNames:
    """Read the CSV of ``--people``: columns name, person or track, and video, which may be left out or empty.

    Raises CeflError, which names the line, for what cannot be right whatever the video shows.
    """
    if not path.is_file():
        raise CeflError(f"--people {path}: no such file; {EXAMPLE}")
    table = read_csv_table(path, COLUMNS, lambda name: False)
    for column in table.columns:
        if column not in COLUMNS:
            raise CeflError(f"--people {path}: unknown column {column!r}{did_you_mean(column, COLUMNS)}; {EXAMPLE}")
    if "name" not in table.columns or not {"person", "track"} & set(table.columns):
        raise CeflError(f"--people {path}: the columns are {', '.join(table.columns)}; {EXAMPLE}")
    cells = zip(table.lines, *(table.column(column) for column in ("video", "person", "track", "name")), strict=True)
    rows: list[NameRow] = []
    known: dict[tuple[str, str, int], NameRow] = {}
    for line, video, person, track, name in cells:
        row = _row(f"--people {path}, line {line}", line, video, person, track, name)
        key = (row.video, row.key, row.number)
        if key in known and known[key].name != row.name:
            raise CeflError(
                f"--people {path}, line {line}: {row.key} {row.number} has the name {known[key].name} on line "
                f"{known[key].line}; keep one of the two"
            )
        known[key] = row
        rows.append(row)
    return PersonNames(str(path), tuple(rows))


def _row(where: str, line: int, video: str, person: str, track: str, name: str) -> NameRow:
    if bool(person) == bool(track):
        raise CeflError(
            f"{where}: has {'both' if person else 'neither'} a person {'and' if person else 'nor'} a track; give one"
        )
    key, number = ("person", person) if person else ("track", track)
    if not (number.isascii() and number.isdigit() and 1 <= int(number) < 10**6):
        raise CeflError(
            f"{where}: {key} {one_line(number)!r} is not a number from 1; the tables of predict have the numbers"
        )
    name = one_line(name).strip()
    if not name or len(name) > MAX_NAME:
        raise CeflError(
            f"{where}: {f'a name of {len(name)} characters' if name else 'no name'}; give one of 1 to {MAX_NAME}"
        )
    if name[0] in "=+-@":
        raise CeflError(
            f"{where}: {name!r} begins with {name[0]}, which makes it a formula in spreadsheets; give another name"
        )
    if _RESERVED.fullmatch(name):
        raise CeflError(
            f"{where}: {name!r} is what persons without a name and their tiers are called; give another name"
        )
    return NameRow(line, printable(video), key, int(number), name)
