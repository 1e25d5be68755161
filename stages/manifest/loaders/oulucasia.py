"""Oulu-CASIA: a folder per camera, lighting, subject and expression; images from neutral to the apex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..files import FolderListing, find_folders, list_folder
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of Oulu-CASIA, or its parent:
  VL/Strong/P001/Anger/000.jpeg …        VL visible light, NI near infrared; Strong, Weak, Dark
  … Disgust/ Fear/ Happiness/ Sadness/ Surprise/ … P080/"""
SUBJECTS = tuple(f"P{n:03d}" for n in range(1, 81))
_SUBJECT = re.compile(r"P\d{3}", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Recordings to use: ``camera`` VL (visible light) or NI (near infrared), ``light`` Strong, Weak or Dark."""

    camera: Literal["VL", "NI"] = "VL"
    light: Literal["Strong", "Weak", "Dark"] = "Strong"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List the sequences of one camera and lighting; the last image of each is the apex."""

    def matches(folder: Path, listing: FolderListing) -> bool:
        return (folder.parent.name.lower(), folder.name.lower()) == (options.camera.lower(), options.light.lower())

    def priority(folder: Path) -> tuple[bool, int]:
        return "original" in str(folder).lower(), len(list_folder(folder).folders)

    result = ScanResult()
    # some copies of the data set also contain processed images in folders of the same names
    folders = sorted(find_folders(root, matches), key=priority)
    for folder in folders[:-1]:
        result.skip(relative_posix(folder, root), f"another copy of {options.camera}/{options.light}")
    for folder in folders[-1:]:
        for subject in list_folder(folder).folders_like(_SUBJECT):
            _add_subject(result, folder / subject, root, labels)
    if result.entries:
        expected = (f"{subject}/{label}" for subject in SUBJECTS for label in labels)
        result.missing = [name for name in expected if name not in result]
    return result


def _add_subject(result: ScanResult, folder: Path, root: Path, labels: tuple[str, ...]) -> None:
    subject = folder.name.upper()
    for name in list_folder(folder).folders:
        images, label = list_folder(folder / name).images(), label_of(name, labels)
        path = relative_posix(folder / name, root)
        if label is None:
            result.skip(path, "its name is not a known expression")
        elif not images:
            result.skip(path, "no images in it")
        else:
            result.add(VideoEntry(f"{subject}/{label}", path, label, subject, apex=str(len(images) - 1)), labels)
