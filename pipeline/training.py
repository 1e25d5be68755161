"""Training orchestration: options to run specifications, and sweeps over them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..cache.atomic import remove_leftovers
from ..cache.errors import CeflError
from ..cache.hdf5 import read_table
from ..stages.device import resolve_precision
from ..stages.heads.registry import resolve_head
from ..stages.heads.run_io import Run, read_run
from ..stages.heads.sweep import Point, finished, run_point
from ..stages.heads.train import Recipe
from .config import TrainConfig
from .dataset import Source
from .executor import Mapper, cores, processes


def recipe_of(settings: TrainConfig, device: torch.device) -> Recipe:
    """Settle what 'auto' stands for: head and precision."""
    values = settings.model_dump(exclude={"select", "views", "seed"})
    values["head"] = resolve_head(settings.head)
    values["precision"] = resolve_precision(settings.precision, device)
    if values["precision"] == "fp16":  # its range is too small for gradients without scaling
        values["precision"] = "fp32"
    return Recipe(**values)


THREADS_PER_POINT = 1
"""Steps are short, and half of one is memory traffic: two points of one thread each finish sooner than one point of two
threads after the other (tests/bench/stage_two.py has the figures)."""


def run_grid(
    points: Sequence[Point],
    *,
    workers: int | None = None,
    mapper: Mapper | None = None,
    on_point: Callable[[str], None] = lambda name: None,
) -> list[Run]:
    """Run the points that are not finished yet and return all runs in the order of the points.

    One point at a time runs in this process; more (``workers``; default: one per core, one on a GPU) run in
    processes that share the cores among them, or where ``mapper`` runs them. ``on_point`` is called once per point, also
    for those that were finished.
    """
    identity = read_table(points[0].features).identity
    waiting = []
    for point in points:
        if finished(point, identity):
            on_point(f"{point.out.name} was there")
        else:
            waiting.append(point)
    on_gpu = points[0].device != "cpu"
    count = workers or (1 if on_gpu else max(1, cores() // THREADS_PER_POINT))
    if mapper is None and (count == 1 or len(waiting) <= 1):
        for point in waiting:
            run_point(point)
            on_point(point.out.name)
    else:
        # the longest first, so that no core waits at the end for one that began a long point late
        waiting.sort(key=lambda point: point.recipe.clips * point.recipe.frames, reverse=True)
        for outcome in (mapper or processes(count, threads=max(1, cores() // count)))(run_point, waiting):
            if isinstance(outcome, tuple):
                raise CeflError(f"{outcome[0].out}: {outcome[1]}; run the same command to go on")
            on_point(outcome.name)
    for point in points:  # a worker of a killed run lives half a second longer than its parent
        remove_leftovers(point.out)
    return [read_run(point.out) for point in points]


def base_point(source: Source, settings: TrainConfig, typed: dict[str, Any]) -> Point:
    """Return what a run on these videos needs: the recipe with 'auto' settled, the protocol, the feature cache.

    ``typed`` are the values of ``training_options``. Raises CeflError when the cache was made by other encoder weights.
    """
    from ..cache.hdf5 import read_settings
    from ..stages.device import checked_device
    from ..stages.heads.cross_validation import Protocol
    from ..stages.heads.sweep import Point

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
    from ..stages.encoder.weights import describe_encoder
    from .paths import weights_file

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


def _settings(typed: dict[str, Any]) -> dict[str, Any]:

    return {key: value for key, value in typed.items() if key in TrainConfig.model_fields and key != "head"}
