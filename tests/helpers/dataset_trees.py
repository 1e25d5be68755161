"""Imitations of data sets: folders written as text, a line per file with {a,b} and {1..3} for several; MMI with faces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from helpers.fake_videos import LABELS, performance, rotate_sideways, side_by_side, write_clip

from ceflpipe.pipeline.config import load_dataset_config
from ceflpipe.pipeline.dataset import DatasetSource
from ceflpipe.stages.manifest.manifest import COLUMNS, VideoEntry
from ceflpipe.stages.manifest.scan import ScanResult

ACTORS = 3
SUBJECTS = ["S001", "S003", "S005", "S015", "S030", "S031", "S032", "S053", "S054", "S099"]


def create_tree(root: Path, tree: str) -> Path:
    """Create the files of ``tree``: empty, or with the text after ' = ', in which | ends a line; a/ is a folder.

    ``{01..12}`` counts with leading zeros, ``{a,b}`` takes each.
    """
    for line in filter(None, map(str.strip, tree.splitlines())):
        pattern, _, text = line.partition(" = ")
        for name in expand_braces(pattern):
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("|", "\n"), encoding="utf-8")
    return root


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield every name that a pattern stands for.

    >>> list(expand_braces("{8..10}.{a,b}")), list(expand_braces("{09..10}"))
    (['8.a', '8.b', '9.a', '9.b', '10.a', '10.b'], ['09', '10'])
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    first, dots, last = match[1].partition("..")
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)) if dots else ()
    for choice in numbers if dots else match[1].split(","):
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def make_source(name: str, root: Path, input: str = "", **options: object) -> DatasetSource:
    """Return a data set as its shipped configuration describes it, in ``root``, with some options changed."""
    config = load_dataset_config(name)
    extract = config.extract.model_copy(update={"input": input}) if input else config.extract
    config = config.model_copy(update={"options": {**config.options, **options}, "extract": extract})
    return DatasetSource(name, config, root.parent / f"{name}.csv", root, config.labels)


def scan(name: str, root: Path, input: str = "", **options: object) -> ScanResult:
    return make_source(name, root, input, **options).scan()


def format_entries(entries: Iterable[VideoEntry]) -> str:
    """Write a line per entry: the fields separated by bars, without empty fields at the end."""
    return "\n".join("|".join(getattr(entry, column) for column in COLUMNS).rstrip("|") for entry in entries)


def expand_lines(text: str) -> str:
    """Return an expectation in the format of ``format_entries``; {…} is expanded as in ``create_tree``."""
    lines = filter(None, map(str.strip, text.splitlines()))
    return "\n".join(line for pattern in lines for line in expand_braces(pattern))


def session_xml(number: int, view: int) -> str:
    return f"{number}/session.xml = <session><track view='{view}'/></session>\n"


def emotion_xml(number: int, stem: str, code: int) -> str:
    return f"{number}/{stem}.xml = <annotation><Metatag Name='Emotion' Value='{code}'/></annotation>\n"


def create_mmi(root: Path) -> None:
    """Ten subjects, six expressions: rotated, upright, or both views side by side; and four sessions to skip."""
    number = 0
    for index, subject in enumerate(SUBJECTS):
        for code, label in enumerate(LABELS, start=1):
            number += 1
            front = performance(1 + index % ACTORS, label)
            dual = subject in ("S001", "S003", "S015")
            create_tree(
                root, session_xml(number, 2 if dual else 0) + emotion_xml(number, f"{subject}-{number:03d}", code)
            )
            if dual:
                profile = performance(1, label, yaw=70.0)
                frames = side_by_side(profile, front) if subject == "S001" else side_by_side(front, profile)
            else:
                frames = front if subject in ("S053", "S054") else rotate_sideways(front)
            write_clip(root / f"{number}/{subject}-{number:03d}.avi", frames)
    create_tree(root, session_xml(500, 1) + emotion_xml(500, "S001-500", 4) + "500/S001-500.avi")
    create_tree(root, session_xml(501, 0) + emotion_xml(501, "S001-501", 4) + "501/S001-501.png")
    create_tree(root, session_xml(502, 0) + emotion_xml(502, "S001-502", 11) + "502/S001-502.avi")
    create_tree(root, session_xml(503, 0) + emotion_xml(503, "S099-503", 4) + "503/S099-503.avi = damaged")
