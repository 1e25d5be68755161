"""Report writer: a figure goes onto the page as SVG, and next to it as PNG with its numbers as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...cache.atomic import safe_name, write_text
from ..plots.style import Figure, png, svg
from ..progress import ProgressCallback, ignore_progress


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page: the name of its files, what to read off it, and the picture as inline SVG (matplotlib
    has escaped the words in it)."""

    name: str
    caption: str
    svg: str
    wide: bool = False


class ReportWriter:
    """Writes figures and tables into the report's folder. ``on_progress`` counts figures, of ``max_figures``."""

    def __init__(self, path: Path, max_figures: int, on_progress: ProgressCallback = ignore_progress) -> None:
        self.figures: list[str] = []
        self._path, self._max_figures, self._on_progress = path, max_figures, on_progress

    def add_figure(
        self, name: str, figure: Figure, numbers: pd.DataFrame, caption: str, *, wide: bool = False
    ) -> ReportFigure:
        """Write NAME.png and NAME.csv and return the figure for the page; the name is made safe for a file."""
        stem = name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else safe_name(name)
        (self._path / f"{stem}.png").write_bytes(png(figure))
        self.add_table(stem, numbers)
        self.figures.append(stem)
        self._on_progress(len(self.figures), self._max_figures, stem)
        return ReportFigure(stem, caption, svg(figure), wide)

    def add_table(self, name: str, numbers: pd.DataFrame) -> None:
        """Write NAME.csv."""
        write_text(self._path / f"{name}.csv", numbers.to_csv(index=False))
