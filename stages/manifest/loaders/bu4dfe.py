"""BU-4DFE, which the CEFLNet paper calls BU-3DFE: a folder per subject, a folder of frames per expression."""

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

LAYOUT = """the folder of BU-4DFE, or one above it:
  F001/Angry/000.jpg 001.jpg …     (the .wrl meshes beside them are not needed)
  F001/Disgust/ Fear/ Happy/ Sad/ Surprise/
  … F058/, M001/ … M043/"""
SUBJECTS = tuple([f"F{n:03d}" for n in range(1, 59)] + [f"M{n:03d}" for n in range(1, 44)])
_SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
_STATIC = re.compile(r"[FM]\d{4}_(AN|DI|FE|HA|NE|SA|SU)\d\d(WH|AE|LA|BL|AM|IN)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """``exclude``: a text file in the data set's folder with a line per sequence to leave out, e.g. F019/Fear."""

    exclude: str = ""


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every expression folder that holds pictures; raises CeflError for the static BU-3DFE."""
    found = ScanResult()
    excluded = {_id(name) for name in read_names(root, options.exclude, "options.exclude")}
    without: list[tuple[str, str]] = []
    for subject, folder, word in _sequences(root, labels):
        identifier, path = f"{subject}/{word}", relative_posix(folder, root)
        if not has_image(folder):
            without.append((identifier, path))
        elif identifier in excluded:
            found.skip(path, f"listed in {options.exclude}")
        else:
            found.add(VideoEntry(identifier, path, word, subject), labels)
    if not found.entries:
        _refuse_static(root)
    for (
        identifier,
        path,
    ) in without:  # another folder of the same sequence, e.g. of a landmark pack, may hold its pictures
        if not found.holds(identifier) and identifier not in excluded:
            found.skip(path, "no pictures in it")
    expected = [f"{subject}/{word}" for subject in SUBJECTS for word in labels]
    found.missing = (
        [name for name in expected if not found.holds(name) and name not in excluded] if found.entries else []
    )
    unknown = sorted(excluded - set(expected))
    if unknown:
        found.notes.append(f"{options.exclude}: {len(unknown)} names are no sequences of BU-4DFE, e.g. {unknown[0]}")
    found.entries.sort(key=lambda row: row.id)
    return found


def _sequences(root: Path, labels: tuple[str, ...]) -> Iterator[tuple[str, Path, str]]:
    """Yield (subject, folder, label) of every expression folder below a folder of subjects."""
    for home in find_folders(root, lambda folder, inside: any(_SUBJECT.fullmatch(name) for name in inside.folders)):
        for subject in filter(_SUBJECT.fullmatch, list_folder(home).folders):
            inner = skip_nested_folder(home / subject)
            for name in list_folder(inner).folders:
                word = label_of(name, labels)
                if word:
                    yield subject.upper(), skip_nested_folder(inner / name), word


def _id(name: str) -> str:
    """Return the id of a sequence as a list writes it: F019/Fear is F019/fear."""
    subject, _, expression = name.partition("/")
    return f"{subject.upper()}/{label_of(expression, ()) or expression.lower()}"


def _refuse_static(root: Path) -> None:
    for folder, inside in walk(root):
        static = next((name for name in inside.files if _STATIC.match(name)), None)
        if static:
            raise CeflError(
                f"{root}: this is BU-3DFE, the set of single 3D scans ({relative_posix(folder / static, root)}); it holds no "
                "videos. The CEFLNet paper's BU-3DFE is BU-4DFE, the dynamic set of 101 subjects with folders such as "
                "F001/Angry/000.jpg; ask Binghamton University for BU-4DFE and point --root at it"
            )
