"""Run folders: layout, writing, reading and verification.

RUN/run.json            what was run on what: config, labels, folds, features, versions, command
RUN/metrics.json        the numbers (metrics.py), nested two deep, so that tools can tabulate them
RUN/predictions/*.csv   one file per fold (predictions.py)
RUN/history.csv         per seed, fold and epoch: learning rate, loss, accuracy on train, WAR and UAR on test
RUN/SHA256SUMS          of all files above and below, as sha256sum -c reads them
RUN/weights.safetensors every model's parameters along their first axis, in the order of run.json's models
"""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...cache.atomic import atomic_write_dir, read_json, resolve_inside, safe_name, sha256_of, write_json, write_text
from ...cache.errors import CeflError
from ...cache.fingerprint import ExtractionSettings
from ..manifest.manifest import Manifest
from .registry import build_head
from .train_config import CVConfig, TrainConfig

SCHEMA = 2
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Run:
    """A finished run: ``about`` is run.json, ``metrics`` is metrics.json."""

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["labels"])

    @property
    def train_config(self) -> TrainConfig:
        return TrainConfig(**self.config["train"])

    @property
    def cv(self) -> CVConfig:
        return CVConfig(**self.config["cv"])

    def describe_cv(self) -> str:
        """Return folds and seeds in words, e.g. '10 subject-wise folds, 3 seeds'."""
        return self.cv.describe(self.metrics["folds"])

    @property
    def extraction_settings(self) -> ExtractionSettings:
        """Settings that the features the run was trained on were extracted with."""
        return ExtractionSettings(**self.config["features"]["settings"])

    def predictions(self) -> pd.DataFrame:
        files = sorted((self.path / "predictions").glob("*.csv"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise CeflError(f"{self.path}/predictions: no CSV in it; make the run again with ceflpipe train-heads")
        for file in files:
            _verified(self.path, file)
        kinds = {"id": str, "subject": str, "label": str, "predicted": str, "fold": str, "status": str}
        return pd.concat([_read_predictions(file, kinds) for file in files], ignore_index=True)

    def history(self) -> pd.DataFrame:
        return pd.read_csv(_verified(self.path, self.path / "history.csv"), dtype={"fold": str})

    def head(self) -> nn.Module:
        """Return all models of the run as one batched head; raises CeflError where the weights do not fit."""
        file = _verified(self.path, self.path / "weights.safetensors")
        head = build_head(self.train_config.head, len(self.config["models"]), self.config["dim"], len(self.labels))
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise CeflError(f"{file}: cannot be read ({error}); make the run again with ceflpipe train-heads") from None
        try:
            head.load_state_dict(state)
        except RuntimeError as error:
            problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise CeflError(
                f"{file}: not the weights of this run's head {self.train_config.head}: {problems}"
            ) from None
        return head.eval()


def _read_predictions(file: Path, kinds: dict[str, type]) -> pd.DataFrame:
    """Read a fold's rows: empty texts stay empty texts, empty numbers (of videos nobody could judge) are NaN."""
    numbers = [name for name in pd.read_csv(file, nrows=0).columns if name not in kinds]
    return pd.read_csv(file, dtype=kinds, keep_default_na=False, na_values=dict.fromkeys(numbers, ""))


def run_config(manifest: Manifest, config: TrainConfig, cv: CVConfig) -> dict[str, Any]:
    """Return what decides a run's result besides its features; runs that agree in all of it are the same run."""
    lines = [f"{row.id} {row.label} {row.subject} {row.split} {row.fold} {row.apex}" for row in manifest.entries]
    return {
        "dataset": manifest.name,
        "labels": list(manifest.labels),
        "videos_identity": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "train": config.model_dump(),
        "cv": cv.model_dump(),
    }


def write_run(
    path: Path,
    config: dict[str, Any],
    metrics: dict[str, Any],
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    head: nn.Module,
) -> Run:
    """Write a run folder in one step: it is there whole, or the old one still is."""
    config = {"schema": SCHEMA, **config}
    with atomic_write_dir(path) as folder:
        write_json(folder / "run.json", config)
        write_json(folder / "metrics.json", metrics)
        (folder / "predictions").mkdir()
        for fold, table in predictions.groupby("fold", sort=False):
            name = str(fold) if re.fullmatch(r"[\w-]+", str(fold)) else safe_name(str(fold))
            table.to_csv(folder / "predictions" / f"fold-{name}.csv", index=False, float_format="%.6g")
        history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        state = {key: value.detach().cpu().contiguous() for key, value in head.state_dict().items()}
        save_file(state, folder / "weights.safetensors")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        write_text(folder / SUMS, "".join(f"{sha256_of(f)}  {f.relative_to(folder).as_posix()}\n" for f in files))
    return Run(path, config, metrics)


def read_run(path: Path) -> Run:
    """Open a run folder; raises CeflError when it is not one."""
    if not (path / "run.json").is_file():
        hint = _sibling_runs(path)
        raise CeflError(f"{path}: not a run folder (no run.json in it){hint}; make one with ceflpipe train-heads")
    about = read_json(_verified(path, path / "run.json"), "a run's description")
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise CeflError(f"{path}/run.json: not a run of schema {SCHEMA}; make it again with ceflpipe train-heads")
    return Run(path, about, read_json(_verified(path, path / "metrics.json"), "a run's metrics"))


def verify_run(path: Path) -> bool:
    """Tell whether every file of a run folder is there as it was written."""
    try:
        names = [line.partition("  ")[2] for line in (path / SUMS).read_text(encoding="utf-8").splitlines()]
        for name in names:
            _verified(path, resolve_inside(path, name))
    except (CeflError, OSError, UnicodeDecodeError):
        return False
    return bool(names)


def _verified(run: Path, file: Path) -> Path:
    """Return ``file``, or raise CeflError where its bytes are not those that the run was written with."""
    again = "make the run again with ceflpipe train-heads"
    try:
        lines = (run / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = sha256_of(file)
    except (OSError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: cannot be checked ({error}); {again}") from None
    if sums.get(file.relative_to(run).as_posix()) != found:
        raise CeflError(f"{file}: not as it was written (its hash is not the one in {SUMS}); {again}")
    return file


def _sibling_runs(path: Path) -> str:
    near = sorted(file.parent.name for file in path.glob("*/run.json")) if path.is_dir() else []
    return f"; it holds the runs {', '.join(near)}" if near else ""


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a torch checkpoint, plain or under 'state_dict'; code in the file is never run."""
    if not path.is_file():
        raise CeflError(f"{path}: no such checkpoint")
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError, SafetensorError) as error:
        raise CeflError(f"{path}: not a checkpoint of plain tensors ({str(error).splitlines()[:1]})") from None
    nested: Any = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not isinstance(nested, dict):
        raise CeflError(f"{path}: holds no state dict")
    tensors = {key: value for key, value in nested.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CeflError(f"{path}: holds no state dict")
    return tensors
