"""Manifest CSV: reading, validation and writing."""

from __future__ import annotations

import csv
import io
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


@dataclass(frozen=True)
class VideoEntry:
    """One video. ``path`` is relative to the data set's root; what is not known is an empty text.

    ``apex`` is the frame (from 0) of the strongest expression; ``rotation`` turns the picture clockwise by 90, 180 or
    270 degrees; ``region`` is 'x y width height' in pixels of the upright picture, cut out before anything looks at it.
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


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set, in the order of the CSV, and the folder their paths start from."""

    name: str
    root: Path
    entries: tuple[VideoEntry, ...]
    labels: tuple[str, ...]
    allow_external_paths: bool = False

    def video_path(self, row: VideoEntry) -> Path:
        """Return where a video lies; raises CeflError when its path leads out of the root."""
        return resolve_inside(self.root, row.path, allow_external=self.allow_external_paths)


def write_manifest(path: Path, rows: Sequence[VideoEntry]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(path, text.getvalue())


def read_manifest(
    path: Path,
    *,
    root: Path | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    allow_external_paths: bool = False,
) -> Manifest:
    """Read a manifest CSV; only ``path`` and ``label`` are needed, further columns of a user's own are left alone.

    ``root`` defaults to the CSV's folder, ``labels`` to the known expression words. Raises CeflError with every kind
    of problem found (duplicate ids, unknown labels, paths that leave the root, numbers that are none), not the first.
    """
    frame = _read_csv(path)
    missing = {"path", "label"} - set(frame.columns)
    if missing:
        raise CeflError(
            f"{path}: column {' and '.join(sorted(missing))} is missing; found {', '.join(map(str, frame.columns))}; "
            f"a manifest has {','.join(COLUMNS)} (path and label are needed, the others may be left out)"
        )
    if frame.empty:
        raise CeflError(f"{path}: no video in it; list one per line below the header {','.join(COLUMNS)}")
    for column in COLUMNS:
        if column not in frame:
            frame[column] = ""
        frame[column] = frame[column].str.strip()
    allowed = tuple(labels) if labels else KNOWN_LABELS
    frame["label"] = [_label(text, allowed) for text in frame["label"]]
    unnamed = frame["id"] == ""
    frame.loc[unnamed, "id"] = [_id_of(text) for text in frame.loc[unnamed, "path"]]
    rows = tuple(VideoEntry(*values) for values in frame[list(COLUMNS)].itertuples(index=False, name=None))
    home = root or path.parent
    problems = _problems(rows, allowed, home, allow_external_paths, labels is None)
    if problems:
        more = f"\n  … and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        shown = "".join(f"\n  {problem}" for problem in problems[:MAX_PROBLEMS])
        raise CeflError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{shown}{more}")
    found = tuple(labels) if labels else sort_labels({row.label for row in rows})
    return Manifest(name or path.stem, home, rows, found, allow_external_paths)


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd  # a quarter of a second that `ceflpipe --help` and the workers of stage one need not spend

    if not path.is_file():
        raise CeflError(
            f"{path}: no such manifest; make it with ceflpipe manifest, or write a CSV of {','.join(COLUMNS)}"
        )
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CeflError(f"{path}: not a CSV that can be read: {' '.join(str(error).split())}") from None
    frame.columns = [str(column).strip().lower() for column in frame.columns]
    return frame.fillna("")


def _label(text: str, allowed: Sequence[str]) -> str:
    if text in allowed:
        return text
    word = normalize_label(text)
    return word if word and word in allowed else text


def _id_of(path: str) -> str:
    """Name a video by its path without the ending, since stems alone repeat across folders."""
    pure = Path(path)
    return str(pure.with_suffix("")) if pure.suffix else str(pure)


def _problems(
    rows: Sequence[VideoEntry], allowed: Sequence[str], root: Path, allow_outside: bool, own_labels_possible: bool
) -> list[str]:
    problems = []
    for identifier, count in Counter(row.id for row in rows).items():
        if count > 1:
            problems.append(f"id {identifier} stands {count} times; give each video its own")
    hint = "; to use words of your own give --labels" if own_labels_possible else ""
    home = root.resolve()
    for line, row in enumerate(rows, start=2):
        if row.label not in allowed:
            close = did_you_mean(row.label, list(allowed)) or ";"
            problems.append(f"line {line}: unknown label {row.label!r}{close} known: {', '.join(allowed)}{hint}")
        if not row.path:
            problems.append(f"line {line}: no path")
        elif not allow_outside and _leaves(home, row.path):
            problems.append(f"line {line}: path {row.path} leads out of {root}; allow it with --allow-outside")
        if row.apex and not row.apex.isdecimal():
            problems.append(f"line {line}: apex {row.apex!r} is not a frame number (0, 1, 2, …)")
        if row.rotation not in ("", "0", "90", "180", "270"):
            problems.append(f"line {line}: rotation {row.rotation!r} is not one of 0, 90, 180, 270 (degrees clockwise)")
        if row.region and not _is_region(row.region):
            problems.append(f"line {line}: region {row.region!r} is not 'x y width height' in pixels")
    return problems


def _leaves(home: Path, relative: str) -> bool:
    """A quick test on the text; links that lead out are found when the file is opened (Manifest.file_of)."""
    if Path(relative).is_absolute() or "\0" in relative:
        return True
    depth = 0
    for part in Path(relative).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _is_region(text: str) -> bool:
    parts = text.split()
    return len(parts) == 4 and all(part.isdecimal() for part in parts) and int(parts[2]) > 0 and int(parts[3]) > 0
