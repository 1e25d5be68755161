"""Report writer: every figure as inline SVG for the page, as PNG, and its numbers as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...cache.atomic import safe_name, write_text
from ..callbacks import ProgressCallback, ignore_progress
from ..plots.style import Figure, png, svg


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page: the stem of its files, its caption, and inline SVG in which all text is escaped."""

    name: str
    caption: str
    svg: str
    wide: bool = False


class ReportWriter:
    """Writes figures and tables to the report's folder. ``on_progress`` counts figures, of at most ``max_figures``."""

    def __init__(self, folder: Path, max_figures: int, on_progress: ProgressCallback = ignore_progress) -> None:
        self.num_figures = 0
        self._folder, self._max_figures, self._on_progress = folder, max_figures, on_progress

    def add_figure(
        self,
        name: str,
        figure: Figure,
        numbers: pd.DataFrame,
        caption: str,
        *,
        wide: bool = False,
        tooltips: Mapping[str, str] | None = None,
    ) -> ReportFigure:
        """Write NAME.png and NAME.csv and return the figure for the page; see style.svg for ``tooltips``."""
        stem = name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else safe_name(name)
        (self._folder / f"{stem}.png").write_bytes(png(figure))
        self.add_table(stem, numbers)
        self.num_figures += 1
        self._on_progress(self.num_figures, self._max_figures, stem)
        return ReportFigure(stem, caption, svg(figure, tooltips), wide)

    def add_table(self, name: str, numbers: pd.DataFrame) -> None:
        """Write NAME.csv."""
        write_text(self._folder / f"{name}.csv", numbers.to_csv(index=False))
