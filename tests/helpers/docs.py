"""Documentation pages and the commands in their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.run_cli import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(page: Path, prefixes: tuple[str, ...] = ("ceflpipe ",)) -> list[list[str]]:
    """Return for each code block its lines that begin with one of the prefixes, without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [[re.split(r"\s+# ", line)[0] for line in block.splitlines()] for block in blocks]
    return [[line for line in block if line.startswith(prefixes)] for block in lines]


def commands(page: Path) -> list[str]:
    """Return the `ceflpipe` commands in the code blocks of a page."""
    return [line for block in code_blocks(page) for line in block]
