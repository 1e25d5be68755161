"""ceflpipe train-heads: stage two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import TrainConfig, load_train
from ..console import progress, say, show, show_json
from ..dataset import find_source
from .options import json_option, quiet_option, source_options, training_options

if TYPE_CHECKING:
    pass


@click.command(
    name="train-heads",
    epilog="Examples: ceflpipe train-heads --folds 10; ceflpipe train-heads --head mean --seeds 3 --out runs/mean",
    short_help="STAGE TWO: train the CFE and EIAN heads on cached features, cross-validated.",
)
@source_options
@training_options
@click.option("--head", help="cefl (the paper's equations), released, sal, sal+lrl, mean, lstm, fan.")
@click.option("--clips", type=int, help="Sub-videos per video (paper: 7).")
@click.option("--frames", type=int, help="Frames drawn from each (paper: 5).")
@click.option("--learning-rate", "--lr", type=float, help="Paper: 0.0001.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="Start from a released CEFLNet checkpoint (--head released)."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default: artifacts/runs/NAME/HEAD.")
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    init: Path | None, out: Path | None, as_json: bool, quiet: bool, **typed: Any,
) -> None:  # fmt: skip
    """STAGE TWO: train heads on the cached features, all folds at once, and test each on its fold.

    Writes predictions per fold, the history, the weights and the metrics to the run folder. Needs no video and no GPU.
    """
    import torch

    from ...cache.hdf5 import read_table
    from ...stages.heads.cross_validation import train_heads
    from ...stages.heads.registry import resolve_head
    from ..paths import run_folder
    from ..training import base_point

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    own = {key: value for key, value in typed.items() if key in TrainConfig.model_fields}
    point = base_point(source, load_train(source.config, **own), typed)
    recipe, table = point.recipe, read_table(point.features)
    target = out or run_folder(source.name, resolve_head(recipe.head))
    with progress(f"training {recipe.head}", recipe.epochs, quiet=quiet) as bar:
        run = train_heads(
            point.manifest, table, recipe, point.protocol, target, device=torch.device(point.device), init=init,
            command=point.command, on_epoch=lambda epoch: bar(1, f"loss {float(epoch.loss.mean()):.3f}"),
        )  # fmt: skip
    if as_json:
        show_json({"run": str(target), **run.metrics})
        return
    from ..console import tell_run

    tell_run(run)
    if not quiet:
        say("next: ceflpipe report")
    show(str(target))
