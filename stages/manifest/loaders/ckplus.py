"""CK+ (extended Cohn-Kanade): a folder of images per subject and sequence; the emotion is in a separate text file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....cache.errors import CeflError
from ..files import FolderListing, find_folders, list_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, relative_posix
from ..splits import round_robin_folds

LAYOUT = """the folder that contains the images and the emotions, or its parent:
  cohn-kanade-images/S005/001/S005_001_00000001.png …
  Emotion/S005/001/S005_001_00000011_emotion.txt           (one number; sequences without this file have no label)"""
EMOTIONS = {1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise"}
NUM_FOLDS = 10
_SUBJECT = re.compile(r"S\d{3}", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """``emotions``: label by the number in the emotion files (CK+ also defines 0, neutral, but does not use it)."""

    emotions: dict[int, str] = field(default_factory=EMOTIONS.copy)


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every sequence with an emotion. Sequences run from neutral to the apex, so the last image is the apex.

    The ten folds are the usual ones: labeled subjects in the order of their numbers, assigned round-robin. Raises
    CeflError if there are images but no emotion files.
    """
    result = ScanResult()
    parents = find_folders(root, lambda _, listing: bool(listing.folders_like(_SUBJECT)))
    sequences = _sequences(parents, lambda listing: bool(listing.images()))
    emotions = _sequences(parents, lambda listing: _emotion_file(listing) is not None)
    if sequences and not emotions:
        raise CeflError(
            f"{root}: images, but no emotion files (Emotion/S005/001/…_emotion.txt) below it; expected\n{LAYOUT}"
        )
    for sequence, folder in sorted(sequences.items()):
        path = relative_posix(folder, root)
        if sequence not in emotions:
            result.skip(path, "no emotion file: CK+ labels 327 of its 593 sequences")
            continue
        code = _read_code(emotions[sequence])
        label = options.emotions.get(code) if code is not None else None
        if label is None:
            result.skip(path, f"emotion {'unreadable' if code is None else code} is not one of options.emotions")
        else:
            apex = str(len(list_folder(folder).images()) - 1)
            result.add(VideoEntry(sequence, path, label, sequence.partition("/")[0], apex=apex), labels)
    result.missing = [f"the images of {sequence}" for sequence in sorted(emotions.keys() - sequences.keys())]
    folds = round_robin_folds(sorted({entry.subject for entry in result.entries}), NUM_FOLDS)
    result.entries = [replace(entry, fold=folds[entry.subject]) for entry in result.entries]
    return result


def _sequences(parents: Sequence[Path], matches: Callable[[FolderListing], bool]) -> dict[str, Path]:
    """Return the folders of sequences for which ``matches`` is true, by id, e.g. S005/001."""
    return {
        f"{subject.upper()}/{sequence}": parent / subject / sequence
        for parent in parents
        for subject in list_folder(parent).folders_like(_SUBJECT)
        for sequence in list_folder(parent / subject).folders
        if matches(list_folder(parent / subject / sequence))
    }


def _emotion_file(listing: FolderListing) -> str | None:
    return next((name for name in listing.files if name.lower().endswith("_emotion.txt")), None)


def _read_code(folder: Path) -> int | None:
    text = (folder / (_emotion_file(list_folder(folder)) or "")).read_text(encoding="utf-8", errors="replace")
    try:
        return round(float(text))
    except (ValueError, OverflowError):
        return None
