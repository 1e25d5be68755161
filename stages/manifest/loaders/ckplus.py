"""CK+ (extended Cohn-Kanade): pictures in a folder per subject and sequence, the emotion in a text file of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....cache.errors import CeflError
from ..files import FolderListing, find_folders, list_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, relative_posix
from ..splits import round_robin_folds

LAYOUT = """the folder that holds the pictures and the emotions, or one above it:
  cohn-kanade-images/S005/001/S005_001_00000001.png …
  Emotion/S005/001/S005_001_00000011_emotion.txt           (one number; sequences without it have no label)"""
FOLDS = 10
_SUBJECT = re.compile(r"S\d{3}", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """``emotions``: label by the number in the emotion files (CK+ also defines 0, neutral, and does not use it)."""

    emotions: dict[int, str] = field(
        default_factory=lambda: {
            1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise"
        }
    )  # fmt: skip


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every sequence with an emotion; sequences run from neutral to the apex, so the last picture is the apex.

    The ten folds are those of the field: labelled subjects in the order of their numbers, dealt out by turns. Raises
    CeflError when there are pictures and no emotion files.
    """
    found = ScanResult()
    homes = find_folders(root, lambda folder, inside: any(_SUBJECT.fullmatch(name) for name in inside.folders))
    pictures = _sequences(homes, lambda inside: bool(inside.images()))
    emotions = _sequences(homes, lambda inside: _emotion_file(inside) is not None)
    if pictures and not emotions:
        raise CeflError(
            f"{root}: pictures, but no emotion files (Emotion/S005/001/…_emotion.txt) below it; expected\n{LAYOUT}"
        )
    for identifier, folder in sorted(pictures.items()):
        path, inside = relative_posix(folder, root), list_folder(folder)
        if identifier not in emotions:
            found.skip(path, "no emotion file: CK+ labels 327 of its 593 sequences")
            continue
        code = _code(emotions[identifier])
        word = options.emotions.get(code) if code is not None else None
        if word is None:
            found.skip(path, f"emotion {'unreadable' if code is None else code} is not one of options.emotions")
        else:
            apex = str(len(inside.images()) - 1)
            found.add(VideoEntry(identifier, path, word, identifier.partition("/")[0], apex=apex), labels)
    found.missing = [f"the pictures of {name}" for name in sorted(emotions.keys() - pictures.keys())]
    folds = round_robin_folds(sorted({row.subject for row in found.entries}), FOLDS)
    found.entries = [replace(row, fold=folds[row.subject]) for row in found.entries]
    return found


def _sequences(homes: list[Path], wanted: Callable[[FolderListing], bool]) -> dict[str, Path]:
    """Return the folders that are ``wanted`` of every subject and sequence, by S005/001."""
    return {
        f"{subject.upper()}/{sequence}": home / subject / sequence
        for home in homes
        for subject in filter(_SUBJECT.fullmatch, list_folder(home).folders)
        for sequence in list_folder(home / subject).folders
        if wanted(list_folder(home / subject / sequence))
    }


def _emotion_file(inside: FolderListing) -> str | None:
    return next((name for name in inside.files if name.lower().endswith("_emotion.txt")), None)


def _code(folder: Path) -> int | None:
    text = (folder / (_emotion_file(list_folder(folder)) or "")).read_text(encoding="utf-8", errors="replace")
    try:
        return round(float(text))
    except (ValueError, OverflowError):
        return None
