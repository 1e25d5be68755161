"""eNTERFACE'05: a folder per subject, emotion and sentence; the folders are trusted, the names of files are not."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import walk
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix
from ..splits import block_folds

LAYOUT = """the folder of eNTERFACE'05, or one above it:
  subject 1/anger/sentence 1/s1_an_1.avi …      anger disgust fear happiness sadness surprise, five sentences each"""
FOLDS = block_folds([str(n) for n in range(1, 45) if n != 6], [9, 9, 9, 8, 8])
_SUBJECT = re.compile(r"subject[ _]?0*(\d+)", re.IGNORECASE)
_SENTENCE = re.compile(r"sentence[ _]?0*(\d+)", re.IGNORECASE)
_NO_DOT = re.compile(r"(.*[^.])avi", re.IGNORECASE)


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List every recording of one sentence. Five folds of subjects in order; there is no subject 6."""
    found = ScanResult()
    for folder, inside in walk(root):
        above = folder.relative_to(root).parts
        subject = next((m[1] for part in above if (m := _SUBJECT.fullmatch(part))), None)
        word = next((word for part in reversed(above) if (word := label_of(part, labels))), None)
        # one file is called s16_su_3avi: it is a video that lost the dot of its ending
        without_dot = [name for name in inside.files if _NO_DOT.fullmatch(name)]
        for name in [*inside.videos(), *without_dot]:
            path = relative_posix(folder / name, root)
            stem = Path(name).stem if name not in without_dot else name[:-3]
            sentence = next((m[1] for part in above if (m := _SENTENCE.fullmatch(part))), None)
            sentence = sentence or next(iter(re.findall(r"_(\d)$", stem)), None)
            if subject is None or word is None:
                found.skip(path, "not in a folder of a subject and an emotion")
            elif sentence is None:
                found.skip(path, "not one sentence: a recording that was not cut")
            else:
                identifier = f"{subject}/{word}/{sentence}/{stem}"
                found.add(VideoEntry(identifier, path, word, subject, fold=FOLDS.get(subject, "")), labels)
    found.entries.sort(key=lambda row: (int(row.subject), row.label))
    return found
