"""Sweeps and ablations: many runs on one feature cache, each trained once.

A run is complete if its folder was written with this very configuration, list of videos, features and code of the heads; all
others are trained again. So an interrupted sweep resumes, and a larger grid trains only its new runs.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ..fold_encoder import FoldEncoder
from ..manifest.manifest import Manifest
from .clip_sampling import check_sampling
from .cross_validation import cross_validate
from .feature_bank import load_table
from .registry import resolve_head
from .run_card import NO_TEXTS, CardTexts
from .run_io import heads_code, read_run, run_config, verify_run
from .train_config import CVConfig, TrainConfig


@dataclass(frozen=True)
class RunSpec:
    """One run of a sweep; picklable, so that it can be sent to a worker process."""

    manifest: Manifest
    features: Path
    config: TrainConfig
    cv: CVConfig
    out: Path
    device: str = "cpu"
    command: str = ""
    force: bool = False
    memory: int | None = None
    card_texts: CardTexts = NO_TEXTS
    processes: int = 1
    """Processes that share ``memory``, or the memory of a machine."""
    table: FeatureTable | None = field(default=None, compare=False, repr=False)
    """The content of ``features`` if it is loaded already; processes of one machine share its memory."""
    fold_encoders: tuple[FoldEncoder, ...] = field(default=(), compare=False, repr=False)
    """Records of the encoders, if ``features`` is a folder with a feature cache for each fold."""
    features_sha256: str = ""
    code: str = ""
    """Hashes of the features and of the code of the heads that a worker must have; '' for any."""
    verify: bool = True
    """Whether a worker compares the features with their checksums when it reads them."""


def with_absolute_paths(spec: RunSpec) -> RunSpec:
    """Return the specification with paths that do not depend on the working folder."""
    manifest = replace(spec.manifest, root=spec.manifest.root.absolute())
    return replace(spec, manifest=manifest, features=spec.features.absolute(), out=spec.out.absolute())


def expand_grid(
    base: RunSpec,
    folder: Path,
    *,
    heads: Sequence[str] = (),
    num_clips: Sequence[int] = (),
    frames_per_clip: Sequence[int] = (),
    learning_rates: Sequence[float] = (),
) -> list[RunSpec]:
    """Return every combination, each with a run folder named after it; an empty list keeps the base's value.

    Raises CeflError for the first combination that does not fit into 105 slots, before anything is trained.
    """
    config = base.config
    grid = itertools.product(
        heads or [config.head],
        num_clips or [config.num_clips],
        frames_per_clip or [config.frames_per_clip],
        learning_rates or [config.learning_rate],
    )
    specs = []
    for head, n, k, rate in grid:
        check_sampling(n, k)
        values = {"head": resolve_head(head), "num_clips": n, "frames_per_clip": k, "learning_rate": rate}
        name = f"{values['head']}-n{n}-k{k}" + (f"-lr{rate:g}" if learning_rates else "")
        specs.append(replace(base, config=_updated(config, values), out=folder / name))
    return specs


def _updated(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.model_validate({**config.model_dump(), **values})
    except ValidationError as error:
        fault = error.errors()[0]
        raise CeflError(f"sweep: {fault['loc'][0]} {fault['input']}: {fault['msg']}") from None


def reason_to_train(spec: RunSpec, features_sha256: str) -> str:
    """Return why a run must be trained, e.g. 'made by other code of the heads'; '' if its folder has just this run."""
    if not spec.out.exists():
        return "new"
    if not verify_run(spec.out):
        return "no complete run in the folder"
    try:
        config = read_run(spec.out).config
    except CeflError:  # of another schema
        return "of another version of ceflpipe"
    if "final" in config:
        return "a final model, without a test"
    if config.get("features", {}).get("sha256") != features_sha256:
        return "trained on other features"
    expected = run_config(spec.manifest, spec.config, spec.cv)
    changed = [key for key in expected if config.get(key) != expected[key]]
    if changed == ["code"]:
        return "made by other code of the heads"
    return f"made with other settings ({', '.join(key for key in changed if key != 'code')})" if changed else ""


def train_run(spec: RunSpec) -> Path:
    """Train one run and return its folder; the task of a worker process.

    Raises CeflError if this worker has other features or other code of the heads than the specification says.
    """
    table = load_table(spec.features, verify=spec.verify) if spec.table is None else spec.table
    pairs = [("code of the heads", spec.code, heads_code()), ("features", spec.features_sha256, table.features_sha256)]
    differences = [
        f"{name} {expected[:16]}, here {own[:16]}" for name, expected, own in pairs if expected not in ("", own)
    ]
    if differences:
        raise CeflError(
            f"worker on {socket.gethostname()}: would not train the run that was asked for: {'; '.join(differences)}; give all "
            "workers the same files and packages, start them again, and run the same command again"
        )
    cross_validate(
        spec.manifest, table, spec.config, spec.cv, spec.out, device=torch.device(spec.device), command=spec.command,
        force=spec.force, memory=spec.memory, processes=spec.processes, card_texts=spec.card_texts,
        fold_encoders=spec.fold_encoders,
    )  # fmt: skip
    return spec.out
