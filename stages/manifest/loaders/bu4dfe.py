"""BU-4DFE, which the CEFLNet paper calls BU-3DFE: a folder per subject, a folder of frames per expression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ....cache.errors import CeflError
from ..annotations import read_names
from ..files import has_image, listing, search, unnested, walk
from ..manifest import Row
from ..scan import Scan, relative, word_of

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


def scan(root: Path, labels: tuple[str, ...], options: Options) -> Scan:
    """List every expression folder that holds pictures; raises CeflError for the static BU-3DFE."""
    found = Scan()
    excluded = {_id(name) for name in read_names(root, options.exclude, "options.exclude")}
    without: list[tuple[str, str]] = []
    for subject, folder, word in _sequences(root, labels):
        identifier, path = f"{subject}/{word}", relative(folder, root)
        if not has_image(folder):
            without.append((identifier, path))
        elif identifier in excluded:
            found.leave_out(path, f"listed in {options.exclude}")
        else:
            found.add(Row(identifier, path, word, subject), labels)
    if not found.rows:
        _refuse_static(root)
    for (
        identifier,
        path,
    ) in without:  # another folder of the same sequence, e.g. of a landmark pack, may hold its pictures
        if not found.holds(identifier) and identifier not in excluded:
            found.leave_out(path, "no pictures in it")
    expected = [f"{subject}/{word}" for subject in SUBJECTS for word in labels]
    found.missing = [name for name in expected if not found.holds(name) and name not in excluded] if found.rows else []
    unknown = sorted(excluded - set(expected))
    if unknown:
        found.notes.append(f"{options.exclude}: {len(unknown)} names are no sequences of BU-4DFE, e.g. {unknown[0]}")
    found.rows.sort(key=lambda row: row.id)
    return found


def _sequences(root: Path, labels: tuple[str, ...]) -> Iterator[tuple[str, Path, str]]:
    """Yield (subject, folder, label) of every expression folder below a folder of subjects."""
    for home in search(root, lambda folder, inside: any(_SUBJECT.fullmatch(name) for name in inside.folders)):
        for subject in filter(_SUBJECT.fullmatch, listing(home).folders):
            inner = unnested(home / subject)
            for name in listing(inner).folders:
                word = word_of(name, labels)
                if word:
                    yield subject.upper(), unnested(inner / name), word


def _id(name: str) -> str:
    """Return the id of a sequence as a list writes it: F019/Fear is F019/fear."""
    subject, _, expression = name.partition("/")
    return f"{subject.upper()}/{word_of(expression, ()) or expression.lower()}"


def _refuse_static(root: Path) -> None:
    for folder, inside in walk(root):
        static = next((name for name in inside.files if _STATIC.match(name)), None)
        if static:
            raise CeflError(
                f"{root}: this is BU-3DFE, the set of single 3D scans ({relative(folder / static, root)}); it holds no "
                "videos. The CEFLNet paper's BU-3DFE is BU-4DFE, the dynamic set of 101 subjects with folders such as "
                "F001/Angry/000.jpg; ask Binghamton University for BU-4DFE and point --root at it"
            )
