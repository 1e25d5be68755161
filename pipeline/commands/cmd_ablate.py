"""ceflpipe ablate: table 6 on any data set."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click

from ..config import TrainOptions
from ..console import (
    describe_reachable,
    echo,
    echo_json,
    echo_table,
    format_mean_std,
    kept_on_interruption,
    log,
    print_run_plan,
    progress,
)
from ..dataset import DatasetOptions
from .options import (
    OUT_FOLDER,
    CommaList,
    announce,
    dataset_options,
    force_option,
    json_option,
    quiet_option,
    training_options,
)

TRAINED_ACCURACY = 0.9
"""Accuracy (0..1) on the training videos in the last epoch, below which a row counts as under-trained."""


@click.command(
    name="ablate",
    epilog="Example: ceflpipe ablate --seeds 3",
    short_help="Table 6: what SAL, LRL and EIAN each add, over folds and seeds.",
)
@dataset_options
@training_options
@click.option(
    "--heads",
    type=CommaList(),
    metavar="A,B,…",
    help="Rows of the table, in order; default: mean,lstm,sal,sal+lrl,cefl.",
)
@click.option("--out", type=OUT_FOLDER, help="Folder of the runs; default: artifacts/runs/NAME/ENCODER/ablate.")
@click.option("--workers", type=click.IntRange(1), help="Rows trained at a time; default: one per core.")
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, heads: tuple[str, ...] | None, out: Path | None,
    workers: int | None, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train the rows of the paper's table 6 on the same folds and seeds, and compare each row with the one above it.

    All rows use the paper's configuration; nothing is tuned per row. Finished rows are not trained again.
    """
    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.registry import HEAD_TITLES
    from ...stages.heads.sweep import expand_grid, paired_differences, results_frame
    from ...stages.report.paper_comparison import ABLATION_HEADS, paper_ablation
    from ..paths import run_folder
    from ..training import inputs_of, make_run_spec, run_sweep

    source = data.resolve().with_features_of(options.encoder, options.features)
    folder = out or run_folder(source.results_name(options.features), "ablate")
    base = make_run_spec(source, options)
    specs = [
        replace(spec, out=folder / spec.config.head, force=force)
        for spec in expand_grid(base, folder, heads=heads or ABLATION_HEADS)
    ]
    announce(check_files([folder / "ablation.csv"], "--out", inputs=inputs_of(base), force=force))
    kept = kept_on_interruption("Finished rows are kept; run the same command to go on.")
    with progress("ablation", quiet=quiet) as on_progress, kept:
        runs = run_sweep(specs, workers=workers, on_plan=print_run_plan(quiet), on_progress=on_progress)
    rows = results_frame(runs)
    write_owned_text(folder / "ablation.csv", rows.to_csv(index=False))
    pairs = [paired_differences(rows, a.config.head, b.config.head) for a, b in pairwise(specs)]
    trained = {run.train_config.head: run.train_accuracy() for run in runs}
    if as_json:
        metrics = {run.train_config.head: run.metrics for run in runs}
        echo_json({"rows": metrics, "train_accuracy": trained, "pairs": pairs, "csv": str(folder / "ablation.csv")})
        return
    paper = paper_ablation(source.name)
    table = []
    for run, pair in zip(runs, [None, *pairs], strict=True):
        head, locating = run.train_config.head, run.metrics["locating_accuracy"]
        accuracy = trained[head]
        table.append([
            HEAD_TITLES[head], *format_mean_std(run.metrics["war"])[:3],
            "—" if accuracy is None else f"{100 * accuracy:.2f}",
            format_mean_std(locating["predicted_label"])[0] if locating else "—",
            "" if pair is None else f"{100 * pair['mean']:+.2f} ± {100 * (pair['std_ddof1'] or 0):.2f}",
            "" if pair is None else f"{pair['wins']}:{pair['losses']} of {pair['n']}",
            *([f"{paper[head]:.2f}" if head in paper else "—"] if paper else []),
        ])  # fmt: skip
    echo(f"ablation on {source.name}: {runs[0].describe_cv()}, n = {runs[0].metrics['videos']} videos")
    columns = ["head", "WAR %", "± ddof 0", "± ddof 1", "train %", "locating", "gain", "wins"]
    echo_table([*columns, *(["paper %"] if paper else [])], table)
    if any(run.metrics["optimistic"] for run in runs):
        echo("optimistic: the epoch with the best test score was kept (--checkpoint best-test)")
    locating = next((run.metrics["locating_accuracy"] for run in runs if run.metrics["locating_accuracy"]), None)
    if locating:
        chance = f"; a random clip would in {locating['chance']:.2%}" if locating["reachable"] else ""
        echo(f"{describe_reachable(locating, runs[0].metrics['videos'])}{chance}")
    for head, accuracy in trained.items():
        if accuracy is not None and accuracy < TRAINED_ACCURACY:
            echo(
                f"{HEAD_TITLES[head]} ends under-trained: {accuracy:.1%} of its own training videos are right, so differences to "
                f"other rows may be step size; see ceflpipe sweep --heads {','.join(trained)} --lr 0.0001,0.001,0.01"
            )
    for pair in pairs:
        if pair["mean"] <= 0:
            echo(f"{HEAD_TITLES[pair['later']]} does not add accuracy over {HEAD_TITLES[pair['earlier']]} here")
    if not quiet:
        log(
            "gain: WAR minus that of the row above, paired by fold and seed, ± their std (ddof 1); wins: pairs in which it is "
            "higher : lower; train: accuracy on the training videos in the last epoch"
        )
    echo(str(folder / "ablation.csv"))
