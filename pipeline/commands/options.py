"""Option decorators shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

F = Callable[..., Any]


def source_options(function: F) -> F:
    """--dataset, --manifest, --root, --labels, --allow-outside: which videos."""
    for option in (
        click.option("--allow-outside", is_flag=True, help="Trust a list whose paths lead out of its folder."),
        click.option("--labels", metavar="A,B,…", help="Labels of your own, where they are not the usual expressions."),
        click.option("--root", type=click.Path(path_type=Path), help="Folder the videos lie in."),
        click.option("--manifest", type=click.Path(path_type=Path), help="A CSV of your own: path,label[,subject,…]."),
        click.option("--dataset", "-d", metavar="NAME", help="A data set of configs/; default: that of pipeline.yaml."),
    ):
        function = option(function)
    return function


def quiet_option(function: F) -> F:
    return click.option("--quiet", "-q", is_flag=True, help="No progress bar and no remarks.")(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def cluster_options(function: F) -> F:
    """--cluster and --resource: where else the work is done."""
    function = click.option(
        "--resource", default="", metavar="TAG", help="With --cluster: only on workers that offer TAG, e.g. GPU."
    )(function)
    return click.option("--cluster", metavar="URL", help="dask://HOST:PORT: run there instead of here.")(function)


def device_options(function: F) -> F:
    function = click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        help="Arithmetic; auto: the fastest native one.",
    )(function)
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")(function)


def training_options(function: F) -> F:
    """What train-heads, ablate and sweep have in common: data, folds, seeds, and how long and how to train."""
    for option in (
        click.option(
            "--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Arithmetic; auto: the fastest native one."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …"),
        click.option(
            "--seeds",
            type=click.IntRange(1),
            help="How many seeds, counted on from --seed; default: 1, for a sweep that of pipeline.yaml.",
        ),
        click.option("--seed", type=int, help="First seed."),
        click.option("--views", type=click.IntRange(1), help="Average so many test-time starts."),
        click.option(
            "--select", type=click.Choice(["last", "best-test"]), help="Which epoch to keep; best-test is optimistic."
        ),
        click.option(
            "--class-weights/--no-class-weights", default=None, help="Give every label the same say in the loss."
        ),
        click.option("--loss", type=click.Choice(["auto", "bce", "cross-entropy"]), help="auto: the head's own."),
        click.option("--batch", type=click.IntRange(1), help="Videos per step and fold (paper: 8)."),
        click.option("--epochs", type=click.IntRange(0), help="Paper: 120."),
        click.option(
            "--fold-scheme", type=click.Choice(["subject", "clipwise", "official", "split"]), help="Who is tested when."
        ),
        click.option(
            "--folds", type=int, help="How many folds, for subject and clipwise; default: the data set's protocol."
        ),
        click.option(
            "--features", type=click.Path(path_type=Path), help="Feature cache; default: artifacts/features/NAME.h5."
        ),
    ):
        function = option(function)
    return function
