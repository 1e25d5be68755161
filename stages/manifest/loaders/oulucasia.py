"""Oulu-CASIA: a folder per camera, lighting, subject and expression; pictures from neutral to the apex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..files import FolderListing, find_folders, list_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of Oulu-CASIA, or one above it:
  VL/Strong/P001/Anger/000.jpeg …        VL visible light, NI near infrared; Strong, Weak, Dark
  … Disgust/ Fear/ Happiness/ Sadness/ Surprise/ … P080/"""
SUBJECTS = tuple(f"P{n:03d}" for n in range(1, 81))


@dataclass(frozen=True)
class Options:
    """Which of the recordings: ``camera`` VL (visible light) or NI (near infrared), ``light`` Strong, Weak or Dark."""

    camera: Literal["VL", "NI"] = "VL"
    light: Literal["Strong", "Weak", "Dark"] = "Strong"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List the sequences of one camera and lighting; the last picture of each is the apex."""
    found = ScanResult()

    def wanted(folder: Path, inside: FolderListing) -> bool:
        names = folder.name.lower(), folder.parent.name.lower()
        return names == (options.light.lower(), options.camera.lower())

    # copies of it also hold processed pictures in the same folders
    homes = sorted(
        find_folders(root, wanted), key=lambda home: ("original" in str(home).lower(), len(list_folder(home).folders))
    )
    for home in homes[:-1]:
        found.skip(relative_posix(home, root), f"a second copy of {options.camera}/{options.light}")
    for home in homes[-1:]:
        for subject in list_folder(home).folders:
            if re.fullmatch(r"P\d{3}", subject, re.IGNORECASE):
                _subject(home / subject, root, labels, found)
    expected = [f"{subject}/{word}" for subject in SUBJECTS for word in labels]
    found.missing = [name for name in expected if not found.holds(name)] if found.entries else []
    return found


def _subject(folder: Path, root: Path, labels: tuple[str, ...], found: ScanResult) -> None:
    subject = folder.name.upper()
    for name in list_folder(folder).folders:
        pictures, word = list_folder(folder / name).images(), label_of(name, labels)
        path = relative_posix(folder / name, root)
        if word is None:
            found.skip(path, "its name is no expression known here")
        elif not pictures:
            found.skip(path, "no pictures in it")
        else:
            found.add(VideoEntry(f"{subject}/{word}", path, word, subject, apex=str(len(pictures) - 1)), labels)
