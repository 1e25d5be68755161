"""ceflpipe train-heads: stage two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..config import TrainOptions
from ..console import echo, echo_json, log, print_run, progress
from ..dataset import DatasetOptions, DatasetSource
from .options import (
    OUT_FOLDER,
    PATH,
    announce,
    dataset_options,
    force_option,
    json_option,
    quiet_option,
    training_options,
)

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run


@click.command(
    name="train-heads",
    epilog="Examples: ceflpipe train-heads --folds 10; ceflpipe train-heads --head mean --seeds 3 --out runs/mean; "
    "ceflpipe train-heads --tune lr,epochs; ceflpipe train-heads --final",
    short_help="STAGE TWO: train the CFE and EIAN heads on cached features, cross-validated.",
)
@dataset_options
@training_options
@click.option("--head", help="cefl (the paper's equations), released, sal, sal+lrl, mean, lstm, fan.")
@click.option("--clips", "num_clips", type=int, help="Clips (sub-videos) per video (paper: 7).")
@click.option("--frames", "frames_per_clip", type=int, help="Frames sampled per clip (paper: 5).")
@click.option("--learning-rate", "--lr", type=float, help="Learning rate of Adam (paper: 0.0001).")
@click.option("--init", type=PATH, help="Start from a released CEFLNet checkpoint (--head released).")
@click.option(
    "--final", is_flag=True,
    help="Train on all videos, as a cross-validated run was, one model per seed; its score is quoted as the one to expect.",
)  # fmt: skip
@click.option(
    "--cv-run", type=PATH, help="With --final: the cross-validated run; default: artifacts/runs/NAME/ENCODER/HEAD."
)
@click.option(
    "--out", type=OUT_FOLDER,
    help="Run folder; default: artifacts/runs/NAME/ENCODER/HEAD, of a final model that of its run with -final.",
)  # fmt: skip
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, init: Path | None, final: bool, cv_run: Path | None, out: Path | None,
    force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """STAGE TWO: train heads on the cached features, all folds at once, and test each on its fold.

    Writes predictions per fold, the history, the weights, the metrics and a model card (README.md) to the run folder. Needs no
    video and no GPU. With --final, after a cross-validation, it trains the model to use: on all videos, tested on none.
    """
    import torch

    from ...cache.ownership import RUN_FOLDER, check_folder
    from ...stages.heads.cross_validation import cross_validate
    from ...stages.heads.feature_bank import load_table
    from ..paths import final_run_folder, run_folder
    from ..training import make_final_spec, make_run_spec

    if cv_run and not final:
        raise CeflError("--cv-run: names the run that a final model belongs to; give --final too")
    source = data.resolve().with_features_of(options.encoder, options.features)
    results = source.results_name(options.features)
    reference = _read_reference(source, results, options, cv_run) if final else None
    spec = make_final_spec(source, options, reference) if reference else make_run_spec(source, options)
    folder = out or (final_run_folder(reference.path) if reference else run_folder(results, spec.config.head))
    inputs = [source.root, *filter(None, (init, reference and reference.path))]
    announce(check_folder(folder, "--out", RUN_FOLDER, inputs=inputs, force=force))
    with progress(f"training {spec.config.head}", quiet=quiet) as on_progress:
        run = cross_validate(
            spec.manifest, load_table(spec.features), spec.config, spec.cv, folder,
            device=torch.device(spec.device), init=init, command=spec.command, force=force, memory=spec.memory,
            final_of=reference, card_texts=spec.card_texts, fold_encoders=spec.fold_encoders, on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        echo_json({"run": str(folder), **run.metrics, "notes": run.config["notes"]})
        return
    print_run(run)
    if not quiet:
        log(f"next: ceflpipe predict film.mp4 --run {folder}" if final else "next: ceflpipe report")
    echo(str(folder))


def _read_reference(source: DatasetSource, results: str, options: TrainOptions, path: Path | None) -> Run:
    """Return the cross-validated run that a final model is trained as; raises CeflError, with what to type, if there is none."""
    from ...stages.heads.registry import resolve_head
    from ...stages.heads.run_io import read_run
    from ..config import load_train_config
    from ..paths import run_folder

    if path is None:
        head = resolve_head(load_train_config(source.config, head=options.train.get("head")).head)
        path = run_folder(results, head)
        if not (path / "run.json").is_file():
            raise CeflError(
                f"{path}: no cross-validated run, whose score --final could quote; cross-validate first with ceflpipe "
                f"train-heads {source.option} --head {head}, or name a run with --cv-run"
            )
    return read_run(path)
