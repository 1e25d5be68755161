"""ceflpipe encoder adapt: an encoder fine-tuned on the training videos of each fold."""

from __future__ import annotations

from typing import Any

import click

from ..config import load_cv_config, load_encoder_config, validate
from ..console import echo, echo_json, echo_table, kept_on_interruption, log, progress
from ..dataset import DatasetOptions
from .options import CommaList, dataset_options, device_option, json_option, quiet_option


@click.command(
    name="adapt",
    epilog="Examples: ceflpipe encoder adapt --dataset mmi; ceflpipe encoder adapt --dataset mmi --layers all --device cuda",
    short_help="Fine-tune the encoder on the training videos of each fold.",
)
@dataset_options
@click.option("--encoder", help="ResNet-18 to start from, by name or file; default: the data set's.")
@click.option(
    "--layers", type=click.Choice(["last", "all"]), help="last: the last two residual blocks; all: everything."
)
@click.option(
    "--epochs", type=click.IntRange(1), help="At most; training stops when the validation loss no longer falls."
)
@click.option("--stopping-epochs", type=click.IntRange(1), help="Epochs without a lower validation loss until then.")
@click.option("--frames", "frames_per_video", type=click.IntRange(1), help="Frames used of a video, spread evenly.")
@click.option(
    "--variants", type=click.IntRange(1), help="Images of a frame: itself, and others moved, mirrored and lit."
)
@click.option("--batch-size", type=click.IntRange(1), help="Videos per step.")
@click.option(
    "--learning-rate", "--lr", type=click.FloatRange(0, min_open=True), help="Highest of the one-cycle schedule."
)
@click.option("--folds", type=click.IntRange(2), help="Number of folds; default: the data set's, as for train-heads.")
@click.option(
    "--fold-scheme",
    type=click.Choice(["subject", "stratified", "official", "split"]),
    help="As for train-heads; default: the data set's.",
)
@click.option("--seed", type=int, help="Seed of the folds and of training.")
@click.option("--only-folds", type=CommaList(), metavar="A,B,…", help="Only these folds, e.g. on another machine.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that make crops and features; default: one per core."
)
@click.option("--force", is_flag=True, help="Make encoders again that are finished, or were made with other settings.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and what it takes, do nothing.")
@device_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, encoder: str | None, folds: int | None, fold_scheme: str | None, seed: int | None,
    only_folds: tuple[str, ...] | None, workers: int | None, force: bool, dry_run: bool, device: str, as_json: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Fine-tune the encoder for each fold on the training videos of that fold, and make the features of each.

    The encoder of a fold sees no video and no subject of its test; heads are trained on its features only if its file proves
    that. First the crops are kept (ceflpipe crops), then the encoders are trained, stopped by an inner part of the
    training videos, then the features of each fold are made of the crops. Run it again after an interruption. Heads follow with
    ceflpipe train-heads --encoder NAME-adapted; defaults are in configs/encoder.yaml, under adapt.
    """
    from ..adaptation import adapt, adapted_files, describe_adaptation, make_adaptation
    from ..crops import CropsOptions, make_crops, print_crops_plan

    source = data.resolve().with_encoder(encoder)
    cv = load_cv_config(source.config, folds=folds, fold_scheme=fold_scheme, seed=seed)
    given = {key: value for key, value in {**options, "seed": seed}.items() if value is not None}
    config = load_encoder_config().adapt
    config = validate(type(config), {**config.model_dump(), **given}, "adapt")
    adapted_files(source)
    adaptation = make_adaptation(source, config, cv, device, only_folds or ())
    if not quiet:
        for line in describe_adaptation(source, adaptation, config):
            log(line)
    kept = kept_on_interruption("What is finished is kept; run the same command to go on.")
    with progress("cropping", quiet=quiet or dry_run) as on_progress, kept:
        plan = None if quiet else print_crops_plan
        made = make_crops(source, CropsOptions(workers=workers, dry_run=dry_run), on_plan=plan, on_progress=on_progress)
    if dry_run:
        echo("dry run: nothing was done")
        return
    if made.failed and not quiet:
        log(f"{len(made.failed)} of {made.num_videos} videos have no usable face, so they are not trained on")
    with (
        progress("adapting", quiet=quiet) as on_progress,
        kept_on_interruption("What is finished is kept; run the same command to go on."),
    ):
        result = adapt(source, adaptation, config, workers=workers, force=force, on_progress=on_progress)
    rows = [
        {
            "fold": outcome.fold, "encoder": str(outcome.path), "epochs": outcome.epochs, "best_epoch": outcome.best_epoch,
            "validation_accuracy_before": outcome.base_accuracy, "validation_accuracy": outcome.best_accuracy,
            "seconds": outcome.seconds,
        }
        for outcome in result.outcomes
    ]  # fmt: skip
    if as_json:
        echo_json({"encoder": result.encoder, "features": str(result.features), "folds": rows})
        return
    cells = [
        [
            row["fold"], str(row["epochs"]), str(row["best_epoch"]), f"{100 * row['validation_accuracy_before']:.1f}",
            f"{100 * row['validation_accuracy']:.1f}", f"{row['seconds'] / 60:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    echo_table(["fold", "epochs", "kept", "validation % before", "after", "minutes"], cells)
    if not quiet:
        log("validation: a part of the fold's training videos that chose the epoch, so it is optimistic")
        log(f"next: ceflpipe train-heads {source.option} --encoder {result.encoder}")
    echo(str(result.features))
