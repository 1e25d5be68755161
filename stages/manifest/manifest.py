"""Manifest CSV: reading, validation and writing."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from ...cache.atomic import resolve_inside
from ...cache.errors import CeflError, did_you_mean
from ...cache.ownership import write_owned
from .csv_table import CsvTable, read_csv_table
from .files import VIDEO_EXTENSIONS, printable
from .labels import KNOWN_LABELS, normalize_label, sort_labels

MAX_PROBLEMS = 8
"""Problems of a manifest that an error message lists."""
_EMPTY_VALUES = {"na", "nan", "none", "n/a", "#n/a", "<na>"}
"""What programs write for an unknown value, in lower case; not for ids, paths and labels."""
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True)
class VideoEntry:
    """One video. ``path`` is relative to the root of the data set; an unknown value is an empty string.

    ``apex`` is the index (from 0) of the frame with the strongest expression; ``rotation`` turns the frames clockwise by
    90, 180 or 270 degrees; ``region`` is 'x y width height' in pixels of the upright frame. Stage one rotates and crops
    the frames before it detects faces.
    """

    id: str
    path: str
    label: str
    subject: str = ""
    split: str = ""
    fold: str = ""
    apex: str = ""
    rotation: str = ""
    region: str = ""


COLUMNS = tuple(field.name for field in fields(VideoEntry))
_HEADER = ",".join(COLUMNS)
_EXTENSIONS = frozenset(VIDEO_EXTENSIONS)


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set, in the order of the CSV. Their paths are relative to ``root``, or absolute.

    ``named_by_user``: the user named the CSV itself, so its absolute paths and links may lead out of ``root``; relative
    paths that climb out with '..' may not.
    """

    name: str
    root: Path
    entries: tuple[VideoEntry, ...]
    labels: tuple[str, ...]
    allow_external_paths: bool = False
    named_by_user: bool = False

    def video_path(self, entry: VideoEntry) -> Path:
        """Return the path of a video; raises CeflError if it leads out of the root and may not."""
        if self.named_by_user and not _climbs_out(entry.path):
            return Path(os.path.normpath(self.root / entry.path))
        return resolve_inside(self.root, entry.path, allow_external=self.allow_external_paths)


def write_manifest(path: Path, entries: Sequence[VideoEntry]) -> None:
    """Write a manifest in UTF-8. Bytes of a path that are not UTF-8 are written as they are on disk."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    with write_owned(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def read_manifest(
    path: Path,
    *,
    root: Path | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    allow_external_paths: bool = False,
    named_by_user: bool = False,
) -> Manifest:
    """Read a manifest CSV. Only ``path`` and ``label`` are required; columns of other names are ignored.

    ``root`` defaults to the folder of the CSV, ``labels`` to the known expressions. Raises CeflError that lists all
    problems (duplicate ids, unknown labels, paths out of the root, invalid numbers), not only the first.
    """
    root = root or path.parent
    table = _read_table(path, root)
    known = tuple(labels) if labels else KNOWN_LABELS
    columns = {column: table.column(column) for column in COLUMNS}
    columns["path"] = [_native_path(text, root) if "\\" in text else text for text in columns["path"]]
    label_of = {text: _resolve_label(text, known) for text in set(columns["label"])}
    columns["label"] = [label_of[text] for text in columns["label"]]
    columns["id"] = _fill_ids(columns["id"], columns["path"], root)
    for column in ("subject", "split", "fold", "apex", "rotation", "region"):
        columns[column] = ["" if text.lower() in _EMPTY_VALUES else text for text in columns[column]]
    for column in ("apex", "rotation", "region"):
        columns[column] = [_without_zero_decimals(text) if text else text for text in columns[column]]
    for column in ("subject", "fold"):
        # a program that read whole numbers and gaps wrote all of them with decimals
        if all(re.fullmatch(r"(\d+\.0)?", text) for text in columns[column]):
            columns[column] = [text.removesuffix(".0") for text in columns[column]]
    entries = tuple(map(VideoEntry, *(columns[column] for column in COLUMNS)))
    guard = _PathGuard(root, allow_external_paths, named_by_user)
    problems = _find_problems(entries, table.lines, known, guard, "" if labels else "; set others with --labels")
    if problems:
        more = f"\n  … and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:MAX_PROBLEMS])
        raise CeflError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}{more}")
    present = tuple(labels) if labels else sort_labels({entry.label for entry in entries})
    return Manifest(name or path.stem, root, entries, present, allow_external_paths, named_by_user)


def _read_table(path: Path, root: Path) -> CsvTable:
    """Read the CSV and check its header."""
    if path.is_dir():
        raise CeflError(f"{path}: a folder, not a CSV; list its videos with ceflpipe manifest --folder {path}")
    if not path.exists():
        raise CeflError(
            f"{path}: no such manifest; create it with ceflpipe manifest, or write a CSV with columns {_HEADER}"
        )
    table = read_csv_table(path, COLUMNS, lambda name: os.path.lexists(root / name))
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise CeflError(
            f"{path}: column {' and '.join(sorted(missing))} is missing; found {', '.join(table.columns)}; "
            f"the columns of a manifest are {_HEADER} (path and label are required)"
        )
    repeated = [column for column in COLUMNS if table.columns.count(column) > 1]
    if repeated:
        raise CeflError(f"{path}: column {repeated[0]} occurs twice; remove or rename one")
    if not table.rows:
        raise CeflError(f"{path}: no videos; list one per line below the header {_HEADER}")
    return table


def default_ids(paths: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return the default id of every path: without its extension, unless that is the id of another path or is ``taken``.

    Stems alone repeat across folders. The ids depend on the set of paths only, not on their order.

    >>> default_ids(["S1/a.mp4", "S1/b.mp4", "S1/a.avi"])
    ['S1/a.mp4', 'S1/b', 'S1/a.avi']
    """
    full = [printable(path) for path in paths]
    ids = [_without_extension(path).strip() for path in full]  # as a CSV gives them back
    while True:
        owners: dict[str, set[str]] = {video_id: {""} for video_id in taken}
        for video_id, path in zip(ids, full, strict=True):
            owners.setdefault(video_id, set()).add(path)
        shared = {video_id for video_id, paths_of_id in owners.items() if len(paths_of_id) > 1}
        longer = [path if video_id in shared else video_id for video_id, path in zip(ids, full, strict=True)]
        if longer == ids:
            return ids
        ids = longer


