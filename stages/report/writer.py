"""Report writer: a figure goes onto the page as SVG, and next to it as PNG with its numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ...cache.atomic import safe_name, write_text
from ..plots.style import Figure, png, svg


@dataclass(frozen=True)
class Drawn:
    """A figure of the page: the name of its files, what to read off it, and the picture as inline SVG (matplotlib
    has escaped the words in it)."""

    name: str
    caption: str
    svg: str
    wide: bool = False


@dataclass
class Folder:
    """The report's folder; remembers what was put into it, and says when a figure is."""

    path: Path
    on_figure: Callable[[str], None] = lambda name: None
    names: list[str] = field(default_factory=list)

    def draw(self, name: str, figure: Figure, numbers: pd.DataFrame, caption: str, *, wide: bool = False) -> Drawn:
        """Write NAME.png and NAME.csv and return the figure for the page; the name is made fit for a file."""
        plain = name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else safe_name(name)
        (self.path / f"{plain}.png").write_bytes(png(figure))
        self.table(plain, numbers)
        self.on_figure(plain)
        return Drawn(plain, caption, svg(figure), wide)

    def table(self, name: str, numbers: pd.DataFrame) -> None:
        """Write NAME.csv."""
        write_text(self.path / f"{name}.csv", numbers.to_csv(index=False))
        self.names.append(name)
