"""Where does everything lie? One function a kind of file, all below the working folder."""

from __future__ import annotations

from pathlib import Path

ARTIFACTS = Path("artifacts")


def manifest_file(dataset: str) -> Path:
    return ARTIFACTS / "manifests" / f"{dataset}.csv"


def weights_file(encoder: str) -> Path:
    return ARTIFACTS / "weights" / f"{encoder}.safetensors"


def features_file(dataset: str) -> Path:
    return ARTIFACTS / "features" / f"{dataset}.h5"


def run_folder(dataset: str, run: str) -> Path:
    return ARTIFACTS / "runs" / dataset / run


def report_folder(dataset: str) -> Path:
    return ARTIFACTS / "reports" / dataset


def sweep_folder(dataset: str) -> Path:
    return ARTIFACTS / "sweeps" / dataset
