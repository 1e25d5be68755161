"""Layout of artifacts/: one function per kind of file, relative to the working folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..stages.heads.run_io import Run

ARTIFACTS = Path("artifacts")


def manifest_file(dataset: str) -> Path:
    return ARTIFACTS / "manifests" / f"{dataset}.csv"


def manifest_made_with_file(manifest: Path) -> Path:
    """The settings that a data set's manifest was made with, as JSON beside it."""
    return manifest.with_name(f"{manifest.name}.made-with.json")


def weights_file(encoder: str) -> Path:
    return ARTIFACTS / "weights" / f"{encoder}.safetensors"


def run_encoder_file(run: Run) -> Path:
    """Return where the encoder file lies that a run was trained with."""
    return weights_file(json.loads(run.about["features"]["settings"])["encoder"])


def features_file(dataset: str) -> Path:
    return ARTIFACTS / "features" / f"{dataset}.h5"


def timing_file(features: Path) -> Path:
    """What the last run of stage one that did anything took, as JSON beside its cache."""
    return features.with_name(f"{features.name}.timing.json")


def run_folder(dataset: str, run: str) -> Path:
    return ARTIFACTS / "runs" / dataset / run


def report_folder(dataset: str) -> Path:
    return ARTIFACTS / "reports" / dataset


def sweep_folder(dataset: str) -> Path:
    return ARTIFACTS / "sweeps" / dataset


def sweep_file(dataset: str) -> Path:
    """A row per point, fold and seed: what `ceflpipe sweep` writes and the report draws."""
    return sweep_folder(dataset) / "sweep.csv"
