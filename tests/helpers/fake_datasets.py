"""Data-set folders written as text: a line per file, with {a,b} and {1..3} for several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ceflpipe.pipeline.config import load_dataset_config
from ceflpipe.pipeline.dataset import DatasetSource
from ceflpipe.stages.manifest.manifest import COLUMNS, VideoEntry
from ceflpipe.stages.manifest.scan import ScanResult


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
