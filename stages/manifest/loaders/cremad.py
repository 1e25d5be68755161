"""CREMA-D: 91 actors; the file name contains the emotion."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import walk
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix
from ..splits import block_folds

LAYOUT = """any parent folder of the videos:
  VideoFlash/1001_DFA_ANG_XX.flv        actor_sentence_emotion_level"""
FOLDS = block_folds([str(n) for n in range(1001, 1092)], [18, 18, 18, 18, 19])
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.IGNORECASE)


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List each clip once, even if it exists in two containers. Five folds are blocks of actors in order."""
    result = ScanResult()
    for folder, listing in walk(root):
        for name in listing.videos():
            path, stem = relative_posix(folder / name, root), Path(name).stem
            parts = _NAME.fullmatch(stem)
            label = label_of(parts[3], labels) if parts else None
            if parts is None or label is None:
                result.skip(path, "its name is not actor_sentence_emotion_level")
            else:
                result.add(VideoEntry(stem.upper(), path, label, parts[1], fold=FOLDS.get(parts[1], "")), labels)
    result.entries.sort(key=lambda entry: entry.id)
    return result
