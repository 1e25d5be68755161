"""ceflpipe report: one HTML page of tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..config import load_pipeline_config
from ..console import echo, log, progress
from ..dataset import DatasetOptions, DatasetSource
from ..paths import is_timing_file, report_folder, run_folder, sweep_file, timing_file, tuned_run_folder
from .options import (
    OUT_FOLDER,
    PATH,
    announce,
    dataset_options,
    encoder_option,
    features_option,
    force_option,
    quiet_option,
)

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run


@click.command(
    name="report",
    epilog="Examples: ceflpipe report; ceflpipe report --run artifacts/runs/demo/faces/cefl --run artifacts/runs/demo/faces/mean",
    short_help="Write one HTML page with tables and figures of the runs on a data set.",
)
@dataset_options
@click.option(
    "--run",
    "run_paths",
    multiple=True,
    type=PATH,
    help="Run folder, repeatable; the first is shown in detail. Default: the heads of configs/pipeline.yaml.",
)
@features_option
@encoder_option
@click.option(
    "--ablation", type=PATH, help="Folder of the ablation's runs; default: artifacts/runs/NAME/ENCODER/ablate."
)
@click.option("--sweep", type=PATH, help="CSV of a sweep; default: artifacts/sweeps/NAME/ENCODER/sweep.csv.")
@click.option("--out", type=OUT_FOLDER, help="Folder, replaced as a whole; default: artifacts/reports/NAME.")
@force_option
@quiet_option
def command(
    data: DatasetOptions, run_paths: tuple[Path, ...], features: Path | None, encoder: str | None,
    ablation: Path | None, sweep: Path | None, out: Path | None, force: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write report.html (self-contained), and every figure as PNG with its numbers as CSV.

    For what was not run, the page gives the command that runs it.
    """
    from ...cache.ownership import REPORT_FOLDER, check_folder
    from ...stages.heads.feature_bank import load_table
    from ...stages.report.html import write_report
    from ...stages.report.sections import ReportInputs
    from ...stages.report.sweep_results import read_sweep
    from ..encoder_comparison import read_encoder_runs

    source = data.resolve().with_features_of(encoder, features)
    source.claim_names(features)
    name = source.results_name(features)
    folder = out or report_folder(source.name if source.is_own_cache(features) else name)
    sources = [source.root, *run_paths, *([ablation] if ablation else [])]
    announce(check_folder(folder, "--out", REPORT_FOLDER, inputs=sources, force=force))
    runs, missing = _read_runs(source, name, run_paths)
    cache = features or source.features_path
    sweep_path = sweep or sweep_file(name)
    has_sweep = sweep is not None or sweep_path.is_file()
    table = load_table(cache) if features or cache.is_file() else None
    if table is None:
        what = f"Each fold has features of its own in {cache}" if cache.is_dir() else f"No feature cache {cache}"
        missing.append(f"{what}: filmstrips, t-SNE and the summary of stage one are left out.")
    ablation_runs = _read_ablation(name, ablation)
    is_usual = not run_paths and source.is_own_cache(features)
    encoders, not_compared = read_encoder_runs(source, runs) if is_usual else ([], [])
    for run in (*runs, *ablation_runs):
        if table and not run.was_made_of(table.videos):
            raise CeflError(
                f"{run.path}: was trained or tested on other videos than those of {cache} (their source files differ); "
                f"train it again with ceflpipe train-heads {source.option} --head {run.train_config.head}, or name its cache "
                "with --features"
            )
    inputs = ReportInputs(
        runs=tuple(runs),
        manifest=source.manifest(),
        table=table,
        ablation=tuple(ablation_runs),
        sweep=read_sweep(sweep_path) if has_sweep else None,
        sweep_file=sweep_path if has_sweep else None,
        timing=_describe_timing(timing_file(cache)),
        missing=tuple(missing),
        encoders=tuple(encoders),
        not_compared=tuple(not_compared),
    )
    if not quiet:
        for line in (*missing, *not_compared):
            log(line)
    with progress("drawing", quiet=quiet) as on_progress:
        page = write_report(inputs, folder, on_progress, force=force)
    echo(str(page))


def _read_runs(source: DatasetSource, name: str, paths: tuple[Path, ...]) -> tuple[list[Run], list[str]]:
    """Return the given runs, or those of the configured heads, and a message for each head that has no run."""
    from ...stages.heads.run_io import read_run

    missing: list[str] = []
    if paths:
        runs = [read_run(path) for path in paths]
    else:
        folders = {head: run_folder(name, head) for head in load_pipeline_config().heads}
        existing = {head: folder for head, folder in folders.items() if (folder / "run.json").is_file()}
        runs = [read_run(folder) for folder in existing.values()]
        if not runs:
            read_run(next(iter(folders.values()), run_folder(name, "cefl")))  # raises, with what to type
        missing = [
            f"No run of head {head}, which configs/pipeline.yaml lists: "
            f"ceflpipe train-heads {source.option} --head {head}"
            for head in folders
            if head not in existing
        ]
    for run in runs:
        if run.is_final:
            raise CeflError(
                f"{run.path}: a final model, which was not tested, so there is nothing to report; give the cross-validated run "
                f"{run.config['final']['run']} that it belongs to"
            )
        if run.config["dataset"] != source.name:
            raise CeflError(
                f"{run.path}: a run on {run.config['dataset']}, not on {source.name}; pass --dataset or --manifest"
            )
        if run.labels != runs[0].labels:
            raise CeflError(
                f"{run.path}: its labels ({', '.join(run.labels)}) are not those of {runs[0].path}; "
                "report them separately"
            )
    return runs, missing


def _read_ablation(name: str, folder: Path | None) -> list[Run]:
    from ...stages.heads.run_io import read_run
    from ...stages.report.paper_comparison import ABLATION_HEADS

    root = folder or run_folder(name, "ablate")
    folders = [each for head in ABLATION_HEADS for each in (root / head, tuned_run_folder(root / head))]
    runs = [read_run(each) for each in folders if (each / "run.json").is_file()]
    runs = [run for run in runs if not run.is_final]
    if folder and not runs:
        raise CeflError(
            f"{folder}: holds none of the ablation's runs ({', '.join(ABLATION_HEADS)}); make them with ceflpipe ablate"
        )
    return runs


def _describe_timing(path: Path) -> str:
    """Return how fast the last extraction was; '' if that is not recorded."""
    from ...cache.atomic import read_json

    if not path.is_file() or not is_timing_file(path):
        return ""
    timing = read_json(path, "the duration of an extraction")
    speed = timing["frames"] / max(timing["seconds"], 1e-9)
    workers = f"{timing['workers']} workers on {timing['device']}"
    return f"{timing['frames']:,} frames in {timing['seconds']:.0f} s, {speed:.0f} frames/s, {workers}"
