"""RAVDESS: 24 actors; seven numbers in the file name describe a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..files import walk
from ..manifest import VideoEntry
from ..scan import ScanResult, relative_posix
from ..splits import block_folds

LAYOUT = """any parent folder of the actors' folders:
  Actor_12/02-01-06-01-02-01-12.mp4        modality-channel-emotion-intensity-statement-repetition-actor"""
EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happiness", "04": "sadness",
    "05": "anger", "06": "fear", "07": "disgust", "08": "surprise",
}  # fmt: skip
FOLDS = block_folds([f"{n:02d}" for n in range(1, 25)], [4] * 6)
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True)
class Options:
    """``modality``: 02 video only, 01 the same performances with audio. ``channel``: 01 speech, 02 song."""

    modality: Literal["01", "02"] = "02"
    channel: Literal["01", "02"] = "01"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List each performance once: RAVDESS has it with and without audio. Six folds are blocks of four actors in order."""
    result = ScanResult()
    for folder, listing in walk(root):
        for name in listing.videos():
            path, stem = relative_posix(folder / name, root), Path(name).stem
            numbers = _NAME.fullmatch(stem)
            if numbers is None:
                result.skip(path, "its name is not seven numbers of two digits")
                continue
            modality, channel, emotion, *_, actor = numbers.groups()
            if channel != options.channel:
                result.skip(path, f"channel {channel}, {'speech' if channel == '01' else 'song'} (options.channel)")
            elif modality != options.modality:
                result.skip(path, f"modality {modality}: the same performances in other files (options.modality)")
            elif emotion not in EMOTIONS:
                result.skip(path, f"emotion {emotion} is not one of 01 to 08")
            else:
                entry = VideoEntry(stem, path, EMOTIONS[emotion], f"actor-{actor}", fold=FOLDS.get(actor, ""))
                result.add(entry, labels)
    result.entries.sort(key=lambda entry: (entry.subject, entry.id))
    return result