def _without_extension(path: str) -> str:
    stem, dot, extension = path.rpartition(".")
    return stem if f"{dot}{extension}".lower() in _EXTENSIONS and stem and not stem.endswith("/") else path


def _fill_ids(ids: list[str], paths: list[str], root: Path) -> list[str]:
    """Return the ids, with a default for each that is empty; paths in the root are relative to it."""
    unnamed = [number for number, video_id in enumerate(ids) if not video_id]
    if unnamed:
        prefix = os.path.abspath(root).rstrip("/") + "/"
        named = {video_id for video_id in ids if video_id}
        defaults = default_ids([paths[number].removeprefix(prefix) for number in unnamed], list(named))
        ids = list(ids)
        for number, video_id in zip(unnamed, defaults, strict=True):
            ids[number] = video_id
    return ids


def _native_path(text: str, root: Path) -> str:
    """Return a path that Windows wrote with / for \\; one with a drive, or that exists as written, as it is."""
    if _WINDOWS_DRIVE.match(text) or os.path.lexists(root / text):
        return text
    return text.replace("\\", "/")


def _without_zero_decimals(text: str) -> str:
    """Return numbers that a spreadsheet wrote with decimals as whole numbers.

    >>> _without_zero_decimals("41.0"), _without_zero_decimals("0,0 8.00 9"), _without_zero_decimals("41.5")
    ('41', '0 8 9', '41.5')
    """
    return re.sub(r"(?<!\S)(\d+)[.,]0+(?!\S)", r"\1", text)


def _resolve_label(text: str, known: Sequence[str]) -> str:
    """Return a known label for any spelling of it, or the text itself."""
    label = text if text in known else normalize_label(text)
    return label if label and label in known else text


@dataclass(frozen=True)
class _PathGuard:
    """Check of the text of paths; Manifest.video_path also follows links."""

    root: Path
    allow_external_paths: bool
    named_by_user: bool

    def problem(self, path: str) -> str:
        """Return what is wrong with a path and what to do about it, or nothing."""
        if not path:
            return "no path; write the path of the video in the column path"
        if "\0" in path:
            return f"path {path!r} contains a zero byte; remove it"
        if _WINDOWS_DRIVE.match(path) and not os.path.lexists(self.root / path):
            return (
                f"path {path} is of another computer (Windows); write the paths relative to a folder of this one, and "
                "give that folder with --root"
            )
        if self.allow_external_paths:
            return ""
        if path.startswith("/"):
            if self.named_by_user or self._is_inside(path):
                return ""
            return f"path {path} leads out of {self.root}; allow it with --allow-external-paths"
        if _climbs_out(path):
            return (
                f"path {path} leads out of {self.root}; write it as an absolute path, give a folder above with --root, or "
                "allow it with --allow-external-paths"
            )
        return ""

    def _is_inside(self, path: str) -> bool:
        normal = os.path.normpath(path)
        return any(f"{normal}/".startswith(f"{folder.rstrip('/')}/") for folder in self._roots)

    @cached_property
    def _roots(self) -> tuple[str, str]:
        return os.path.abspath(self.root), os.path.realpath(self.root)


def _climbs_out(path: str) -> bool:
    """Return whether a relative path leads out of its folder by '..'."""
    return ".." in path and os.path.normpath(path).split("/", 1)[0] == ".."


def _find_problems(
    entries: Sequence[VideoEntry], lines: Sequence[int], known: Sequence[str], guard: _PathGuard, label_hint: str
) -> list[str]:
    counts = Counter(entry.id for entry in entries)
    problems = [
        f"id {video_id} occurs {count} times; ids must be unique: give every line its own in the column id"
        for video_id, count in counts.items()
        if count > 1
    ]
    for line, entry in zip(lines, entries, strict=True):
        if entry.label not in known:
            problems.append(f"line {line}: unknown label {entry.label!r}{did_you_mean(entry.label, known)}{label_hint}")
        if problem := guard.problem(entry.path):
            problems.append(f"line {line}: {problem}")
        if entry.apex and not entry.apex.isdecimal():
            problems.append(
                f"line {line}: apex {entry.apex!r} is not a frame index; write a whole number (0, 1, 2, …) or nothing"
            )
        if entry.rotation not in ("", "0", "90", "180", "270"):
            problems.append(
                f"line {line}: rotation {entry.rotation!r} is not one of 0, 90, 180, 270 (degrees clockwise); write one of "
                "these or nothing"
            )
        if entry.region and not is_region(entry.region):
            problems.append(
                f"line {line}: region {entry.region!r} is not 'x y width height' in pixels; write e.g. 0 0 640 480 or nothing"
            )
    return problems


def is_region(text: str) -> bool:
    """Return whether a text is 'x y width height' in whole pixels, of a part that is not empty."""
    parts = text.split()
    return len(parts) == 4 and all(part.isdecimal() for part in parts) and int(parts[2]) > 0 and int(parts[3]) > 0
