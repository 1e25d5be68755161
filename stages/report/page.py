"""One self-contained HTML page of everything a run (or several on one data set) came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ...cache.files import write_text
from ..heads.names import TITLES
from ..heads.runfolder import Run
from ..manifest.table import Manifest
from .figures import confusion_figure, data_uri, png, strip_figure
from .paper import CEFLNET
from .strip import choose_videos, make_strip

STRIPS = 2


@dataclass(frozen=True)
class Figure:
    """A figure of the page: a short name (its file), what to read off it, and the PNG."""

    name: str
    caption: str
    picture: bytes

    @property
    def uri(self) -> str:
        return data_uri(self.picture)


def make_report(runs: Sequence[Run], manifest: Manifest, out: Path) -> Path:
    """Write ``out``/report.html, every figure as PNG and every table as CSV; return the page's path.

    The first run is the one that figures are drawn of; all runs stand in the table of scores.
    """
    out.mkdir(parents=True, exist_ok=True)
    main = runs[0]
    scores = pd.DataFrame([_score_line(run) for run in runs])
    figures = [_confusion(main), *_strips(main, manifest)]
    for figure in figures:
        (out / f"{figure.name}.png").write_bytes(figure.picture)
    write_text(out / "scores.csv", scores.to_csv(index=False))
    counts = pd.DataFrame(main.metrics["confusion"], index=list(main.labels), columns=[*main.labels, "no prediction"])
    write_text(out / "confusion.csv", counts.to_csv())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html.jinja").render(
        run=main, scores=scores.to_dict("records"), figures=figures, paper=CEFLNET.get(main.about["dataset"]),
        recall=main.metrics["recall"], title=f"{main.about['dataset']}: {TITLES[main.recipe.head]}",
    )  # fmt: skip
    write_text(out / "report.html", page)
    return out / "report.html"


def _score_line(run: Run) -> dict[str, Any]:
    war, uar, locating = run.metrics["war"], run.metrics["uar"], run.metrics["locating"]
    return {
        "head": TITLES[run.recipe.head],
        "war": _percent(war["mean"]), "war_std_ddof0": _percent(war["std_ddof0"]), "war_std_ddof1": _percent(war["std_ddof1"]),
        "uar": _percent(uar["mean"]),
        "locating": _percent(locating["predicted_label"]["mean"]) if locating else "",
        "chance": _percent(locating["chance"]) if locating else "",
        "videos": run.metrics["videos"], "folds": run.metrics["folds"], "seeds": run.metrics["seeds"],
        "scheme": run.about["protocol"]["scheme"], "optimistic": run.metrics["optimistic"],
    }  # fmt: skip


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _confusion(run: Run) -> Figure:
    counts = np.array(run.metrics["confusion"])
    title = f"{TITLES[run.recipe.head]}, summed over {run.metrics['folds']} folds, n = {counts.sum()}"
    caption = "Confusion matrix: rows are true labels; percent of the row and number of videos."
    return Figure("confusion", caption, png(confusion_figure(counts, run.labels, title)))


def _strips(run: Run, manifest: Manifest) -> list[Figure]:
    figures = []
    for number, video in enumerate(choose_videos(run, STRIPS), start=1):
        strip = make_strip(run, manifest, video)
        if strip:
            caption = f"Emotional activation map of {video} in the fold that did not train on it."
            figures.append(Figure(f"activation_{number}", caption, png(strip_figure(strip))))
    return figures
