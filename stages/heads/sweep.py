"""Many runs over one feature cache: the points of a sweep or the rows of an ablation, each made once.

A point is finished when its run folder says that it was made by this very recipe, protocol, list of videos and features;
anything else is made again. So a grid that was killed goes on where it stopped, and a grid that grows runs its new points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ...cache.errors import CeflError
from ...cache.hdf5 import read_table
from ..manifest.manifest import Manifest
from .clip_sampling import check_sampling
from .cross_validation import Protocol, train_heads
from .metrics import uar, war
from .registry import resolve_head
from .run_io import Run, describe, is_whole, read_run
from .train import Recipe


@dataclass(frozen=True)
class Point:
    """One run of a grid; plain values, so that it travels to a worker process."""

    manifest: Manifest
    features: Path
    recipe: Recipe
    protocol: Protocol
    out: Path
    device: str = "cpu"
    command: str = ""


def elsewhere(point: Point) -> Point:
    """Return the point with paths that mean the same in every working folder."""
    manifest = replace(point.manifest, root=point.manifest.root.absolute())
    return replace(point, manifest=manifest, features=point.features.absolute(), out=point.out.absolute())


def make_points(
    base: Point,
    folder: Path,
    *,
    heads: Sequence[str] = (),
    clips: Sequence[int] = (),
    frames: Sequence[int] = (),
    learning_rates: Sequence[float] = (),
) -> list[Point]:
    """Return every combination, each with a run folder named after it; an empty list keeps the base's value.

    Raises CeflError for the first combination that does not fit 105 slots, before anything is trained.
    """
    points = []
    for head, n, k, rate in itertools.product(
        heads or (base.recipe.head,), clips or (base.recipe.clips,), frames or (base.recipe.frames,),
        learning_rates or (base.recipe.learning_rate,),
    ):  # fmt: skip
        check_sampling(n, k)
        recipe = replace(base.recipe, head=resolve_head(head), clips=n, frames=k, learning_rate=rate)
        name = f"{recipe.head}-n{n}-k{k}" + (f"-lr{rate:g}" if learning_rates else "")
        points.append(replace(base, recipe=recipe, out=folder / name))
    return points


def finished(point: Point, features_identity: str) -> bool:
    """Tell whether the point's run folder was made by what the point asks for today."""
    if not is_whole(point.out):
        return False
    try:
        about = read_run(point.out).about
    except CeflError:  # of another schema
        return False
    wanted = describe(point.manifest, point.recipe, point.protocol)
    same_features = about.get("features", {}).get("identity") == features_identity
    return same_features and all(about.get(key) == value for key, value in wanted.items())


def run_point(point: Point) -> Path:
    """Train one point and return its run folder. What a worker does."""
    device = torch.device(point.device)
    table = read_table(point.features)
    train_heads(point.manifest, table, point.recipe, point.protocol, point.out, device=device, command=point.command)
    return point.out


def tidy(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run, seed and fold: the settings that were swept, then war, uar and locating (0..1)."""
    return pd.DataFrame([row for run in runs for row in _rows(run)])


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    recipe = run.recipe
    for (seed, fold), group in run.predictions().groupby(["seed", "fold"], sort=False):
        known = group[group.holds_apex.notna()] if "holds_apex" in group else group[:0]
        yield {
            "head": recipe.head, "clips": recipe.clips, "frames": recipe.frames, "learning_rate": recipe.learning_rate,
            "seed": seed, "fold": fold, "videos": len(group), "war": war(group.right), "uar": uar(group, run.labels),
            "locating": float(known.holds_apex.astype(float).mean()) if len(known) else float("nan"),
        }  # fmt: skip


def paired_differences(rows: pd.DataFrame, earlier: str, later: str) -> dict[str, Any]:
    """Return how much WAR the later head has over the earlier one on the same fold and seed: mean, std (ddof 1), n."""
    by_head = {head: rows[rows["head"] == head].set_index(["seed", "fold"]).war for head in (earlier, later)}
    difference = (by_head[later] - by_head[earlier]).dropna()
    return {
        "earlier": earlier, "later": later, "mean": float(difference.mean()), "n": len(difference),
        "std_ddof1": float(difference.std(ddof=1)) if len(difference) > 1 else None,
        "better": int((difference > 0).sum()), "worse": int((difference < 0).sum()),
    }  # fmt: skip
