"""ceflpipe ablate: table 6 on any data set, or heads on the features of several encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError
from ..config import TrainOptions
from ..console import (
    describe_difference,
    describe_reachable,
    echo,
    echo_json,
    echo_table,
    format_interval,
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

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run
    from ...stages.heads.sweep import RunSpec

UNTUNED, TUNED = "untuned", "tuned"
"""Forms of the table: the same settings for every row, and settings chosen for each; column ``form`` of the CSVs."""


@dataclass(frozen=True)
class _Form:
    """The rows of the table in one form, and the paired difference of each to the row above."""

    name: str
    runs: tuple[Run, ...]
    pairs: tuple[dict[str, Any], ...]


@click.command(
    name="ablate",
    epilog="Examples: ceflpipe ablate --seeds 3; ceflpipe ablate --tune lr,epochs --seeds 3; "
    "ceflpipe ablate --encoders faces,actors --heads cefl,mean",
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

    All rows use one configuration, by default the paper's. With --tune the table comes in two forms, side by side: that one, and
    each row with what was chosen for it, fold by fold, on held-out videos of the training set. Finished rows are not trained
    again. With --encoders the rows are those heads on the features of each encoder, in the run folders of train-heads.
    """
    if encoders is not None:
        if out or options.features or options.encoder:
            raise CeflError("--encoders: reads and writes the usual folders; leave out --out, --features and --encoder")
        _compare_encoders(data.resolve(), options, heads or (), encoders, workers, force, as_json, quiet)
        return
    import pandas as pd

    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.comparison import paired_differences, results_frame
    from ...stages.heads.sweep import expand_grid
    from ...stages.report.paper_comparison import ABLATION_HEADS, paper_ablation
    from ..paths import run_folder, tuned_run_folder
    from ..training import inputs_of, make_run_spec, run_sweep

    source = data.resolve().with_features_of(options.encoder, options.features)
    folder = out or run_folder(source.results_name(options.features), "ablate")
    base = make_run_spec(source, options)
    specs: dict[str, list[RunSpec]] = {UNTUNED: [], TUNED: []}
    for spec in expand_grid(base, folder, heads=heads or ABLATION_HEADS):
        path = folder / spec.config.head
        specs[UNTUNED].append(replace(spec, cv=base.cv.without_tuning(), out=path, force=force))
        if base.cv.tune:
            specs[TUNED].append(replace(spec, out=tuned_run_folder(path), force=force))
    csv, differences_csv = folder / "ablation.csv", folder / "ablation_differences.csv"
    announce(check_files([csv, differences_csv], "--out", inputs=inputs_of(base), force=force))
    kept = kept_on_interruption("Finished rows are kept; run the same command to go on.")
    with progress("ablation", quiet=quiet) as on_progress, kept:
        runs = run_sweep(
            [*specs[UNTUNED], *specs[TUNED]], workers=workers, on_plan=print_run_plan(quiet), on_progress=on_progress
        )
    forms, tables = [], []
    for name, members in ((UNTUNED, runs[: len(specs[UNTUNED])]), (TUNED, runs[len(specs[UNTUNED]) :])):
        if members:
            rows = results_frame(members)
            names = [run.train_config.head for run in members]
            forms.append(
                _Form(name, tuple(members), tuple(paired_differences(rows, *pair) for pair in pairwise(names)))
            )
            tables.append(rows.assign(form=name))
    rows = pd.concat(tables, ignore_index=True)
    by_tuning = [
        paired_differences(rows[rows["head"] == run.train_config.head], UNTUNED, TUNED, "form")
        for run in (runs[: len(specs[TUNED])] if base.cv.tune else ())
    ]
    write_owned_text(csv, rows.to_csv(index=False))
    differences = [{"form": form.name, "head": pair["later"], **pair} for form in forms for pair in form.pairs]
    differences += [
        {"form": "", "head": run.train_config.head, **pair} for run, pair in zip(runs, by_tuning, strict=False)
    ]
    write_owned_text(differences_csv, pd.DataFrame(differences).to_csv(index=False))
    if as_json:
        untuned, *tuned = map(_form_json, forms)
        content = untuned | {"csv": str(csv), "differences_csv": str(differences_csv)}
        echo_json(content | ({"tuned": tuned[0], "by_tuning": by_tuning} if tuned else {}))
        return
    first = runs[0]
    echo(f"ablation on {source.name}: {first.describe_cv()}, n = {first.metrics['videos']} videos")
    for form in forms:
        _print_form(form, paper_ablation(source.name), has_title=len(forms) > 1)
    if by_tuning:
        _print_both(*forms, by_tuning)
    if any(run.metrics["optimistic"] for run in runs):
        echo("optimistic: the epoch with the best test score was kept (--checkpoint best-test)")
    locating = next((run.metrics["locating_accuracy"] for run in runs if run.metrics["locating_accuracy"]), None)
    if locating:
        chance = f"; a random clip would in {locating['chance']:.2%}" if locating["reachable"] else ""
        echo(f"{describe_reachable(locating, first.metrics['videos'])}{chance}")
    if not quiet:
        log(
            "gain: WAR minus that of the row above, paired by fold and seed; interval: of its mean over folds, seeds averaged in "
            "each, corrected for the training videos that folds share (docs/comparing.md); wins: pairs in which it is higher : "
            "lower; train: accuracy on the training videos in the last epoch; loss: whether it was still falling then"
        )
    echo(str(csv))


