"""The MMI facial expression database: a folder per session, the emotion in the XML file beside the recording."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError
from ..annotations import read_names
from ..files import FolderListing, find_folders, list_folder, natural_key, skip_nested_folder
from ..manifest import VideoEntry
from ..safe_xml import XMLError, parse_elements
from ..scan import ScanResult, ViewTransform, label_of, relative_posix

LAYOUT = """the folder that the MMI web site packs, or one above it:
  Sessions/224/session.xml       holds the view: <track view="0"> front, 1 profile, 2 both side by side
  Sessions/224/S002-106.avi      the recording (sessions with a still picture instead are passed over)
  Sessions/224/S002-106.xml      holds the emotion: <Metatag Name="Emotion" Value="4"/>"""
FRONT, PROFILE, BOTH = "0", "1", "2"
MAX_SESSIONS_PROBED = 5
"""Numbered folders that are looked into to tell whether a folder of another name than Sessions/ holds sessions."""
_LAUGHTER = "the laughterAnnotation.csv or _mic.wav of MAHNOB-Laughter"


@dataclass(frozen=True)
class Options:
    """How MMI's codes are read. Most of it rests on few sources, so all of it can be set.

    ``emotions``: label by code. ``lying``: degrees clockwise that set a front-view recording upright. ``upright``:
    subjects whose front-view recordings stand upright already. ``frontal_half``: the half of a view-2 picture that
    shows the front, by subject. ``both_size``: width and height of view-2 pictures in pixels. ``include``: a text file
    in the data set's folder with a line per video to keep: a session number, a recording (S002-106), or both
    (224/S002-106).
    """

    emotions: dict[int, str] = field(
        default_factory=lambda: {1: "anger", 2: "disgust", 3: "fear", 4: "happiness", 5: "sadness", 6: "surprise"}
    )
    default_rotation: Literal[0, 90, 180, 270] = 90
    upright_subjects: tuple[str, ...] = ("S053", "S054")
    frontal_half: dict[str, Literal["left", "right"]] = field(default_factory=dict)
    dual_view_size: tuple[int, int] = (720, 576)
    include: str = ""


@dataclass
class _Session:
    """A session's folder: its recordings (file names), and the codes of their emotions as far as they are known."""

    folder: Path
    inside: FolderListing
    view: str | None = None
    codes: dict[str, str] = field(default_factory=dict)


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every recording with one of the coded emotions and a front view.

    Raises CeflError when the folder holds MAHNOB-Laughter, which is laid out alike.
    """
    found = ScanResult()
    sessions = [_Session(folder, list_folder(folder)) for folder in _session_folders(root)]
    included = read_names(root, options.include, "options.include")
    used: set[str] = set()
    for session in sessions:
        _scan_session(session, root, found, labels, options, included, used)
    codes = Counter(code for session in sessions for code in session.codes.values())
    if not codes and any(_is_laughter(session.inside) for session in sessions):
        raise CeflError(
            f"{root}: not one session has an emotion, and {_LAUGHTER} is there: this is MAHNOB-Laughter, which has the "
            "same Sessions/ folders. Point --root at the MMI facial expression database"
        )
    if codes:
        found.notes.append("emotion codes in the recordings: " + ", ".join(_describe_codes(codes, options)))
    unused = sorted(included - used, key=natural_key)
    if unused:
        found.notes.append(f"{options.include}: {len(unused)} names match no recording, e.g. {', '.join(unused[:3])}")
    _note_views(found, options)
    return found


def _session_folders(root: Path) -> list[Path]:
    return [
        skip_nested_folder(home / name)
        for home in find_folders(root, _holds_sessions)
        for name in list_folder(home).folders
        if name.isdecimal()
    ]


def _holds_sessions(folder: Path, inside: FolderListing) -> bool:
    numbered = [name for name in inside.folders if name.isdecimal()]
    if folder.name.lower() == "sessions":
        return bool(numbered)
    return any(
        list_folder(skip_nested_folder(folder / name)).find_file("session.xml")
        for name in numbered[:MAX_SESSIONS_PROBED]
    )


def _scan_session(
    session: _Session,
    root: Path,
    found: ScanResult,
    labels: tuple[str, ...],
    options: Options,
    included: set[str],
    used: set[str],
) -> None:
    number = session.folder.name
    place = relative_posix(session.folder, root)
    videos = session.inside.videos()
    if not videos:
        still = session.inside.images()
        found.skip(place, "a still picture, no video" if still else "no video in the session")
        return
    try:
        session.view = _view(session.folder / (session.inside.find_file("session.xml") or "session.xml"))
    except XMLError as reason:
        found.skip(place, f"session.xml: {reason}")
        return
    for name in videos:
        stem, path = Path(name).stem, f"{place}/{name}"
        try:
            code = _emotion(session.folder / (session.inside.find_file(f"{stem}.xml") or f"{stem}.xml"))
        except XMLError as reason:
            found.skip(path, f"the recording's XML: {reason}")
            continue
        if code is None:
            found.skip(path, "no emotion in the recording's XML (coded for action units only)")
            continue
        session.codes[name] = code
        names = {number, stem, f"{number}/{stem}"}
        used |= names & included
        if included and not names & included:
            found.skip(path, f"not listed in {options.include}")
        else:
            _add_recording(found, f"{number}/{stem}", path, session.view, code, labels, options)


def _add_recording(
    found: ScanResult, identifier: str, path: str, view: str, code: str, labels: tuple[str, ...], options: Options
) -> None:
    word = options.emotions.get(int(code)) if code.isdecimal() else label_of(code, labels)
    if word is None:
        found.skip(path, f"emotion code {code} is not one of options.emotions")
        return
    if view == PROFILE:
        found.skip(path, "view 1: the profile only")
        return
    if view not in (FRONT, BOTH):
        found.skip(path, f"view {view} is not known")
        return
    subject = identifier.partition("/")[2].partition("-")[0].upper()
    ways = _front_views(subject, options) if view == FRONT else _halves(subject, options)
    row = VideoEntry(identifier, path, word, subject, rotation=ways[0].rotation, region=ways[0].region)
    if found.add(row, labels):
        found.views[identifier] = ways


def _front_views(subject: str, options: Options) -> tuple[ViewTransform, ...]:
    turn = str(options.default_rotation or "") if subject not in options.upright_subjects else ""
    return (ViewTransform(turn), *(ViewTransform(other) for other in ("", "90", "270") if other != turn))


def _halves(subject: str, options: Options) -> tuple[ViewTransform, ...]:
    width, height = options.dual_view_size
    half = width // 2
    left, right = (
        ViewTransform(region=f"0 0 {half} {height}"),
        ViewTransform(region=f"{width - half} 0 {half} {height}"),
    )
    side = options.frontal_half.get(subject)
    if side is None:
        return ViewTransform(), left, right
    return (left, right) if side == "left" else (right, left)


def _view(file: Path) -> str:
    for tag, attributes in parse_elements(file):
        if tag == "track" and "view" in attributes:
            return attributes["view"]
    raise XMLError("no <track view=…> in it")


def _emotion(file: Path) -> str | None:
    for tag, attributes in parse_elements(file):
        if tag == "metatag" and attributes.get("name", "").lower() == "emotion":
            return attributes.get("value") or None
    return None


def _is_laughter(inside: FolderListing) -> bool:
    return any(name.lower() == "laughterannotation.csv" or name.lower().endswith("_mic.wav") for name in inside.files)


def _describe_codes(codes: Counter[str], options: Options) -> list[str]:
    ordered = sorted(codes.items(), key=lambda item: natural_key(item[0]))
    return [
        f"{code} ({options.emotions.get(int(code), 'unknown') if code.isdecimal() else 'a word'}) {n}"
        for code, n in ordered
    ]


def _note_views(found: ScanResult, options: Options) -> None:
    turned = sum(bool(row.rotation) for row in found.entries)
    halves = sum(bool(row.region) for row in found.entries)
    if turned:
        found.notes.append(
            f"{turned} front-view recordings are turned by {options.default_rotation} degrees, by rule (options.lying)"
        )
    if halves:
        found.notes.append(
            f"of {halves} recordings with both views one half is cut out, by rule (options.frontal_half)"
        )
    undecided = {
        row.subject for row in found.entries if not row.region and any(way.region for way in found.views[row.id])
    }
    if undecided:
        names = ", ".join(sorted(undecided))
        found.notes.append(
            f"both views of {names} are searched: options.frontal_half does not say which half is the front"
        )
    if found.views:
        found.notes.append("see whether faces stand upright and in front with ceflpipe manifest --dataset mmi --probe")
