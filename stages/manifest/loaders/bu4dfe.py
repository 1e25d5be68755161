"""BU-4DFE, which the CEFLNet paper calls BU-3DFE: a folder per subject, and in it a folder of frames per expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import read_names
from ..files import find_folders, has_image, list_folder, skip_nested_folder, walk
from ..manifest import VideoEntry
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of BU-4DFE, or its parent:
  F001/Angry/000.jpg 001.jpg …     (the .wrl meshes next to them are not needed)
  F001/Disgust/ Fear/ Happy/ Sad/ Surprise/
  … F058/, M001/ … M043/"""
SUBJECTS = tuple([f"F{n:03d}" for n in range(1, 59)] + [f"M{n:03d}" for n in range(1, 44)])
_SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
_STATIC = re.compile(r"[FM]\d{4}_(AN|DI|FE|HA|NE|SA|SU)\d\d(WH|AE|LA|BL|AM|IN)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """``exclude``: a text file in the data set's folder with a sequence to skip on each line, e.g. F019/Fear."""

    exclude: str = ""


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every expression folder that contains images; raises CeflError for the static BU-3DFE."""
    result = ScanResult()
    excluded = {_sequence_id(name) for name in read_names(root, options.exclude, "options.exclude")}
    without_images: list[tuple[str, str]] = []
    for subject, folder, label in _sequences(root, labels):
        sequence, path = f"{subject}/{label}", relative_posix(folder, root)
        if not has_image(folder):
            without_images.append((sequence, path))
        elif sequence in excluded:
            result.skip(path, f"listed in {options.exclude}")
        else:
            result.add(VideoEntry(sequence, path, label, subject), labels)
    if not result.entries:
        _refuse_static(root)
    for sequence, path in without_images:
        # another folder of the sequence may contain the images, e.g. if this one is of a landmark package
        if sequence not in result and sequence not in excluded:
            result.skip(path, "no images in it")
    expected = [f"{subject}/{label}" for subject in SUBJECTS for label in labels]
    if result.entries:
        result.missing = [name for name in expected if name not in result and name not in excluded]
    unknown = sorted(excluded - set(expected))
    if unknown:
        result.notes.append(f"{options.exclude}: {len(unknown)} names are not sequences of BU-4DFE, e.g. {unknown[0]}")
    result.entries.sort(key=lambda entry: entry.id)
    return result


def _sequences(root: Path, labels: tuple[str, ...]) -> Iterator[tuple[str, Path, str]]:
    """Yield (subject, folder, label) of every expression folder below a folder of subjects."""
    for parent in find_folders(root, lambda _, listing: bool(listing.folders_like(_SUBJECT))):
        for subject in list_folder(parent).folders_like(_SUBJECT):
            folder = skip_nested_folder(parent / subject)
            for name in list_folder(folder).folders:
                label = label_of(name, labels)
                if label:
                    yield subject.upper(), skip_nested_folder(folder / name), label


def _sequence_id(name: str) -> str:
    """Return the id of a sequence as a list writes it: F019/Fear is F019/fear."""
    subject, _, expression = name.partition("/")
    return f"{subject.upper()}/{label_of(expression, ()) or expression.lower()}"


def _refuse_static(root: Path) -> None:
    for folder, listing in walk(root):
        static = next((name for name in listing.files if _STATIC.match(name)), None)
        if static:
            raise CeflError(
                f"{root}: this is BU-3DFE, the set of single 3D scans ({relative_posix(folder / static, root)}); it contains "
                "no videos. The CEFLNet paper's BU-3DFE is BU-4DFE, the dynamic set of 101 subjects with folders such as "
                "F001/Angry/000.jpg; request BU-4DFE from Binghamton University and pass its folder with --root"
            )
