"""Data-set folders written as text: a line per file, with {a,b} and {1..3} for several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ceflpipe.pipeline.config import load_dataset_config
from ceflpipe.pipeline.dataset import DatasetSource
from ceflpipe.stages.manifest.manifest import COLUMNS, VideoEntry
from ceflpipe.stages.manifest.scan import ScanResult


def plant(root: Path, tree: str) -> Path:
    """Make the files of ``tree`` (empty, or with the text after ' = ', in which | ends a line; a/ is a folder).

    ``{01..12}`` counts with leading zeros, ``{a,b}`` takes each.
    """
    for line in filter(None, map(str.strip, tree.splitlines())):
        pattern, _, text = line.partition(" = ")
        for name in expanded(pattern):
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("|", "\n"), encoding="utf-8")
    return root


def expanded(pattern: str) -> Iterator[str]:
    """Yield what a pattern stands for.

    >>> list(expanded("{8..10}.{a,b}")), list(expanded("{09..10}"))
    (['8.a', '8.b', '9.a', '9.b', '10.a', '10.b'], ['09', '10'])
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    first, dots, last = match[1].partition("..")
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)) if dots else ()
    for choice in numbers if dots else match[1].split(","):
        yield from expanded(pattern[: match.start()] + choice + pattern[match.end() :])


def source_of(
    name: str, root: Path, labels: tuple[str, ...] | None = None, faces: str = "", **options: object
) -> DatasetSource:
    """Return a data set as its shipped configuration describes it, lying at ``root``, with some options changed."""
    config = load_dataset_config(name)
    extract = config.extract.model_copy(update={"faces": faces}) if faces else config.extract
    config = config.model_copy(update={"options": {**config.options, **options}, "extract": extract})
    return DatasetSource(name, config, root.parent / f"{name}.csv", root, labels or config.labels)


def scan(name: str, root: Path, **changes: object) -> ScanResult:
    return source_of(name, root, **changes).scan()


def lines(rows: Iterable[VideoEntry]) -> str:
    """Write rows as a test expects them: the fields with a bar between, a row per line, empty fields at the end left out."""
    return "\n".join("|".join(getattr(row, column) for column in COLUMNS).rstrip("|") for row in rows)


def expect(text: str) -> str:
    """Return an expectation as ``lines`` writes it; {…} is expanded as in ``plant``."""
    return "\n".join(line for pattern in filter(None, map(str.strip, text.splitlines())) for line in expanded(pattern))
