"""One self-contained HTML page of everything the runs on a data set came to. (the only file that knows jinja2)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from ...cache.atomic import atomic_write_dir, write_text
from ...cache.errors import CeflError
from ..progress import ProgressCallback, ignore_progress
from . import sections
from . import tables as scores
from .filmstrip import RULE, has_intensity_map
from .interactive import script
from .paper_comparison import (
    ablation_rows,
    accuracy_rows,
    complexity_rows,
    frames_rows,
    locating_rows,
    paper_results,
)
from .sections import ReportInputs
from .sweep_results import SWEEP_AXES, slice_along
from .writer import ReportWriter

MAX_ERRORS = 40
NUM_FIXED_FIGURES = 6
"""Figures that a report has once: scores, recall, t-SNE, training, subjects, extraction."""


def make_report(material: ReportInputs, out: Path, on_progress: ProgressCallback = ignore_progress) -> Path:
    """Write ``out``/report.html, every figure as PNG with its numbers as CSV, and the tables; return the page's path.

    ``on_progress`` counts figures.

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
    with atomic_write_dir(out) as temporary:
        folder = ReportWriter(temporary, max_figures(material), on_progress)
        write_text(
            temporary / "report.html", _environment().get_template("page.html.jinja").render(_content(material, folder))
        )
        on_progress(len(folder.figures), len(folder.figures), f"{len(folder.figures)} figures")
    return out / "report.html"


def max_figures(material: ReportInputs) -> int:
    """Return how many figures there can be: the single ones, and those of every run, label and swept setting."""
    swept = len(SWEEP_AXES) if material.sweep is not None else 0
    return NUM_FIXED_FIGURES + len(material.runs) + 2 * len(material.main.labels) + swept


def _content(material: ReportInputs, folder: ReportWriter) -> dict[str, Any]:
    """Return everything the template asks for; figures and tables are written to the folder on the way."""
    run, runs = material.main, material.runs
    dataset = str(run.config["dataset"])
    table = scores.score_table(runs)
    folder.add_table("scores", table)
    wrong = scores.error_table(run)
    folder.add_table("wrong", wrong)
    located = scores.locating_by_label(run)
    folder.add_table("locating_by_label", located)
    representations = sections.tsne_figure(material, folder)
    by_frames = slice_along(material.sweep, "frames", run) if material.sweep is not None else None
    mine = by_frames[by_frames["head"] == run.train_config.head] if by_frames is not None else None
    return {
        "run": run,
        "runs": runs,
        "dataset": dataset,
        "title": f"{dataset}: {scores.head_title(run)}",
        "scores": table.to_dict("records"),
        "scheme": run.describe_cv(),
        "guessing": scores.majority_baseline(run),
        "missing": material.missing,
        "how_good": sections.accuracy_figures(material, folder),
        "confused": sections.confusion_figures(material, folder),
        "most_confused": scores.most_confused(run),
        "wrong": wrong.head(MAX_ERRORS).to_dict("records"),
        "wrong_count": len(wrong),
        "has_maps": has_intensity_map(run),
        "strips": sections.filmstrips(material, folder),
        "rule": RULE,
        "located": located.to_dict("records"),
        "reported": paper_results(dataset),
        "accuracy": accuracy_rows(runs, dataset),
        "ablation": ablation_rows((*material.ablation, *runs), dataset),
        "locating": locating_rows(run, dataset),
        "complexity": complexity_rows(runs),
        "by_frames": frames_rows(mine) if mine is not None and len(mine) else [],
        "representations": representations,
        "bokeh": script() if representations else None,
        "same_features": material.same_features,
        "settings": sections.sweep_figures(material, folder),
        "sweep_file": material.sweep_file,
        "training": sections.learning_curves_figure(material, folder),
        "subjects": sections.subjects_section(material, folder),
        "stage_one": sections.extraction_section(material, folder),
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
