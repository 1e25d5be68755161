"""ceflpipe train-heads: stage two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ..config import TrainConfig, load_train
from ..console import progress, say, show, show_json
from ..source import Source, find_source
from .options import json_option, quiet_option, source_options


@click.command(
    name="train-heads",
    epilog="Examples: ceflpipe train-heads --folds 10; ceflpipe train-heads --head mean --seeds 3 --out runs/mean",
    short_help="STAGE TWO: train the CFE and EIAN heads on cached features, cross-validated.",
)
@source_options
@click.option("--features", type=click.Path(path_type=Path), help="Feature cache; default: artifacts/features/NAME.h5.")
@click.option("--head", help="cefl (the paper's equations), released, sal, sal+lrl, mean, lstm, fan.")
@click.option("--folds", type=int, help="How many folds; default: the data set's protocol.")
@click.option("--fold-scheme", type=click.Choice(["subject", "clipwise", "official", "split"]), help="Who is tested when.")
@click.option("--clips", type=int, help="Sub-videos per video (paper: 7).")
@click.option("--frames", type=int, help="Frames drawn from each (paper: 5).")
@click.option("--epochs", type=click.IntRange(1), help="Paper: 120.")
@click.option("--learning-rate", "--lr", type=float, help="Paper: 0.0001.")
@click.option("--batch", type=click.IntRange(1), help="Videos per step and fold (paper: 8).")
@click.option("--loss", type=click.Choice(["auto", "bce", "cross-entropy"]), help="auto: the head's own.")
@click.option("--class-weights/--no-class-weights", default=None, help="Give every label the same say in the loss.")
@click.option("--select", type=click.Choice(["last", "best-test"]), help="Which epoch to keep; best-test is optimistic.")
@click.option("--views", type=click.IntRange(1), help="Average so many test-time starts.")
@click.option("--seed", type=int, help="First seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="How many seeds, counted on from --seed.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Arithmetic; auto: the fastest native one.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default: artifacts/runs/NAME/HEAD.")
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    features: Path | None, folds: int | None, fold_scheme: str | None, seeds: int, device: str, out: Path | None,
    as_json: bool, quiet: bool, **typed: Any,
) -> None:  # fmt: skip
    """STAGE TWO: train heads on the cached features, all folds at once, and test each on its fold.

    Writes predictions per fold, the history, the weights and the metrics to the run folder. Needs no video and no GPU.
    """
    from ...cache.store import read_table
    from ...stages.device import checked_device
    from ...stages.heads.names import resolve_head
    from ...stages.heads.run import Protocol, train_heads
    from ..places import run_folder

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    settings = load_train(source.config, **typed)
    recipe = recipe_of(settings, device)
    protocol = Protocol(
        scheme=fold_scheme or source.protocol.scheme,
        folds=folds if folds is not None else source.protocol.folds,
        seeds=tuple(range(settings.seed, settings.seed + seeds)),
        select=settings.select,
        views=settings.views,
    )
    target = out or run_folder(source.name, resolve_head(settings.head))
    listed = source.manifest()
    cache = features or source.features
    table = read_table(cache)
    check_encoder(source, cache, table.settings)
    with progress(f"training {recipe.head}", recipe.epochs, quiet=quiet) as bar:
        run = train_heads(
            listed, table, recipe, protocol, target, device=checked_device(device), command=_typed_command(),
            on_epoch=lambda epoch: bar(1, f"loss {float(epoch.loss.mean()):.3f}"),
        )  # fmt: skip
    if as_json:
        show_json({"run": str(target), **run.metrics})
        return
    from ..tell import tell_run

    tell_run(run)
    if not quiet:
        say("next: ceflpipe report")
    show(str(target))


def recipe_of(settings: TrainConfig, device: str):  # noqa: ANN201 - a Recipe
    """Return what training needs to know; 'auto' precision is settled here, so that the run says what it used."""
    from ...stages.device import checked_device, resolve_precision
    from ...stages.heads.names import resolve_head
    from ...stages.heads.train import Recipe

    values = settings.model_dump()
    for key in ("select", "views", "seed"):
        del values[key]
    values["head"] = resolve_head(settings.head)
    values["precision"] = resolve_precision(settings.precision, checked_device(device))
    if values["precision"] == "fp16":  # its range is too small for gradients without scaling
        values["precision"] = "fp32"
    return Recipe(**values)


def check_encoder(source: Source, cache: Path, settings: str) -> None:
    """Raise CeflError when the cache was made by other encoder weights than the data set is configured for today."""
    import json

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


def _typed_command() -> str:
    import shlex

    return shlex.join(["ceflpipe", *sys.argv[1:]])
