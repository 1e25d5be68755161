"""MMI facial expression database: a folder per session; an XML file next to each recording holds the emotion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError, shorten_list
from ..annotations import read_names
from ..files import FolderListing, find_folders, list_folder, natural_key, skip_nested_folder
from ..manifest import VideoEntry
from ..safe_xml import XMLError, parse_elements
from ..scan import ScanResult, ViewTransform, label_of, relative_posix

LAYOUT = """the folder of a download from the MMI web site, or its parent:
  Sessions/224/session.xml       contains the view: <track view="0"> front, 1 profile, 2 both side by side
  Sessions/224/S002-106.avi      the recording (sessions with a still image instead are skipped)
  Sessions/224/S002-106.xml      contains the emotion: <Metatag Name="Emotion" Value="4"/>"""
EMOTIONS = {1: "anger", 2: "disgust", 3: "fear", 4: "happiness", 5: "sadness", 6: "surprise"}
FRONT, PROFILE, DUAL = "0", "1", "2"
MAX_SESSIONS_PROBED = 5
"""Numbered folders that are opened to decide whether a folder that is not called Sessions/ contains sessions."""


@dataclass(frozen=True)
class Options:
    """How the codes of MMI are read. Most defaults rest on few sources, so all of them can be set.

    ``emotions``: label by code. ``default_rotation``: degrees clockwise that turn a front-view recording upright.
    ``upright_subjects``: subjects whose front-view recordings are upright already. ``frontal_half``: the half of a
    view-2 frame that shows the front, by subject. ``dual_view_size``: width and height of view-2 frames in pixels.
    ``include``: a text file in the data set's folder with a video to keep on each line: a session number, a recording
    (S002-106), or both (224/S002-106).
    """

    emotions: dict[int, str] = field(default_factory=EMOTIONS.copy)
    default_rotation: Literal[0, 90, 180, 270] = 90
    upright_subjects: tuple[str, ...] = ("S053", "S054")
    frontal_half: dict[str, Literal["left", "right"]] = field(default_factory=dict)
    dual_view_size: tuple[int, int] = (720, 576)
    include: str = ""


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every recording with one of the coded emotions and a front view.

    Raises CeflError if the folder contains MAHNOB-Laughter, which has the same layout.
    """
    sessions = [(folder, list_folder(folder)) for folder in _session_folders(root)]
    scanner = _Scanner(root, labels, options, included=read_names(root, options.include, "options.include"))
    for folder, listing in sessions:
        scanner.scan_session(folder, listing)
    if not scanner.codes and any(_is_laughter(listing) for _, listing in sessions):
        raise CeflError(
            f"{root}: no session has an emotion, but there are laughterAnnotation.csv or _mic.wav files: this is "
            "MAHNOB-Laughter, which has the same Sessions/ folders; pass the folder of the MMI facial expression database "
            "with --root"
        )
    scanner.add_notes()
    return scanner.result


def _session_folders(root: Path) -> list[Path]:
    return [
        skip_nested_folder(parent / name)
        for parent in find_folders(root, _has_sessions)
        for name in list_folder(parent).folders
        if name.isdecimal()
    ]


def _has_sessions(folder: Path, listing: FolderListing) -> bool:
    numbered = [name for name in listing.folders if name.isdecimal()]
    if folder.name.lower() == "sessions":
        return bool(numbered)
    probed = (list_folder(skip_nested_folder(folder / name)) for name in numbered[:MAX_SESSIONS_PROBED])
    return any(session.find_file("session.xml") for session in probed)


def _is_laughter(listing: FolderListing) -> bool:
    return any(name.lower() == "laughterannotation.csv" or name.lower().endswith("_mic.wav") for name in listing.files)


