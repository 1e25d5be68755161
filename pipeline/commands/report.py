"""ceflpipe report: one page of tables and figures."""

from __future__ import annotations

from pathlib import Path

import click

from ...cache.errors import CeflError
from ..console import show
from ..source import find_source
from .options import source_options


@click.command(
    name="report",
    epilog="Examples: ceflpipe report; ceflpipe report --run artifacts/runs/demo/cefl --run artifacts/runs/demo/mean",
    short_help="Write one HTML page with tables and figures of a run.",
)
@source_options
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), help="Run folder; the first is drawn. Repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; default: artifacts/reports/NAME.")
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    runs: tuple[Path, ...], out: Path | None,
) -> None:  # fmt: skip
    """Write report.html (self-contained), every figure as PNG and every table as CSV."""
    from ...stages.heads.runfolder import read_run
    from ...stages.report.page import make_report
    from ..places import report_folder, run_folder

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    chosen = [read_run(path) for path in runs or (run_folder(source.name, "cefl"),)]
    strangers = [str(run.path) for run in chosen if run.about["dataset"] != source.name]
    if strangers:
        raise CeflError(f"{strangers[0]}: a run on {chosen[0].about['dataset']}, not on {source.name}; say --dataset or --manifest")
    page = make_report(chosen, source.manifest(), out or report_folder(source.name))
    show(str(page))
