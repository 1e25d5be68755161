"""ceflpipe train-heads: stage two."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import TrainOptions
from ..console import echo, echo_json, log, print_run, progress
from ..dataset import DatasetOptions
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


@click.command(
    name="train-heads",
    epilog="Examples: ceflpipe train-heads --folds 10; ceflpipe train-heads --head mean --seeds 3 --out runs/mean",
    short_help="STAGE TWO: train the CFE and EIAN heads on cached features, cross-validated.",
)
@dataset_options
@training_options
@click.option("--head", help="cefl (the paper's equations), released, sal, sal+lrl, mean, lstm, fan.")
@click.option("--clips", "num_clips", type=int, help="Clips (sub-videos) per video (paper: 7).")
@click.option("--frames", "frames_per_clip", type=int, help="Frames sampled per clip (paper: 5).")
@click.option("--learning-rate", "--lr", type=float, help="Learning rate of Adam (paper: 0.0001).")
@click.option("--init", type=PATH, help="Start from a released CEFLNet checkpoint (--head released).")
@click.option("--out", type=OUT_FOLDER, help="Run folder; default: artifacts/runs/NAME/ENCODER/HEAD.")
@force_option
@json_option
@quiet_option
def command(
    data: DatasetOptions, options: TrainOptions, init: Path | None, out: Path | None, force: bool, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """STAGE TWO: train heads on the cached features, all folds at once, and test each on its fold.

    Writes predictions per fold, the history, the weights and the metrics to the run folder. Needs no video and no GPU.
    """
    import torch

    from ...cache.hdf5 import read_features
    from ...cache.ownership import RUN_FOLDER, check_folder
    from ...stages.heads.cross_validation import cross_validate
    from ..paths import run_folder
    from ..training import make_run_spec

    source = data.resolve().with_features_of(options.encoder, options.features)
    spec = make_run_spec(source, options)
    folder = out or run_folder(source.results_name(options.features), spec.config.head)
    announce(check_folder(folder, "--out", RUN_FOLDER, inputs=[source.root, *([init] if init else [])], force=force))
    with progress(f"training {spec.config.head}", quiet=quiet) as on_progress:
        run = cross_validate(
            spec.manifest, read_features(spec.features), spec.config, spec.cv, folder,
            device=torch.device(spec.device), init=init, command=spec.command, force=force, memory=spec.memory,
            on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        echo_json({"run": str(folder), **run.metrics, "notes": run.config["notes"]})
        return
    print_run(run)
    if not quiet:
        log("next: ceflpipe report")
    echo(str(folder))
