"""Manifest CSV: reading, validation and writing."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.atomic import resolve_inside, write_text
from ...cache.errors import CeflError, did_you_mean
from .labels import KNOWN_LABELS, normalize_label, sort_labels

if TYPE_CHECKING:
    import pandas as pd

MAX_PROBLEMS = 8
"""Problems of a manifest that an error message lists."""


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


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set, in the order of the CSV. Their paths are relative to ``root``."""

    name: str
    root: Path
    entries: tuple[VideoEntry, ...]
    labels: tuple[str, ...]
    allow_external_paths: bool = False

    def video_path(self, entry: VideoEntry) -> Path:
        """Return the path of a video; raises CeflError if it leads out of the root."""
        return resolve_inside(self.root, entry.path, allow_external=self.allow_external_paths)


def write_manifest(path: Path, entries: Sequence[VideoEntry]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    write_text(path, text.getvalue())


def read_manifest(
    path: Path,
    *,
    root: Path | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    allow_external_paths: bool = False,
) -> Manifest:
    """Read a manifest CSV. Only ``path`` and ``label`` are required; columns of other names are ignored.

    ``root`` defaults to the folder of the CSV, ``labels`` to the known expressions. Raises CeflError that lists all
    problems (duplicate ids, unknown labels, paths out of the root, invalid numbers), not only the first.
    """
    table = _read_csv(path)
    missing = {"path", "label"} - set(table.columns)
    if missing:
        raise CeflError(
            f"{path}: column {' and '.join(sorted(missing))} is missing; found {', '.join(map(str, table.columns))}; "
            f"the columns of a manifest are {_HEADER} (path and label are required)"
        )
    if table.empty:
        raise CeflError(f"{path}: no videos; list one per line below the header {_HEADER}")
    for column in COLUMNS:
        table[column] = table[column].str.strip() if column in table else ""
    known = tuple(labels) if labels else KNOWN_LABELS
    table["label"] = [_resolve_label(text, known) for text in table["label"]]
    unnamed = table["id"] == ""
    table.loc[unnamed, "id"] = [_default_id(text) for text in table.loc[unnamed, "path"]]
    entries = tuple(VideoEntry(*values) for values in table[list(COLUMNS)].itertuples(index=False, name=None))
    root = root or path.parent
    hint = "" if labels else "; set others with --labels"
    problems = _find_problems(entries, known, root, allow_external_paths=allow_external_paths, label_hint=hint)
    if problems:
        more = f"\n  … and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:MAX_PROBLEMS])
        raise CeflError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}{more}")
    present = tuple(labels) if labels else sort_labels({entry.label for entry in entries})
    return Manifest(name or path.stem, root, entries, present, allow_external_paths)


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd  # takes 0.25 s, which `ceflpipe --help` and the workers of stage one do not need

    if not path.is_file():
        raise CeflError(
            f"{path}: no such manifest; create it with ceflpipe manifest, or write a CSV with columns {_HEADER}"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CeflError(f"{path}: not a valid CSV file: {' '.join(str(error).split())}") from None
    table.columns = [str(column).strip().lower() for column in table.columns]
    return table.fillna("")


def _resolve_label(text: str, known: Sequence[str]) -> str:
    """Return a known label for any spelling of it, or the text itself."""
    label = text if text in known else normalize_label(text)
    return label if label and label in known else text


def _default_id(path: str) -> str:
    """Return the path without its extension: stems alone repeat across folders."""
    return str(Path(path).with_suffix("")) if Path(path).suffix else str(Path(path))


def _find_problems(
    entries: Sequence[VideoEntry], known: Sequence[str], root: Path, *, allow_external_paths: bool, label_hint: str
) -> list[str]:
    counts = Counter(entry.id for entry in entries)
    problems = [
        f"id {video_id} occurs {count} times; ids must be unique" for video_id, count in counts.items() if count > 1
    ]
    for line, entry in enumerate(entries, start=2):
        if entry.label not in known:
            problems.append(f"line {line}: unknown label {entry.label!r}{did_you_mean(entry.label, known)}{label_hint}")
        if not entry.path:
            problems.append(f"line {line}: no path")
        elif not allow_external_paths and _leads_out(entry.path):
            problems.append(f"line {line}: path {entry.path} leads out of {root}; allow it with --allow-external-paths")
        if entry.apex and not entry.apex.isdecimal():
            problems.append(f"line {line}: apex {entry.apex!r} is not a frame index (0, 1, 2, …)")
        if entry.rotation not in ("", "0", "90", "180", "270"):
            problems.append(
                f"line {line}: rotation {entry.rotation!r} is not one of 0, 90, 180, 270 (degrees clockwise)"
            )
        if entry.region and not _is_region(entry.region):
            problems.append(f"line {line}: region {entry.region!r} is not 'x y width height' in pixels")
    return problems


def _leads_out(relative: str) -> bool:
    """Check the text of a path only; Manifest.video_path also follows links."""
    return "\0" in relative or Path(relative).is_absolute() or Path(os.path.normpath(relative)).parts[:1] == ("..",)


def _is_region(text: str) -> bool:
    parts = text.split()
    return len(parts) == 4 and all(part.isdecimal() for part in parts) and int(parts[2]) > 0 and int(parts[3]) > 0
