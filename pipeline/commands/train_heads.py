"""ceflpipe train-heads: stage two."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError
from ..config import TrainConfig, load_train
from ..console import progress, say, show, show_json
from ..source import Source, find_source
from .options import json_option, quiet_option, source_options, training_options

if TYPE_CHECKING:
    from ...stages.heads.grid import Point


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

    from ...cache.store import read_table
    from ...stages.heads.names import resolve_head
    from ...stages.heads.run import train_heads
    from ..places import run_folder

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
    from ..tell import tell_run

    tell_run(run)
    if not quiet:
        say("next: ceflpipe report")
    show(str(target))


def base_point(source: Source, settings: TrainConfig, typed: dict[str, Any]) -> Point:
    """Return what a run on these videos needs: the recipe with 'auto' settled, the protocol, the feature cache.

    ``typed`` are the values of ``training_options``. Raises CeflError when the cache was made by other encoder weights.
    """
    from ...cache.store import read_settings
    from ...stages.device import checked_device
    from ...stages.heads.grid import Point
    from ...stages.heads.run import Protocol
    from ..train_settings import recipe_of

    manifest = source.manifest()  # first: what is wrong with it is wrong for all that follows
    device = checked_device(typed["device"])
    protocol = Protocol(
        scheme=typed["fold_scheme"] or source.protocol.scheme,
        folds=source.protocol.folds if typed["folds"] is None else typed["folds"],
        seeds=tuple(range(settings.seed, settings.seed + (typed["seeds"] or 1))),
        select=settings.select,
        views=settings.views,
    )
    cache = typed["features"] or source.features
    check_encoder(source, cache, read_settings(cache))
    command = shlex.join(["ceflpipe", *sys.argv[1:]])
    return Point(manifest, cache, recipe_of(settings, device), protocol, Path(), str(device), command)


def check_encoder(source: Source, cache: Path, settings: str) -> None:
    """Raise CeflError when the cache was made by other encoder weights than the data set is configured for today."""
    from ...stages.encoder.weights import describe_encoder
    from ..places import weights_file

    if not source.config:
        return
    wanted = weights_file(source.config.encoder)
    if not wanted.is_file():
        return
    made = json.loads(settings)
    now = describe_encoder(wanted)
    if made.get("encoder_sha256") != now.sha256:
        raise CeflError(
            f"{cache}: made with other encoder weights ({made.get('encoder')} {str(made.get('encoder_sha256'))[:8]}…, "
            f"now {now.name} {now.sha256[:8]}…); run ceflpipe extract --dataset {source.name} to redo it, "
            f"or name the cache with --features and the list with --manifest {source.listing}"
        )