@dataclass
class _Scanner:
    """State of a scan. ``matched`` are the names of the include list that name a recording with an emotion."""

    root: Path
    labels: tuple[str, ...]
    options: Options
    included: set[str]
    matched: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)
    result: ScanResult = field(default_factory=ScanResult)

    def scan_session(self, folder: Path, listing: FolderListing) -> None:
        path, videos = relative_posix(folder, self.root), listing.videos()
        if not videos:
            self.result.skip(path, "a still image, no video" if listing.images() else "no video in the session")
            return
        try:
            view = _read_view(folder / (listing.find_file("session.xml") or "session.xml"))
        except XMLError as reason:
            self.result.skip(path, f"session.xml: {reason}")
            return
        for name in videos:
            stem = Path(name).stem
            try:
                code = _read_emotion(folder / (listing.find_file(f"{stem}.xml") or f"{stem}.xml"))
            except XMLError as reason:
                self.result.skip(f"{path}/{name}", f"the recording's XML: {reason}")
            else:
                self._add_recording(folder.name, stem, f"{path}/{name}", view, code)

    def _add_recording(self, session: str, stem: str, path: str, view: str, code: str | None) -> None:
        if code is None:
            self.result.skip(path, "no emotion in the recording's XML (coded for action units only)")
            return
        self.codes[code] += 1
        video_id = f"{session}/{stem}"
        matched = {session, stem, video_id} & self.included
        self.matched |= matched
        label = self.options.emotions.get(int(code)) if code.isdecimal() else label_of(code, self.labels)
        if self.included and not matched:
            self.result.skip(path, f"not listed in {self.options.include}")
        elif label is None:
            self.result.skip(path, f"emotion code {code} is not one of options.emotions")
        elif view == PROFILE:
            self.result.skip(path, "view 1: the profile only")
        elif view not in (FRONT, DUAL):
            self.result.skip(path, f"view {view} is not known")
        else:
            subject = stem.partition("-")[0].upper()
            views = _rotations(subject, self.options) if view == FRONT else _halves(subject, self.options)
            entry = VideoEntry(video_id, path, label, subject, rotation=views[0].rotation, region=views[0].region)
            if self.result.add(entry, self.labels):
                self.result.views[video_id] = views

    def add_notes(self) -> None:
        """Note the number of recordings by code, unused names of the include list, and the views taken by default."""
        entries, notes, options = self.result.entries, self.result.notes, self.options
        if self.codes:
            counts = [
                f"{code} ({options.emotions.get(int(code), 'unknown') if code.isdecimal() else 'a word'}) {count}"
                for code, count in sorted(self.codes.items(), key=lambda item: natural_key(item[0]))
            ]
            notes.append(f"emotion codes in the recordings: {', '.join(counts)}")
        unused = sorted(self.included - self.matched, key=natural_key)
        if unused:
            notes.append(f"{options.include}: {len(unused)} names match no recording, e.g. {shorten_list(unused)}")
        rotated, cropped = sum(bool(entry.rotation) for entry in entries), sum(bool(entry.region) for entry in entries)
        if rotated:
            degrees = options.default_rotation
            notes.append(f"{rotated} front-view recordings are rotated by {degrees} degrees (options.default_rotation)")
        if cropped:
            notes.append(f"{cropped} recordings with both views are cropped to one half (options.frontal_half)")
        views = self.result.views
        undecided = {e.subject for e in entries if not e.region and any(view.region for view in views[e.id])}
        if undecided:
            names = ", ".join(sorted(undecided))
            notes.append(f"both views of {names} are searched for faces: options.frontal_half lacks these subjects")
        if views:
            notes.append("check that faces are upright and frontal with ceflpipe manifest --dataset mmi --probe")


def _rotations(subject: str, options: Options) -> tuple[ViewTransform, ...]:
    """Return the candidate rotations of a front-view recording, the default first."""
    default = str(options.default_rotation or "") if subject not in options.upright_subjects else ""
    return (ViewTransform(default), *(ViewTransform(rotation) for rotation in ("", "90", "270") if rotation != default))


def _halves(subject: str, options: Options) -> tuple[ViewTransform, ...]:
    """Return the candidate crops of a view-2 recording, the default first."""
    width, height = options.dual_view_size
    half = width // 2
    left, right = (ViewTransform(region=f"{x} 0 {half} {height}") for x in (0, width - half))
    frontal = options.frontal_half.get(subject)
    if frontal is None:
        return ViewTransform(), left, right
    return (left, right) if frontal == "left" else (right, left)


def _read_view(file: Path) -> str:
    for tag, attributes in parse_elements(file):
        if tag == "track" and "view" in attributes:
            return attributes["view"]
    raise XMLError("no <track view=…> in it")


def _read_emotion(file: Path) -> str | None:
    for tag, attributes in parse_elements(file):
        if tag == "metatag" and attributes.get("name", "").lower() == "emotion":
            return attributes.get("value") or None
    return None
