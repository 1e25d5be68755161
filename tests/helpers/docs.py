"""Documentation pages: their files, and the commands in their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.cli import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def part_of(page: Path, heading: str) -> str:
    """Return a page, or what stands below one of its headings."""
    text = "\n" + page.read_text()
    if not heading:
        return text
    start = text.index("\n" + heading)
    end = text.find("\n## ", start + 1)
    return text[start : end if end > 0 else None]


def commands(page: Path, heading: str = "", words: tuple[str, ...] = ("ceflpipe ",)) -> list[str]:
    """Return the lines in blocks of code that begin with one of the words, without their remarks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", part_of(page, heading), re.DOTALL | re.MULTILINE)
    lines = [re.split(r"\s+# ", line)[0] for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(words)]
