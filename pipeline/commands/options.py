"""Option decorators shared by several commands; large groups are passed to the command as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ...stages.heads.train_config import CVConfig, TrainConfig
from ..config import TrainOptions
from ..dataset import DatasetOptions

F = Callable[..., Any]
PATH = click.Path(path_type=Path)
PRECISION_HELP = "Arithmetic; auto: the fastest native one."


def dataset_options(function: F) -> F:
    """Add the options that choose the videos, passed to the command as ``data: DatasetOptions``."""
    names = [option.name for option in fields(DatasetOptions)]

    @wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        return function(*args, data=DatasetOptions(**{name: values.pop(name) for name in names}), **values)

    return _add(
        command,
        click.option("--dataset", "-d", metavar="NAME", help="A data set of configs/; default: that of pipeline.yaml."),
        click.option("--manifest", type=PATH, help="A CSV of your own: path,label[,subject,…]."),
        click.option("--root", type=PATH, help="Folder that paths are relative to."),
        click.option("--labels", metavar="A,B,…", help="Labels of your own, if they are not the usual expressions."),
        click.option("--allow-external-paths", is_flag=True, help="Trust a list whose paths lead out of its folder."),
    )


def training_options(function: F) -> F:
    """Add the options of train-heads, ablate and sweep, passed to the command as ``options: TrainOptions``.

    Further options of the command that are named like a field of TrainConfig or CVConfig go there too.
    """

    @wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        features, device = values.pop("features"), values.pop("device")
        train = {name: values.pop(name) for name in TrainConfig.model_fields if name in values}
        cv = {name: values.pop(name) for name in CVConfig.model_fields if name in values}
        return function(*args, options=TrainOptions(features, device, train, cv), **values)

    return _add(
        command,
        click.option("--features", type=PATH, help="Feature cache; default: artifacts/features/NAME.h5."),
        click.option("--folds", type=int, help="Number of folds, for subject and stratified; default: the data set's."),
        click.option(
            "--fold-scheme",
            type=click.Choice(["subject", "stratified", "official", "split"]),
            help="subject keeps subjects apart, stratified ignores them; official and split follow the manifest.",
        ),
        click.option("--epochs", type=click.IntRange(0), help="Paper: 120."),
        click.option("--batch-size", type=click.IntRange(1), help="Videos per step and fold (paper: 8)."),
        click.option("--loss", type=click.Choice(["auto", "bce", "cross-entropy"]), help="auto: the head's own."),
        click.option(
            "--class-weights/--no-class-weights", default=None, help="Make all labels count the same in the loss."
        ),
        click.option(
            "--checkpoint", type=click.Choice(["last", "best-test"]), help="Epoch to keep; best-test is optimistic."
        ),
        click.option("--tta-views", type=click.IntRange(1), help="Test-time views (start slots) to average."),
        click.option("--seed", type=int, help="First seed."),
        click.option(
            "--seeds",
            "num_seeds",
            type=click.IntRange(1),
            help="Number of seeds, counted up from --seed; default: 1, for a sweep that of pipeline.yaml.",
        ),
        device_option,
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help=PRECISION_HELP),
    )


def device_option(function: F) -> F:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")(function)


def dask_options(function: F) -> F:
    """Add --cluster and --dask-resource."""
    return _add(
        function,
        click.option("--cluster", metavar="URL", help="dask://HOST:PORT: run there instead of here."),
        click.option(
            "--dask-resource",
            default="",
            metavar="NAME",
            help="With --cluster: only workers that offer NAME, e.g. GPU.",
        ),
    )


def quiet_option(function: F) -> F:
    return click.option("--quiet", "-q", is_flag=True, help="No progress bar and no notes.")(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def _add(function: F, *options: Callable[[F], F]) -> F:
    """Apply options so that the help lists them in the order given."""
    for option in reversed(options):
        function = option(function)
    return function
