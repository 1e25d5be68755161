"""Many runs over one feature cache: the points of a sweep or the rows of an ablation, each made once.

A point is finished when its run folder says that it was made by this very config, protocol, list of videos and features;
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
from ...cache.hdf5 import read_features
from ..manifest.manifest import Manifest
from .clip_sampling import check_sampling
from .cross_validation import cross_validate
from .metrics import uar, war
from .registry import resolve_head
from .run_io import Run, read_run, run_config, verify_run
from .train_config import CVConfig, TrainConfig


@dataclass(frozen=True)
class RunSpec:
    """One run of a grid; plain values, so that it travels to a worker process."""

    manifest: Manifest
    features: Path
    config: TrainConfig
    cv: CVConfig
    out: Path
    device: str = "cpu"
    command: str = ""


def with_absolute_paths(spec: RunSpec) -> RunSpec:
    """Return the point with paths that mean the same in every working folder."""
    manifest = replace(spec.manifest, root=spec.manifest.root.absolute())
    return replace(spec, manifest=manifest, features=spec.features.absolute(), out=spec.out.absolute())


def expand_grid(
    base: RunSpec,
    folder: Path,
    *,
    heads: Sequence[str] = (),
    clips: Sequence[int] = (),
    frames: Sequence[int] = (),
    learning_rates: Sequence[float] = (),
) -> list[RunSpec]:
    """Return every combination, each with a run folder named after it; an empty list keeps the base's value.

    Raises CeflError for the first combination that does not fit 105 slots, before anything is trained.
    """
    points = []
    for head, n, k, rate in itertools.product(
        heads or (base.config.head,), clips or (base.config.num_clips,), frames or (base.config.frames_per_clip,),
        learning_rates or (base.config.learning_rate,),
    ):  # fmt: skip
        check_sampling(n, k)
        values = {"head": resolve_head(head), "num_clips": n, "frames_per_clip": k, "learning_rate": rate}
        config = base.config.model_copy(update=values)
        name = f"{config.head}-n{n}-k{k}" + (f"-lr{rate:g}" if learning_rates else "")
        points.append(replace(base, config=config, out=folder / name))
    return points


def is_complete(spec: RunSpec, features_identity: str) -> bool:
    """Tell whether the point's run folder was made by what the point asks for today."""
    if not verify_run(spec.out):
        return False
    try:
        about = read_run(spec.out).config
    except CeflError:  # of another schema
        return False
    wanted = run_config(spec.manifest, spec.config, spec.cv)
    same_features = about.get("features", {}).get("identity") == features_identity
    return same_features and all(about.get(key) == value for key, value in wanted.items())


def train_run(spec: RunSpec) -> Path:
    """Train one point and return its run folder. What a worker does."""
    device = torch.device(spec.device)
    table = read_features(spec.features)
    cross_validate(spec.manifest, table, spec.config, spec.cv, spec.out, device=device, command=spec.command)
    return spec.out


def results_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run, seed and fold: the settings that were swept, then war, uar and locating (0..1)."""
    return pd.DataFrame([row for run in runs for row in _rows(run)])


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    config = run.train_config
    for (seed, fold), group in run.predictions().groupby(["seed", "fold"], sort=False):
        known = group[group.apex_hit.notna()] if "apex_hit" in group else group[:0]
        yield {
            "head": config.head, "num_clips": config.num_clips, "frames_per_clip": config.frames_per_clip,
            "learning_rate": config.learning_rate,
            "seed": seed, "fold": fold, "videos": len(group), "war": war(group.correct), "uar": uar(group, run.labels),
            "locating": float(known.apex_hit.astype(float).mean()) if len(known) else float("nan"),
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