def _form_json(form: _Form) -> dict[str, Any]:
    by_head = {run.train_config.head: run for run in form.runs}
    content: dict[str, Any] = {
        "rows": {head: run.metrics for head, run in by_head.items()},
        "train_accuracy": {head: run.train_accuracy() for head, run in by_head.items()},
        "late_loss_decrease": {head: run.late_loss_decrease() for head, run in by_head.items()},
        "pairs": form.pairs,
    }
    if form.name == TUNED:
        content["models"] = {head: run.settings_by_model() for head, run in by_head.items()}
    return content


def _print_form(form: _Form, paper: dict[str, float], *, has_title: bool) -> None:
    from ...stages.heads.comparison import values_at_an_edge
    from ...stages.heads.convergence import loss_state
    from ...stages.heads.registry import HEAD_TITLES

    table = []
    for run, pair in zip(form.runs, [None, *form.pairs], strict=True):
        head, locating, accuracy = run.train_config.head, run.metrics["locating_accuracy"], run.train_accuracy()
        mean, *stds, _ = format_mean_std(run.metrics["war"])
        table.append([
            HEAD_TITLES[head], mean, " / ".join(stds),
            "—" if accuracy is None else f"{100 * accuracy:.2f}", loss_state(run.late_loss_decrease()),
            format_mean_std(locating["predicted_label"])[0] if locating else "—",
            "" if pair is None else f"{100 * pair['mean']:+.2f}", format_interval(pair),
            "" if pair is None else f"{pair['wins']}:{pair['losses']}",
            *([f"{paper[head]:.2f}" if head in paper else "—"] if paper else []),
        ])  # fmt: skip
    columns = ["head", "WAR %", "std (ddof 0 / 1)", "train %", "loss", "locating", "gain", "95 % interval", "wins"]
    echo_table([*columns, *(["paper %"] if paper else [])], table, describe_form(form.runs) if has_title else None)
    heads = ",".join(run.train_config.head for run in form.runs)
    _echo_shortfalls({HEAD_TITLES[run.train_config.head]: run for run in form.runs}, f"--heads {heads}")
    for pair in form.pairs:
        echo(describe_difference(pair, HEAD_TITLES[pair["earlier"]], HEAD_TITLES[pair["later"]]))
    for run in form.runs:
        for note in values_at_an_edge(run):
            echo(f"note: {HEAD_TITLES[run.train_config.head]}: {note}")


def _print_both(untuned: _Form, tuned: _Form, by_tuning: Sequence[dict[str, Any]]) -> None:
    """Print the two forms of the table side by side, and what was chosen."""
    from ...stages.heads.comparison import describe_tuned, verdict
    from ...stages.heads.registry import HEAD_TITLES

    table = []
    for number, (first, second, pair) in enumerate(zip(untuned.runs, tuned.runs, by_tuning, strict=True)):
        gains = (
            ("", "") if not number else (f"{100 * form.pairs[number - 1]['mean']:+.2f}" for form in (untuned, tuned))
        )
        (first_gain, second_gain), (first_war, second_war) = gains, (_war(run) for run in (first, second))
        table.append([
            HEAD_TITLES[first.train_config.head], first_war, first_gain, second_war, second_gain, f"{100 * pair['mean']:+.2f}",
            format_interval(pair), verdict(pair),
        ])  # fmt: skip
    columns = ["head", "untuned: WAR %", "gain", "tuned: WAR %", "gain", "by tuning", "95 % interval", ""]
    echo_table(columns, table, "side by side: one configuration for all rows, and each row tuned; ± std (ddof 0)")
    for run in tuned.runs:
        echo(f"{HEAD_TITLES[run.train_config.head]} chose {describe_tuned(run)}; {run.path / 'tuning.csv'}")


