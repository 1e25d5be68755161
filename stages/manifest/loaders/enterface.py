"""eNTERFACE'05: a folder per subject, emotion and sentence. Labels come from the folders, since file names are unreliable."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import walk
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of_folders, relative_posix
from ..splits import block_folds

LAYOUT = """the folder of eNTERFACE'05, or its parent:
  subject 1/anger/sentence 1/s1_an_1.avi …      anger disgust fear happiness sadness surprise, five sentences each"""
FOLDS = block_folds([str(n) for n in range(1, 45) if n != 6], [9, 9, 9, 8, 8])
_SUBJECT = re.compile(r"subject[ _]?0*(\d+)", re.IGNORECASE)
_SENTENCE = re.compile(r"sentence[ _]?0*(\d+)", re.IGNORECASE)
_NO_DOT = re.compile(r"(.*[^.])avi", re.IGNORECASE)


def scan(root: Path, labels: tuple[str, ...]) -> ScanResult:
    """List every recording of one sentence. Five folds are blocks of subjects in order; there is no subject 6."""
    result = ScanResult()
    for folder, listing in walk(root):
        parts = folder.relative_to(root).parts
        label, subject = label_of_folders(parts, labels), _first_number(_SUBJECT, parts)
        # the video s16_su_3avi lacks the dot of its extension
        without_dot = [name for name in listing.files if _NO_DOT.fullmatch(name)]
        for name in [*listing.videos(), *without_dot]:
            path = relative_posix(folder / name, root)
            stem = name[:-3] if name in without_dot else Path(name).stem
            sentence = _first_number(_SENTENCE, parts) or next(iter(re.findall(r"_(\d)$", stem)), None)
            if subject is None or label is None:
                result.skip(path, "not in a folder of a subject and an emotion")
            elif sentence is None:
                result.skip(path, "not one sentence: an uncut recording")
            else:
                video_id = f"{subject}/{label}/{sentence}/{stem}"
                result.add(VideoEntry(video_id, path, label, subject, fold=FOLDS.get(subject, "")), labels)
    result.entries.sort(key=lambda entry: (int(entry.subject), entry.label))
    return result


def _first_number(pattern: re.Pattern[str], parts: tuple[str, ...]) -> str | None:
    return next((match[1] for part in parts if (match := pattern.fullmatch(part))), None)
