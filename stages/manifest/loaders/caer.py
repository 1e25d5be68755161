"""CAER: television clips in a folder per split and expression."""

from __future__ import annotations

from pathlib import Path

from ..scan import ScanResult
from ..splits import UNUSED, scan_splits

LAYOUT = """the folder of CAER, or its parent:
  train/Anger/0001.avi …       Anger Disgust Fear Happy Neutral Sad Surprise; each folder counts from 0001
  validation/… test/…"""
_SPLITS = {"train": "train", "validation": UNUSED, "val": UNUSED, "test": "test"}


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List the clips. Those of the folder validation get the split ``unused``: the protocol is train -> test."""
    result = scan_splits(root, lambda name: _SPLITS.get(name.lower()), labels)
    num_unused = sum(entry.split == UNUSED for entry in result.entries)
    if num_unused:
        result.notes.append(f"{num_unused} validation clips are listed, but not used (train -> test)")
    return result
