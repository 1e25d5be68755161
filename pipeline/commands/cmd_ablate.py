"""ceflpipe ablate: table 6 on any data set, or heads on the features of several encoders."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click

from ...cache.errors import CeflError
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
from ..dataset import DatasetOptions, DatasetSource
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
    epilog="Examples: ceflpipe ablate --seeds 3; ceflpipe ablate --encoders faces,actors --heads cefl,mean",
    short_help="Table 6: what SAL, LRL and EIAN each add, over folds and seeds; or compare encoders.",
)
@dataset_options
@training_options
@click.option(
    "--heads",
    type=CommaList(),
    metavar="A,B,…",
    help="Rows of the table, in order; default: mean,lstm,sal,sal+lrl,cefl, with --encoders those of pipeline.yaml.",
)
@click.option(
    "--encoders",
    type=CommaList(),
    metavar="A,B,…",
    help="Compare these encoders instead, on the same folds and seeds; the first is the one that others are compared with.",
)
@click.option("--out", type=OUT_FOLDER, help="Folder of the runs; default: artifacts/runs/NAME/ENCODER/ablate.")
@click.option("--workers", type=click.IntRange(1), help="Rows trained at a time; default: one per core.")
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, heads: tuple[str, ...] | None, encoders: tuple[str, ...] | None,
    out: Path | None, workers: int | None, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train the rows of the paper's table 6 on the same folds and seeds, and compare each row with the one above it.

    All rows use the paper's configuration; nothing is tuned per row. Finished rows are not trained again. With --encoders the
    rows are those heads on the features of each encoder, in the run folders of train-heads.
    """
    if encoders is not None:
        if out or options.features or options.encoder:
            raise CeflError("--encoders: reads and writes the usual folders; leave out --out, --features and --encoder")
        _compare_encoders(data.resolve(), options, heads or (), encoders, workers, force, as_json, quiet)
        return
    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.comparison import paired_differences, results_frame
    from ...stages.heads.registry import HEAD_TITLES
    from ...stages.heads.sweep import expand_grid
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
            _echo_under_trained(HEAD_TITLES[head], accuracy, f"--heads {','.join(trained)}")
    for pair in pairs:
        if pair["mean"] <= 0:
            echo(f"{HEAD_TITLES[pair['later']]} does not add accuracy over {HEAD_TITLES[pair['earlier']]} here")
    if not quiet:
        log(
            "gain: WAR minus that of the row above, paired by fold and seed, ± their std (ddof 1); wins: pairs in which it is "
            "higher : lower; train: accuracy on the training videos in the last epoch"
        )
    echo(str(folder / "ablation.csv"))


def _echo_under_trained(row: str, accuracy: float, options: str) -> None:
    echo(
        f"{row} ends under-trained: {accuracy:.1%} of its own training videos are right, so differences to "
        f"other rows may be step size; see ceflpipe sweep {options} --lr 0.0001,0.001,0.01"
    )


def _compare_encoders(
    source: DatasetSource, options: TrainOptions, heads: tuple[str, ...], encoders: tuple[str, ...], workers: int | None,
    force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.comparison import encoder_folds, encoder_rows
    from ..encoder_comparison import COLUMNS, comparison_specs, encoder_sources, table_row, train_encoder_runs
    from ..paths import encoders_file
    from ..training import inputs_of

    sources = encoder_sources(source, encoders)
    specs = comparison_specs(sources, options, heads, force=force)
    csv = encoders_file(source.name)
    inputs = [path for runs in specs.values() for path in inputs_of(runs[0])]
    announce(check_files([csv], "--encoders", inputs=inputs, force=force))
    kept = kept_on_interruption("Finished rows are kept; run the same command to go on.")
    with progress("comparison", quiet=quiet) as on_progress, kept:
        compared = train_encoder_runs(
            sources, specs, workers=workers, on_plan=print_run_plan(quiet), on_progress=on_progress
        )
    write_owned_text(csv, encoder_folds(compared).to_csv(index=False))
    rows = encoder_rows(compared)
    if as_json:
        echo_json({"rows": rows, "csv": str(csv)})
        return
    run = compared[0].runs[0]
    echo(f"encoders on {source.name}: {run.describe_cv()}, n = {run.metrics['videos']} videos")
    echo_table(COLUMNS, [table_row(row) for row in rows])
    if any(row["optimistic"] for row in rows):
        echo("optimistic: the epoch with the best test score was kept (--checkpoint best-test)")
    for row in rows:
        if row["train_accuracy"] is not None and row["train_accuracy"] < TRAINED_ACCURACY:
            name = f"{row['title']} on {row['encoder']}"
            _echo_under_trained(name, row["train_accuracy"], f"--encoder {row['encoder']} --heads {row['head']}")
    if not quiet:
        log(
            f"difference: WAR minus that of {compared[0].encoder} with the same head, paired by fold and seed, ± their std "
            "(ddof 1); wins: pairs in which it is higher : lower; train: accuracy on the training videos in the last epoch; "
            "ms/frame: processor time of the encoder for a frame"
        )
        log("next: ceflpipe report")
    echo(str(csv))
