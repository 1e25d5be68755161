"""One self-contained HTML page of everything the runs on a data set came to. (the only file that knows jinja2)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from ...cache.atomic import replacing_folder, write_text
from ...cache.errors import CeflError
from . import sections
from . import tables as scores
from .filmstrip import RULE, has_maps
from .interactive import script
from .paper_comparison import (
    ablation_lines,
    accuracy_lines,
    complexity_lines,
    frames_lines,
    locating_lines,
    reported_for,
)
from .sections import Material
from .sweep_results import AXES, along
from .writer import Folder

MOST_WRONG = 40
SINGLE = 6
"""Figures that a report has once: scores, recall, t-SNE, training, subjects, extraction."""


def make_report(material: Material, out: Path, on_figure: Callable[[str], None] = lambda name: None) -> Path:
    """Write ``out``/report.html, every figure as PNG with its numbers as CSV, and the tables; return the page's path.

    ``on_figure`` hears the name of each figure when it is drawn, of ``most_figures`` at most.

    The folder is replaced in one step: what an earlier report drew and this one does not is gone. Raises CeflError when
    it holds anything that no report writes.
    """
    strangers = (
        [entry.name for entry in out.iterdir() if entry.suffix not in (".png", ".csv", ".html")] if out.is_dir() else []
    )
    if strangers or out.is_file():
        raise CeflError(
            f"{out}: holds {strangers[0] if strangers else 'a file'}, which no report wrote; "
            "name another folder with --out"
        )
    with replacing_folder(out) as temporary:
        folder = Folder(temporary, on_figure)
        write_text(
            temporary / "report.html", _environment().get_template("page.html.jinja").render(_content(material, folder))
        )
    return out / "report.html"


def most_figures(material: Material) -> int:
    """Return how many figures there can be: the single ones, and those of every run, label and swept setting."""
    swept = len(AXES) if material.sweep is not None else 0
    return SINGLE + len(material.runs) + 2 * len(material.main.labels) + swept


def _content(material: Material, folder: Folder) -> dict[str, Any]:
    """Return everything the template asks for; figures and tables are written to the folder on the way."""
    run, runs = material.main, material.runs
    dataset = str(run.about["dataset"])
    table = scores.score_table(runs)
    folder.table("scores", table)
    wrong = scores.wrong_table(run)
    folder.table("wrong", wrong)
    located = scores.locating_by_label(run)
    folder.table("locating_by_label", located)
    representations = sections.representations(material, folder)
    by_frames = along(material.sweep, "frames", run) if material.sweep is not None else None
    mine = by_frames[by_frames["head"] == run.recipe.head] if by_frames is not None else None
    return {
        "run": run,
        "runs": runs,
        "dataset": dataset,
        "title": f"{dataset}: {scores.title_of(run)}",
        "scores": table.to_dict("records"),
        "scheme": scores.scheme_of(run),
        "guessing": scores.guessing(run),
        "absent": material.absent,
        "how_good": sections.how_good(material, folder),
        "confused": sections.confused(material, folder),
        "most_confused": scores.most_confused(run),
        "wrong": wrong.head(MOST_WRONG).to_dict("records"),
        "wrong_count": len(wrong),
        "has_maps": has_maps(run),
        "strips": sections.strips(material, folder),
        "rule": RULE,
        "located": located.to_dict("records"),
        "reported": reported_for(dataset),
        "accuracy": accuracy_lines(runs, dataset),
        "ablation": ablation_lines((*material.ablation, *runs), dataset),
        "locating": locating_lines(run, dataset),
        "complexity": complexity_lines(runs),
        "by_frames": frames_lines(mine) if mine is not None and len(mine) else [],
        "representations": representations,
        "bokeh": script() if representations else None,
        "same_features": material.same_features,
        "settings": sections.settings(material, folder),
        "sweep_file": material.sweep_file,
        "training": sections.training(material, folder),
        "subjects": sections.subjects(material, folder),
        "stage_one": sections.stage_one(material, folder),
        "table": material.table,
        "timing": material.timing,
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": False
    }  # in Bokeh's JSON a thing stands before what refers to it
    environment.filters["two"] = lambda value: "—" if value is None or value != value else f"{value:.2f}"
    environment.filters["percent"] = lambda value: "—" if value is None else f"{value:.2f}\u00a0%"
    environment.filters["one"] = lambda value: "—" if value is None or value != value else f"{value:.1f}"
    return environment
