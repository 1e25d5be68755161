"""ceflpipe report: one page of tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..config import load_pipeline
from ..console import progress, say, show
from ..dataset import Source, find_source
from ..paths import features_file, report_folder, run_folder, sweep_file, timing_file
from .options import quiet_option, source_options

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run

ABLATED = ("mean", "lstm", "sal", "sal+lrl", "cefl")
"""The rows of table 6, each a run folder of its head's name below ablate/."""


@click.command(
    name="report",
    epilog="Examples: ceflpipe report; ceflpipe report --run artifacts/runs/demo/cefl --run artifacts/runs/demo/mean",
    short_help="Write one HTML page with tables and figures of the runs on a data set.",
)
@source_options
@click.option(
    "--run", "run_paths", multiple=True, type=click.Path(path_type=Path),
    help="Run folder, repeatable; the first is looked at closely. Default: the heads of configs/pipeline.yaml.",
)  # fmt: skip
@click.option("--features", type=click.Path(path_type=Path), help="Feature cache; default: artifacts/features/NAME.h5.")
@click.option(
    "--ablation",
    type=click.Path(path_type=Path),
    help="Folder of the ablation's runs; default: artifacts/runs/NAME/ablate.",
)
@click.option(
    "--sweep", type=click.Path(path_type=Path), help="CSV of a sweep; default: artifacts/sweeps/NAME/sweep.csv."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder, replaced as a whole; default: artifacts/reports/NAME."
)
@quiet_option
def command(
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
    run_paths: tuple[Path, ...],
    features: Path | None,
    ablation: Path | None,
    sweep: Path | None,
    out: Path | None,
    quiet: bool,
) -> None:
    """Write report.html (self-contained), every figure as PNG with its numbers as CSV.

    What was not run is said on the page, with the command that runs it.
    """
    from ...stages.report.html import make_report, most_figures
    from ...stages.report.sections import Material
    from ...stages.report.sweep_results import read_sweep

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    absent: list[str] = []
    runs = _runs(source, run_paths, absent)
    swept = sweep or sweep_file(source.name)
    material = Material(
        runs=tuple(runs),
        manifest=source.manifest(),
        table=_features(source, features, absent),
        ablation=tuple(_ablation(source, ablation)),
        sweep=read_sweep(swept) if sweep or swept.is_file() else None,
        sweep_file=swept if sweep or swept.is_file() else None,
        timing=_timing(features or features_file(source.name)),
        absent=tuple(absent),
    )
    if not quiet:
        for line in absent:
            say(line)
    drawn: list[str] = []
    with progress("drawing", most_figures(material), quiet=quiet) as bar:

        def on_figure(name: str) -> None:
            drawn.append(name)
            bar(1, name)

        page = make_report(material, out or report_folder(source.name), on_figure)
        bar(most_figures(material) - len(drawn), f"{len(drawn)} figures")
    show(str(page))


def _runs(source: Source, paths: tuple[Path, ...], absent: list[str]) -> list[Run]:
    """Return the runs that were named, or those of the configured heads; which are not there is noted as absent."""
    from ...stages.heads.run_io import read_run

    if paths:
        runs = [read_run(path) for path in paths]
    else:
        heads = load_pipeline().heads
        folders = {head: run_folder(source.name, head) for head in heads}
        runs = [read_run(folder) for folder in folders.values() if (folder / "run.json").is_file()]
        missing = [head for head, folder in folders.items() if not (folder / "run.json").is_file()]
        if not runs:
            read_run(next(iter(folders.values()), run_folder(source.name, "cefl")))  # raises, and says what to type
        absent += [
            f"No run of head {head}, which configs/pipeline.yaml lists: "
            f"ceflpipe train-heads --dataset {source.name} --head {head}"
            for head in missing
        ]
    for run in runs:
        if run.about["dataset"] != source.name:
            raise CeflError(
                f"{run.path}: a run on {run.about['dataset']}, not on {source.name}; say --dataset or --manifest"
            )
        if run.labels != runs[0].labels:
            raise CeflError(
                f"{run.path}: its labels ({', '.join(run.labels)}) are not those of {runs[0].path}; report them apart"
            )
    return runs


def _ablation(source: Source, folder: Path | None) -> list[Run]:
    from ...stages.heads.run_io import read_run

    home = folder or run_folder(source.name, "ablate")
    found = [read_run(home / head) for head in ABLATED if (home / head / "run.json").is_file()]
    if folder and not found:
        raise CeflError(
            f"{folder}: none of the ablation's runs ({', '.join(ABLATED)}) is in it; make them with ceflpipe ablate"
        )
    return found


def _features(source: Source, path: Path | None, absent: list[str]):
    from ...cache.hdf5 import read_table

    cache = path or features_file(source.name)
    if path is None and not cache.is_file():
        absent.append(f"No feature cache {cache}: film strips, t-SNE and the summary of stage one are left out.")
        return None
    return read_table(cache)


def _timing(cache: Path) -> str:
    """Say how fast the last run of stage one was; '' where that was not written down."""
    from ...cache.atomic import read_json

    file = timing_file(cache)
    if not file.is_file():
        return ""
    took = read_json(file, "the time stage one took")
    speed = took["frames"] / max(took["seconds"], 1e-9)
    where = f"{took['workers']} workers on {took['device']}"
    return f"{took['frames']:,} frames in {took['seconds']:.0f} s, {speed:.0f} a second, {where}"
