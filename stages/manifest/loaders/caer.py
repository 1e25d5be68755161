"""CAER: television clips in a folder per split and expression."""

from __future__ import annotations

from pathlib import Path

from ..scan import ScanResult
from ..splits import scan_splits

LAYOUT = """the folder of CAER, or one above it:
  train/Anger/0001.avi …       Anger Disgust Fear Happy Neutral Sad Surprise; numbers begin anew in every folder
  validation/… test/…"""
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List the clips; those of the validation split are trained on by none and tested on by none."""
    found = scan_splits(root, lambda name: _SPLITS.get(name.lower()), labels)
    aside = sum(row.split == "validation" for row in found.entries)
    if aside:
        found.notes.append(f"{aside} validation clips are listed, but neither trained on nor tested on (train -> test)")
    return found
