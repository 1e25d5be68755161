"""The report: one self-contained HTML page of the runs on a data set. The only module that imports Jinja."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from ...cache.atomic import write_text
from ...cache.ownership import REPORT_FOLDER, check_disk_space, write_owned_folder
from ..callbacks import ProgressCallback, ignore_progress
from ..heads.comparison import verdict
from . import paper_comparison, sections, tables
from .complexity import is_resnet18
from .filmstrip import SELECTION_RULE, has_intensity_map
from .sections import ReportInputs
from .sweep_results import SWEEP_AXES, slice_along
from .writer import ReportWriter

MAX_ERRORS = 40
MAX_FAILURES = 40
NUM_FIXED_FIGURES = 7
"""Figures that a report has once: accuracy, recall, reliability, t-SNE, learning curves, subjects, extraction."""
FIGURE_BYTES, VIDEO_BYTES = 500_000, 2_000
"""Size of a figure in all its forms, and of what the page and the tables say of a video, at most about."""


def write_report(
    inputs: ReportInputs, out: Path, on_progress: ProgressCallback = ignore_progress, *, force: bool = False
) -> Path:
    """Write ``out``/report.html, every figure as PNG with its numbers as CSV, and the tables; return the path of the page.

    ``on_progress`` counts figures. The folder is replaced in one step. Raises CeflError if it holds files that are not those of
    a report, which with ``force`` are kept, or if the disk has no room for it.
    """
    check_disk_space(out.parent, "--out", report_bytes(inputs))
    with write_owned_folder(out, "--out", REPORT_FOLDER, force=force) as folder:
        writer = ReportWriter(folder, max_figures(inputs), on_progress)
        page = _environment().get_template("page.html.jinja").render(_context(inputs, writer))
        write_text(folder / "report.html", page)
        on_progress(writer.num_figures, writer.num_figures, f"{writer.num_figures} figures")
    return out / "report.html"


def max_figures(inputs: ReportInputs) -> int:
    """Return how many figures a report can have: the fixed ones, and those of each run, label and swept setting."""
    num_axes = len(SWEEP_AXES) if inputs.sweep is not None else 0
    return NUM_FIXED_FIGURES + bool(inputs.encoders) + len(inputs.runs) + 2 * len(inputs.main.labels) + num_axes


def report_bytes(inputs: ReportInputs) -> int:
    """Return about how large a report will be at most, in bytes."""
    return FIGURE_BYTES * max_figures(inputs) + VIDEO_BYTES * len(inputs.manifest.entries)


def _context(inputs: ReportInputs, writer: ReportWriter) -> dict[str, Any]:
    """Return the variables of the template; figures and tables are written on the way."""
    run, runs = inputs.main, inputs.runs
    dataset = str(run.config["dataset"])
    scores, errors, by_label = tables.score_rows(runs), tables.error_table(run), tables.locating_by_label(run)
    writer.add_table("scores", pd.DataFrame(scores))
    writer.add_table("errors", errors)
    writer.add_table("locating_by_label", by_label)
    return {
        "run": run,
        "runs": runs,
        "dataset": dataset,
        "resnet18": is_resnet18(run.extraction_settings),
        "title": f"{dataset}: {tables.head_title(run)}",
        "scores": scores,
        "cv": run.describe_cv(),
        "majority_baseline": tables.majority_baseline(run),
        "missing": inputs.missing,
        "notes": list(dict.fromkeys(note for each in runs for note in each.config.get("notes", ()))),
        "tsne": sections.tsne_section(inputs, writer),
        "encoders": sections.encoders_section(inputs, writer),
        "not_compared": inputs.not_compared,
        "accuracy_figures": sections.accuracy_section(inputs, writer),
        "confusion_figures": sections.confusion_section(inputs, writer),
        "reliability": sections.calibration_section(inputs, writer),
        "calibration": run.calibration,
        "top_confusions": tables.top_confusions(run),
        "errors": errors.head(MAX_ERRORS).to_dict("records"),
        "num_errors": len(errors),
        "has_intensity_map": has_intensity_map(run),
        "filmstrips": sections.filmstrip_section(inputs, writer),
        "selection_rule": SELECTION_RULE,
        "locating_by_label": by_label.to_dict("records"),
        "paper": paper_comparison.paper_results(dataset),
        "accuracy_rows": paper_comparison.accuracy_rows(runs, dataset),
        "ablation_rows": paper_comparison.ablation_rows((*inputs.ablation, *runs), dataset),
        "locating_rows": paper_comparison.locating_rows(run, dataset),
        "complexity_rows": paper_comparison.complexity_rows(runs),
        "frames_rows": _frames_rows(inputs),
        "features_changed": inputs.table is not None and not inputs.same_features,
        "sweep_figures": sections.sweep_section(inputs, writer),
        "sweep_file": inputs.sweep_file,
        "learning_curves": sections.training_section(inputs, writer),
        "subjects": sections.subjects_section(inputs, writer),
        "extraction": sections.extraction_section(inputs, writer),
        "max_failures": MAX_FAILURES,
        "timing": inputs.timing,
    }


def _frames_rows(inputs: ReportInputs) -> list[paper_comparison.TableRow]:
    if inputs.sweep is None:
        return []
    points = slice_along(inputs.sweep, "frames_per_clip", inputs.main)
    points = points[points["head"] == inputs.main.train_config.head]
    return paper_comparison.frames_rows(points) if len(points) else []


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _format_number
    environment.filters["share"] = lambda value: _format_number(None if value is None else 100 * value)
    environment.filters["points"] = lambda value, digits=2: f"{100 * value:+.{digits}f}"
    environment.filters["verdict"] = verdict
    environment.filters["percent"] = lambda value: f"{_format_number(value)}\u00a0%"
    return environment


def _format_number(value: float | None, digits: int = 2) -> str:
    return "—" if value is None or value != value else f"{value:.{digits}f}"
