"""ceflpipe sweep: figure 8 and other grids over one extraction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError, shorten_list
from ..config import TrainOptions, load_pipeline_config
from ..console import echo, echo_json, echo_table, kept_on_interruption, log, print_run_plan, progress
from ..dataset import DatasetOptions
from .options import (
    OUT_FOLDER,
    CommaList,
    announce,
    dask_options,
    dataset_options,
    force_option,
    json_option,
    quiet_option,
    training_options,
)

if TYPE_CHECKING:
    import pandas as pd


@click.command(
    name="sweep",
    epilog="Examples: ceflpipe sweep --clips 1,3,5,7,9 --frames 2,5,10,15 --folds 10 --seeds 3; "
    "ceflpipe sweep --clips 1,7 --tune lr",
    short_help="Figure 8: accuracy over clips per video, frames per clip, heads, learning rates.",
)
@dataset_options
@training_options
@click.option("--clips", "clip_counts", type=CommaList(int), metavar="N,N,…", help="Clips per video, e.g. 1,3,5,7,9.")
@click.option("--frames", "frame_counts", type=CommaList(int), metavar="K,K,…", help="Frames per clip, e.g. 2,5,10,15.")
@click.option("--heads", type=CommaList(), metavar="A,B,…", help="Heads, e.g. cefl,released,lstm.")
@click.option(
    "--learning-rates", "--lr", type=CommaList(float), metavar="X,X,…", help="Learning rates, e.g. 0.0001,0.001."
)
@click.option("--out", type=OUT_FOLDER, help="Folder; default: artifacts/sweeps/NAME/ENCODER.")
@click.option("--dry-run", is_flag=True, help="Only print which runs are cached and which would be trained.")
@click.option("--workers", type=click.IntRange(1), help="Runs trained at a time; default: one per core.")
@dask_options
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, clip_counts: tuple[int, ...] | None,
    frame_counts: tuple[int, ...] | None, heads: tuple[str, ...] | None, learning_rates: tuple[float, ...] | None,
    out: Path | None, dry_run: bool, workers: int | None, cluster: str | None, dask_resource: str, force: bool,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train every combination on the cached features and write one table: a row per run, fold and seed.

    Without --clips, --frames, --heads and --lr the grid is that of configs/pipeline.yaml (the paper's figure 8). A figure is
    drawn for every setting that takes more than one value. Finished runs are not trained again, so a killed sweep resumes
    and a larger one trains its new runs only. Every video is mapped to 105 slots; n clips cover 10 n + 5 of them, so there
    are min(30, 105 - (10 n + 5) + 1) start slots. With --tune each run chooses its settings for each fold and seed, on held-out
    videos of the training set.
    """
    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.comparison import describe_tuned, results_frame
    from ...stages.heads.convergence import loss_state
    from ...stages.heads.feature_bank import load_table
    from ...stages.heads.folds import make_folds
    from ...stages.heads.sweep import expand_grid, reason_to_train, with_absolute_paths
    from ...stages.report.sweep_results import FIGURE_BYTES, figure_files, write_sweep_figures
    from ..executor import dask_executor
    from ..paths import sweep_folder
    from ..training import inputs_of, make_run_spec, run_sweep

    lists: dict[str, Any] = {
        "heads": heads or (),
        "num_clips": clip_counts or (),
        "frames_per_clip": frame_counts or (),
        "learning_rates": learning_rates or (),
    }
    grid = load_pipeline_config().sweep
    if not any(lists.values()):
        lists |= {"heads": [grid.head], "num_clips": grid.num_clips, "frames_per_clip": grid.frames_per_clip}
    source = data.resolve().with_features_of(options.encoder, options.features)
    base = make_run_spec(source, options)
    if learning_rates and "learning_rate" in base.cv.tune:
        raise CeflError(
            "--lr: each rate is a run of its own, and --tune chooses the rate in each run; leave out one of them"
        )
    folder = out or sweep_folder(source.results_name(options.features))
    executor, processes = None, 1
    if cluster:
        executor, workers, processes = dask_executor(cluster, resource=dask_resource)
        base, folder = with_absolute_paths(base), folder.absolute()  # other machines have other working folders
    specs = expand_grid(replace(base, force=force), folder / "runs", **lists)
    if dry_run:
        features_sha256 = load_table(base.features, verify=False).features_sha256
        reasons = [reason_to_train(spec, features_sha256) for spec in specs]
        rows = [[s.out.name, f"pending: {r}" if r else "cached"] for s, r in zip(specs, reasons, strict=True)]
        echo_table(["run", "state"], rows)
        echo(f"{len(list(filter(None, reasons)))} of {len(specs)} runs to train")
        return
    files = [folder / "sweep.csv", *figure_files(folder / "figures")]
    required = FIGURE_BYTES * len(files)
    announce(check_files(files, "--out", inputs=inputs_of(base), force=force, required_bytes=required))
    if not quiet:
        folds = make_folds(base.manifest.entries, base.cv.fold_scheme, base.cv.folds, base.cv.seed)
        log(f"{len(specs)} runs x {len(folds)} folds x {base.cv.num_seeds} seeds")
    kept = kept_on_interruption("Finished runs are kept; run the same command to go on.")
    with progress("sweep", quiet=quiet) as on_progress, kept:
        runs = run_sweep(
            specs, workers=workers, executor=executor, processes=processes, on_plan=print_run_plan(quiet),
            on_progress=on_progress,
        )  # fmt: skip
    rows = results_frame(runs)
    write_owned_text(folder / "sweep.csv", rows.to_csv(index=False, float_format="%.6g"))
    reference = next((run for run in runs if run.train_config == base.config), runs[0])
    figures = write_sweep_figures(rows, reference, folder / "figures")
    if as_json:
        paths = list(map(str, figures))
        points = [
            run.train_config.model_dump(include={"head", "num_clips", "frames_per_clip", "learning_rate"})
            | {
                "train_accuracy": run.train_accuracy(),
                "late_loss_decrease": run.late_loss_decrease(),
                "tuned": describe_tuned(run),
            }
            for run in runs
        ]
        echo_json(
            {
                "csv": str(folder / "sweep.csv"),
                "runs": len(specs),
                "rows": len(rows),
                "figures": paths,
                "points": points,
            }
        )
        return
    groups = rows.groupby(["head", "num_clips", "frames_per_clip", "learning_rate"], sort=False)
    tunes_rate = "learning_rate" in base.cv.tune
    echo_table(
        ["head", "clips", "frames", "lr", "WAR %", "± ddof 0", "UAR %", "train %", "loss", "locating %", "chance %", "reachable",
         "n"],
        [
            [*key[:3], "tuned" if tunes_rate else key[3], f"{100 * g.war.mean():.2f}", f"{100 * g.war.std(ddof=0):.2f}",
             f"{100 * g.uar.mean():.2f}", _percent(g.train_accuracy), loss_state(run.late_loss_decrease()),
             _percent(g.locating_accuracy), _percent(g.chance), int(g.apex_reachable.sum()), len(g)]
            for (key, g), run in zip(groups, runs, strict=True)
        ],
    )  # fmt: skip
    falling = [run.path.name for run in runs if loss_state(run.late_loss_decrease()) == "falling"]
    if falling:
        echo(
            f"the loss of {len(falling)} of {len(runs)} runs was still falling in the end ({shorten_list(falling)}), so "
            "differences may be step size; see --epochs, --lr and --tune"
        )
    for run in runs if base.cv.tune else ():
        echo(f"{run.path.name} chose {describe_tuned(run)}")
    for figure in figures:
        echo(str(figure))
    echo(str(folder / "sweep.csv"))


def _percent(values: pd.Series) -> str:
    return "—" if values.isna().all() else f"{100 * values.mean():.2f}"
