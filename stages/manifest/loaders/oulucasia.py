"""Oulu-CASIA: a folder per camera, lighting, subject and expression; pictures from neutral to the apex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..files import Listing, listing, search
from ..manifest import Row
from ..scan import Scan, relative, word_of

LAYOUT = """the folder of Oulu-CASIA, or one above it:
  VL/Strong/P001/Anger/000.jpeg …        VL visible light, NI near infrared; Strong, Weak, Dark
  … Disgust/ Fear/ Happiness/ Sadness/ Surprise/ … P080/"""
SUBJECTS = tuple(f"P{n:03d}" for n in range(1, 81))


@dataclass(frozen=True)
class Options:
    """Which of the recordings: ``camera`` VL (visible light) or NI (near infrared), ``light`` Strong, Weak or Dark."""

    camera: Literal["VL", "NI"] = "VL"
    light: Literal["Strong", "Weak", "Dark"] = "Strong"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> Scan:
    """List the sequences of one camera and lighting; the last picture of each is the apex."""
    found = Scan()

    def wanted(folder: Path, inside: Listing) -> bool:
        names = folder.name.lower(), folder.parent.name.lower()
        return names == (options.light.lower(), options.camera.lower())

    # copies of it also hold processed pictures in the same folders
    homes = sorted(search(root, wanted), key=lambda home: ("original" in str(home).lower(), len(listing(home).folders)))
    for home in homes[:-1]:
        found.leave_out(relative(home, root), f"a second copy of {options.camera}/{options.light}")
    for home in homes[-1:]:
        for subject in listing(home).folders:
            if re.fullmatch(r"P\d{3}", subject, re.IGNORECASE):
                _subject(home / subject, root, labels, found)
    expected = [f"{subject}/{word}" for subject in SUBJECTS for word in labels]
    found.missing = [name for name in expected if not found.holds(name)] if found.rows else []
    return found


def _subject(folder: Path, root: Path, labels: tuple[str, ...], found: Scan) -> None:
    subject = folder.name.upper()
    for name in listing(folder).folders:
        pictures, word = listing(folder / name).images(), word_of(name, labels)
        path = relative(folder / name, root)
        if word is None:
            found.leave_out(path, "its name is no expression known here")
        elif not pictures:
            found.leave_out(path, "no pictures in it")
        else:
            found.add(Row(f"{subject}/{word}", path, word, subject, apex=str(len(pictures) - 1)), labels)
