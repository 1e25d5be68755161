"""ceflpipe sweep: figure 8 and other grids over one extraction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ..config import TrainOptions, load_pipeline_config
from ..console import echo, echo_json, echo_table, log, progress
from ..dataset import DatasetOptions
from .options import PATH, dask_options, dataset_options, json_option, quiet_option, training_options


@click.command(
    name="sweep",
    epilog="Example: ceflpipe sweep --clips 1,3,5,7,9 --frames 2,5,10,15 --folds 10 --seeds 3",
    short_help="Figure 8: accuracy over clips per video, frames per clip, heads, learning rates.",
)
@dataset_options
@training_options
@click.option("--clips", "clip_counts", metavar="N,N,…", help="Clips per video, e.g. 1,3,5,7,9.")
@click.option("--frames", "frame_counts", metavar="K,K,…", help="Frames per clip, e.g. 2,5,10,15.")
@click.option("--heads", metavar="A,B,…", help="Heads.")
@click.option("--learning-rates", "--lr", metavar="X,X,…", help="Learning rates.")
@click.option("--out", type=PATH, help="Folder; default: artifacts/sweeps/NAME.")
@click.option("--dry-run", is_flag=True, help="Only print which runs are cached and which would be trained.")
@click.option("--workers", type=click.IntRange(1), help="Runs trained at a time; default: one per core.")
@dask_options
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, clip_counts: str | None, frame_counts: str | None, heads: str | None,
    learning_rates: str | None, out: Path | None, dry_run: bool, workers: int | None, cluster: str | None,
    dask_resource: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train every combination on the cached features and write one tidy table: a row per run, fold and seed.

    Without a list the grid is that of configs/pipeline.yaml: the paper's figure 8. A figure is drawn for every setting that
    takes more than one value. Finished runs are not trained again, so a killed sweep resumes and a larger one trains its new
    runs only. With n clips a video is cut to 10 n + 5 of its 105 slots, and there are min(30, 105 - (10 n + 5) + 1) start
    slots.
    """
    from ...cache.atomic import write_text
    from ...cache.hdf5 import read_features
    from ...stages.heads.folds import make_folds
    from ...stages.heads.sweep import expand_grid, is_complete, results_frame, with_absolute_paths
    from ...stages.report.sweep_results import write_sweep_figures
    from ..executor import dask_executor
    from ..paths import sweep_folder
    from ..training import make_run_spec, run_sweep

    lists: dict[str, Any] = {
        "heads": _parse_list("--heads", heads, str), "clips": _parse_list("--clips", clip_counts, int),
        "frames": _parse_list("--frames", frame_counts, int), "learning_rates": _parse_list("--lr", learning_rates, float),
    }  # fmt: skip
    grid = load_pipeline_config().sweep
    if not any(lists.values()):
        lists |= {"heads": [grid.head], "clips": list(grid.num_clips), "frames": list(grid.frames_per_clip)}
    if options.cv["num_seeds"] is None:
        options = replace(options, cv={**options.cv, "num_seeds": grid.num_seeds})
    source = data.resolve()
    base, folder, executor = make_run_spec(source, options), out or sweep_folder(source.name), None
    if cluster:
        executor, workers = dask_executor(cluster, resource=dask_resource)
        base, folder = with_absolute_paths(base), folder.absolute()  # other machines have other working folders
    specs = expand_grid(base, folder / "runs", **lists)
    if dry_run:
        identity = read_features(base.features).identity
        pending = [spec for spec in specs if not is_complete(spec, identity)]
        echo_table(["run", "state"], [[spec.out.name, "pending" if spec in pending else "cached"] for spec in specs])
        echo(f"{len(pending)} of {len(specs)} runs to train")
        return
    if not quiet:
        folds = make_folds(base.manifest.entries, base.cv.fold_scheme, base.cv.folds, base.cv.seed)
        log(f"{len(specs)} runs x {len(folds)} folds x {base.cv.num_seeds} seeds")
    with progress("sweep", quiet=quiet) as on_progress:
        runs = run_sweep(specs, workers=workers, executor=executor, on_progress=on_progress)
    rows = results_frame(runs)
    write_text(folder / "sweep.csv", rows.to_csv(index=False, float_format="%.6g"))
    reference = next((run for run in runs if run.train_config == base.config), runs[0])
    figures = write_sweep_figures(rows, reference, folder / "figures")
    if as_json:
        paths = list(map(str, figures))
        echo_json({"csv": str(folder / "sweep.csv"), "runs": len(specs), "rows": len(rows), "figures": paths})
        return
    groups = rows.groupby(["head", "num_clips", "frames_per_clip", "learning_rate"], sort=False)
    echo_table(
        ["head", "clips", "frames", "lr", "WAR %", "std (ddof 0)", "UAR %", "locating %", "n"],
        [
            [*key, f"{100 * g.war.mean():.2f}", f"{100 * g.war.std(ddof=0):.2f}", f"{100 * g.uar.mean():.2f}",
             "—" if g.locating.isna().all() else f"{100 * g.locating.mean():.2f}", len(g)]
            for key, g in groups
        ],
    )  # fmt: skip
    for figure in figures:
        echo(str(figure))
    echo(str(folder / "sweep.csv"))


def _parse_list(option: str, text: str | None, kind: type) -> list[Any]:
    """Parse '1,3,5'; raises CeflError that names the option and the part that is not valid."""
    values = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        try:
            values.append(kind(part.strip()))
        except ValueError:
            raise CeflError(f"{option} {text}: {part.strip()!r} is not a number; give a list such as 1,3,5") from None
    if len(set(values)) != len(values):
        raise CeflError(f"{option} {text}: duplicate value")
    return values