def _war(run: Run) -> str:
    mean, std, *_ = format_mean_std(run.metrics["war"])
    return f"{mean} ± {std}"


def describe_form(runs: Sequence[Run]) -> str:
    """Return in words with which settings the rows of a table were trained."""
    config, tune = runs[0].train_config, runs[0].cv.tune
    values = {
        "learning_rate": f"learning rate {config.learning_rate:g}",
        "weight_decay": f"weight decay {config.weight_decay:g}",
        "epochs": f"{config.epochs} epochs",
    }
    fixed = ", ".join(text for name, text in values.items() if name not in tune)
    if not tune:
        return f"one configuration for all rows: {fixed}"
    chosen = " and ".join(name.replace("_", " ") for name in tune)
    return f"each row tuned: {chosen} chosen for each fold and seed" + (f"; {fixed}" if fixed else "")


def _echo_shortfalls(runs: Mapping[str, Run], options: str) -> None:
    """Say which rows were trained too little, by their names, and where to look."""
    from ...stages.heads.convergence import describe_shortfall

    shortfalls = {row: describe_shortfall(run.train_accuracy(), run.late_loss_decrease()) for row, run in runs.items()}
    for row, shortfall in shortfalls.items():
        if shortfall:
            echo(f"{row} {shortfall}")
    if any(shortfalls.values()):
        further = "train longer with --epochs, or choose from more with --tune-lr"
        if not next(iter(runs.values())).cv.tune:
            further = (
                f"see ceflpipe ablate {options} --tune lr,epochs, or ceflpipe sweep {options} --lr 0.0001,0.001,0.01"
            )
        echo(f"differences to these rows may be step size; {further}")


def _compare_encoders(
    source: DatasetSource, options: TrainOptions, heads: tuple[str, ...], encoders: tuple[str, ...], workers: int | None,
    force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    from ...cache.ownership import check_files, write_owned_text
    from ...stages.heads.comparison import describe_tuned, encoder_folds, encoder_rows
    from ...stages.heads.registry import HEAD_TITLES
    from ..encoder_comparison import (
        COLUMNS,
        comparison_specs,
        encoder_sources,
        read_end_to_end,
        split_encoders,
        table_row,
        train_encoder_runs,
    )
    from ..paths import encoders_file
    from ..training import inputs_of

    cached, end_to_end = split_encoders(encoders)
    sources = encoder_sources(source, cached)
    specs = comparison_specs(sources, options, heads, force=force)
    csv = encoders_file(source.name)
    inputs = [path for runs in specs.values() for path in inputs_of(runs[0])]
    announce(check_files([csv], "--encoders", inputs=inputs, force=force))
    kept = kept_on_interruption("Finished rows are kept; run the same command to go on.")
    with progress("comparison", quiet=quiet) as on_progress, kept:
        compared = train_encoder_runs(
            sources, specs, workers=workers, on_plan=print_run_plan(quiet), on_progress=on_progress
        )
    compared += [read_end_to_end(source, name, compared[0].runs) for name in end_to_end]
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
    trained = {(each.encoder, run.train_config.head): run for each in compared for run in each.runs}
    for each in compared:
        by_title = {f"{HEAD_TITLES[run.train_config.head]} on {each.encoder}": run for run in each.runs}
        names = ",".join(run.train_config.head for run in each.runs)
        _echo_shortfalls(by_title, f"--encoder {each.encoder} --heads {names}")
    for row in rows:
        name = f"{row['title']} on {row['encoder']}"
        if chosen := describe_tuned(trained[row["encoder"], row["head"]]):
            echo(f"{name} chose {chosen}")
        if row["difference"]:
            echo(describe_difference(row["difference"], compared[0].encoder, name))
    if not quiet:
        log(
            f"difference: WAR minus that of {compared[0].encoder} with the same head, paired by fold and seed; interval: "
            "as docs/comparing.md says; wins: pairs in which it is higher : lower; train: accuracy on the training videos in the "
            "last epoch; loss: whether it was still falling then; ms/frame: processor time of the encoder for a frame; "
            "hours: what making the features took, or training end to end"
        )
        log("next: ceflpipe report")
    echo(str(csv))
