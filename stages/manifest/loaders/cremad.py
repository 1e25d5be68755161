"""CREMA-D: 91 actors; the emotion stands in the name of the video."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import walk
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix
from ..splits import block_folds

LAYOUT = """any folder above the videos:
  VideoFlash/1001_DFA_ANG_XX.flv        actor_sentence_emotion_level"""
FOLDS = block_folds([str(n) for n in range(1001, 1092)], [18, 18, 18, 18, 19])
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.IGNORECASE)


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List each clip once, also where it lies there in two containers. Five folds of actors in order."""
    found = ScanResult()
    for folder, inside in walk(root):
        for name in inside.videos():
            path, parts = relative_posix(folder / name, root), _NAME.fullmatch(Path(name).stem)
            word = label_of(parts[3], labels) if parts else None
            if parts is None or word is None:
                found.skip(path, "its name is not actor_sentence_emotion_level")
            else:
                found.add(
                    VideoEntry(Path(name).stem.upper(), path, word, parts[1], fold=FOLDS.get(parts[1], "")), labels
                )
    found.entries.sort(key=lambda row: row.id)
    return found
