"""ceflpipe train-end-to-end: encoder and head trained jointly, for comparison with the two stages."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ..config import load_cv_config, load_train_config
from ..console import echo, echo_json, kept_on_interruption, log, print_run, progress
from ..dataset import DatasetOptions
from .options import (
    OUT_FOLDER,
    announce,
    dataset_options,
    device_option,
    force_option,
    json_option,
    quiet_option,
)


@click.command(
    name="train-end-to-end",
    epilog="Examples: ceflpipe train-end-to-end --dataset mmi --device cuda; ceflpipe train-end-to-end --dry-run",
    short_help="Train encoder and head jointly from crops, as the paper does: what the two stages cost, on a GPU.",
)
@dataset_options
@click.option("--encoder", help="ResNet-18 to start from, by name or file; default: the data set's.")
@click.option("--head", help="As for train-heads; default: that of params.yaml, cefl.")
@click.option("--clips", "num_clips", type=int, help="Clips (sub-videos) per video (paper: 7).")
@click.option("--frames", "frames_per_clip", type=int, help="Frames sampled per clip (paper: 5).")
@click.option("--epochs", type=click.IntRange(1), help="Training epochs (paper: 120).")
@click.option("--batch-size", type=click.IntRange(1), help="Videos per step (paper: 8).")
@click.option("--learning-rate", "--lr", type=float, help="Learning rate of Adam (paper: 0.0001).")
@click.option("--folds", type=click.IntRange(2), help="Number of folds; default: the data set's.")
@click.option(
    "--fold-scheme",
    type=click.Choice(["subject", "stratified", "official", "split"]),
    help="As for train-heads; default: the data set's.",
)
@click.option("--checkpoint", type=click.Choice(["last", "best-test"]), help="Epoch to keep; best-test is optimistic.")
@click.option("--seed", type=int, help="First seed.")
@click.option("--seeds", "num_seeds", type=click.IntRange(1), help="Number of seeds, counted up from --seed.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the encoder; auto: the fastest native one. With fp16 gradients are scaled.",
)
@click.option("--out", type=OUT_FOLDER, help="Run folder; default: artifacts/runs/NAME/ENCODER-end-to-end/HEAD.")
@click.option("--workers", type=click.IntRange(1), help="Processes that make crops; default: one per core.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, do nothing.")
@device_option
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, encoder: str | None, precision: str, out: Path | None, workers: int | None, dry_run: bool,
    device: str, force: bool, as_json: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Train ResNet-18 and a head together, a model per fold and seed, with the sampling, loss and schedule of train-heads.

    First the crops are kept (ceflpipe crops). The run stands beside those on frozen and adapted features in the report and in
    ceflpipe ablate --encoders. Made for GPUs: on a processor an epoch takes about as long as extracting the data set three times.
    A checkpoint is written every three minutes; run the same command again after an interruption.
    """
    from ...cache.ownership import RUN_FOLDER, check_folder
    from ...stages.device import resolve_device, resolve_precision
    from ...stages.end_to_end.train_end_to_end import EndToEnd, train_end_to_end
    from ...stages.heads.run_card import CardTexts
    from ...stages.heads.train_config import CVConfig, TrainConfig
    from ..crops import CropsOptions, crops_config, crops_path, make_crops, print_crops_plan
    from ..names import encoder_key
    from ..paths import END_TO_END, encoder_file, fold_encoders_folder, run_folder
    from ..training import describe_dataset, resolve_train_config

    source = data.resolve().with_encoder(encoder)
    manifest, torch_device = source.manifest(), resolve_device(device)
    train = {key: value for key, value in options.items() if key in TrainConfig.model_fields}
    config = resolve_train_config(load_train_config(source.config, **train), torch_device)
    cv = load_cv_config(source.config, **{k: v for k, v in options.items() if k in CVConfig.model_fields})
    if cv.tune:
        raise CeflError("cv.tune: settings are not tuned end to end; take it out of the configuration")
    name = encoder_key(source.extract_config.encoder) + END_TO_END
    folder = out or run_folder(f"{source.name}/{name}", config.head)
    base = encoder_file(source.extract_config.encoder)
    announce(check_folder(folder, "--out", RUN_FOLDER, inputs=[source.root, base], force=force))
    kept = "What is finished is kept; run the same command to go on."
    with progress("cropping", quiet=quiet or dry_run) as on_progress, kept_on_interruption(kept):
        plan = None if quiet else print_crops_plan
        make_crops(source, CropsOptions(workers=workers, dry_run=dry_run), on_plan=plan, on_progress=on_progress)
    arithmetic = resolve_precision(precision, torch_device)
    if not quiet:
        frames = config.num_clips * config.frames_per_clip
        log(
            f"{cv.describe()}, {config.epochs} epochs, batches of {config.batch_size} videos of at most {frames} crops, "
            f"{arithmetic} on {torch_device}"
        )
    if dry_run:
        echo("dry run: nothing was done")
        return
    crops = crops_path(source, crops_config(source))
    command_line = shlex.join(["ceflpipe", *sys.argv[1:]])
    task = EndToEnd(
        manifest, crops, base, fold_encoders_folder(source.name, name), torch_device, arithmetic, command_line
    )
    texts = CardTexts(describe_dataset(source.config, manifest))
    with progress("training end to end", quiet=quiet) as on_progress, kept_on_interruption(kept):
        run = train_end_to_end(task, config, cv, folder, card_texts=texts, force=force, on_progress=on_progress)
    if as_json:
        echo_json({"run": str(folder), **run.metrics, "notes": run.config["notes"]})
        return
    print_run(run)
    if not quiet:
        log("next: ceflpipe report")
    echo(str(folder))
