"""Run folders: layout, writing, reading and verification.

RUN/run.json             configuration, data set, labels, folds, features, versions, command
RUN/metrics.json         metrics (metrics.py), nested two deep, so that other tools can tabulate them
RUN/predictions/*.csv    one file per fold (predictions.py)
RUN/history.csv          per seed, fold and epoch: learning rate, loss and accuracy on train, WAR and UAR on test
RUN/tuning.csv           per seed, fold and candidate of the tuning: its values and held-out score (tuning.py); else only columns
RUN/weights.safetensors  parameters; the models are along the first axis, in the order of ``models`` in run.json
RUN/README.md            model card (run_card.py)
RUN/SHA256SUMS           checksums of all these files, in the format of sha256sum -c

A final model (final_model.py) has the same files, but no predictions: ``final`` in run.json names the cross-validated run whose
scores its metrics.json quotes, each marked as expected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...cache.atomic import read_json, resolve_inside, safe_name, sha256_of, write_json, write_text
from ...cache.code_hash import code_hash
from ...cache.errors import CeflError, first_line
from ...cache.features import VideoIndex
from ...cache.fingerprint import ExtractionSettings
from ...cache.ownership import RUN_FOLDER, write_owned_folder
from ..manifest.manifest import Manifest
from .calibration import calibration_metrics
from .chunks import concatenate_weights
from .convergence import late_loss_decrease
from .feature_bank import sources_sha256
from .registry import build_head
from .run_card import run_card
from .train_config import TUNED_SETTINGS, CVConfig, TrainConfig

SCHEMA = 2
SUMS_FILE = RUN_FOLDER.sums_file
CARD_FILE = "README.md"
"""Model card, under the name that hubs show."""
RETRAIN = "train again with ceflpipe train-heads"
TEXT_COLUMNS: dict[str, type] = dict.fromkeys(("id", "subject", "label", "predicted", "fold", "status"), str)


@dataclass(frozen=True)
class Run:
    """A finished run: ``config`` is run.json, ``metrics`` is metrics.json."""

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["labels"])

    @property
    def is_final(self) -> bool:
        """Whether this is a final model, trained on all videos and not tested, rather than a cross-validated run."""
        return "final" in self.config

    @property
    def train_config(self) -> TrainConfig:
        return TrainConfig(**self.config["train"])

    @property
    def cv(self) -> CVConfig:
        return CVConfig(**self.config["cv"])

    def describe_cv(self) -> str:
        """Return folds and seeds in words, e.g. '10 subject-wise folds, 3 seeds'; of a final model those behind its scores."""
        return self.cv.describe((self.config["final"] if self.is_final else self.metrics)["folds"])

    @property
    def extraction_settings(self) -> ExtractionSettings:
        """Extraction settings of the features that the run was trained on."""
        return ExtractionSettings(**self.config["features"]["settings"])

    def was_made_of(self, videos: VideoIndex) -> bool:
        """Return whether the run was trained and tested on the source files of a cache, of which this is the index."""
        ids = {video_id for fold in self.config["folds"].values() for video_id in fold}.union(
            self.config.get("train_only", ())
        )
        return self.config["features"].get("sources_sha256") == sources_sha256(ids, videos)

    @property
    def calibration(self) -> dict[str, Any] | None:
        """Temperature and calibration errors (calibration_metrics); of a final model those of its cross-validation.

        Of a cross-validated run that an earlier version wrote they are computed from its predictions. None for such a final
        model, and where no test video had a face.
        """
        key = "expected_calibration" if self.is_final else "calibration"
        if key in self.metrics or self.is_final:
            return self.metrics.get(key)
        return calibration_metrics(self.predictions(), self.labels)

    @property
    def temperature(self) -> float | None:
        """Temperature of the probabilities of each model (calibration.py); None if it is not known."""
        return self.calibration["temperature"] if self.calibration else None

    def predictions(self) -> pd.DataFrame:
        """Read the predictions of all folds; empty texts stay empty texts, empty numbers are NaN.

        Raises CeflError for a final model.
        """
        if self.is_final:
            raise CeflError(
                f"{self.path}: a final model, trained on all videos, so it has no test predictions; give the cross-validated run "
                f"{self.config['final']['run']} that it belongs to"
            )
        files = sorted((self.path / "predictions").glob("*.csv"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise CeflError(f"{self.path}/predictions: no CSV in it; {RETRAIN}")
        return pd.concat([_read_predictions(_verified(self.path, file)) for file in files], ignore_index=True)

    def history(self) -> pd.DataFrame:
        return pd.read_csv(_verified(self.path, self.path / "history.csv"), dtype={"fold": str})

    def tuning(self) -> pd.DataFrame:
        """Return a row per seed, fold and candidate of the tuning (tuning.TUNING_COLUMNS); no rows if nothing was tuned."""
        return pd.read_csv(_verified(self.path, self.path / "tuning.csv"), dtype={"fold": str})

    def settings_by_model(self) -> list[dict[str, Any]]:
        """Return seed, fold, learning_rate, weight_decay and epochs of each model: tuned, or those of the configuration."""
        config = self.train_config.model_dump(include=set(TUNED_SETTINGS))
        return [config | model for model in self.config["models"]]

    def train_accuracy(self) -> float | None:
        """Return the accuracy on the training videos in the last epoch, the mean over folds and seeds; None without epochs."""
        history = self.history()
        return float(history.groupby(["seed", "fold"]).train_accuracy.last().mean()) if len(history) else None

    def late_loss_decrease(self) -> float | None:
        """Return the share of the whole decrease of the training loss that came at the end (convergence.py)."""
        return late_loss_decrease(self.history())

    def card(self) -> str:
        """Return the model card, as Markdown; of a run of an older version, which has none, it is made."""
        file = self.path / CARD_FILE
        if file.is_file() or self.is_final:
            return _verified(self.path, file).read_text(encoding="utf-8")
        return run_card(self.config, self.metrics, self.predictions(), self.history())

    def head(self) -> nn.Module:
        """Return all models of the run as one batched head; raises CeflError if the weights do not fit."""
        file = _verified(self.path, self.path / "weights.safetensors")
        name = self.train_config.head
        head = build_head(name, len(self.config["models"]), self.config["dim"], len(self.labels))
        try:
            head.load_state_dict(load_file(file))
        except (OSError, SafetensorError) as error:
            raise CeflError(f"{file}: cannot be read ({error}); {RETRAIN}") from None
        except RuntimeError as error:
            problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise CeflError(f"{file}: not the weights of this run's head {name}: {problems}; {RETRAIN}") from None
        return head.eval()


def _read_predictions(file: Path) -> pd.DataFrame:
    numbers = [name for name in pd.read_csv(file, nrows=0).columns if name not in TEXT_COLUMNS]
    return pd.read_csv(file, dtype=TEXT_COLUMNS, keep_default_na=False, na_values=dict.fromkeys(numbers, ""))


def heads_code() -> str:
    """Return the hash of the code of the heads that this process has loaded."""
    return code_hash("stages/heads/cross_validation.py")


heads_code()  # now: a file may be edited while a process that has loaded it runs


def run_config(manifest: Manifest, config: TrainConfig, cv: CVConfig) -> dict[str, Any]:
    """Return everything but the features that decides a run's result; runs that agree in all of it are the same run."""
    lines = [f"{e.id} {e.label} {e.subject} {e.split} {e.fold} {e.apex}" for e in manifest.entries]
    return {
        "dataset": manifest.name,
        "labels": list(manifest.labels),
        "manifest_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "train": config.model_dump(mode="json"),
        "cv": cv.model_dump(mode="json"),
        "code": heads_code(),
    }


def write_run(
    path: Path,
    config: dict[str, Any],
    metrics: dict[str, Any],
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    weights: Sequence[Path],
    card: str,
    tuning: pd.DataFrame,
    *,
    force: bool = False,
) -> Run:
    """Write a run folder in one step: if that is interrupted, the old folder stays as it was.

    ``weights``: files of batched heads whose models follow one another. ``card``: the model card, as Markdown.
    Raises CeflError if the folder holds files that are not those of a run; with ``force`` they are kept.
    """
    config = {"schema": SCHEMA, **config}
    with write_owned_folder(path, "--out", RUN_FOLDER, force=force) as folder:
        write_json(folder / "run.json", config)
        write_json(folder / "metrics.json", metrics)
        for fold, table in predictions.groupby("fold", sort=False) if len(predictions) else ():
            (folder / "predictions").mkdir(exist_ok=True)
            name = str(fold) if re.fullmatch(r"[\w-]+", str(fold)) else safe_name(str(fold))
            table.to_csv(folder / "predictions" / f"fold-{name}.csv", index=False, float_format="%.6g")
        history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        tuning.to_csv(folder / "tuning.csv", index=False, float_format="%.6g")
        concatenate_weights(weights, folder / "weights.safetensors")
        write_text(folder / CARD_FILE, card)
    return Run(path, config, metrics)


def read_run(path: Path) -> Run:
    """Open a run folder; raises CeflError if it is not one, or run.json or metrics.json has changed since it was written."""
    if not (path / "run.json").is_file():
        runs = ", ".join(sorted(file.parent.name for file in path.glob("*/run.json")))
        hint = f"; runs in it: {runs}" if runs else ""
        raise CeflError(f"{path}: not a run folder (no run.json in it){hint}; make one with ceflpipe train-heads")
    config = read_json(_verified(path, path / "run.json"), "the description of a run")
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        raise CeflError(f"{path}/run.json: not a run of schema {SCHEMA}; {RETRAIN}")
    run = Run(path, config, read_json(_verified(path, path / "metrics.json"), "the metrics of a run"))
    try:
        _ = run.train_config, run.cv, run.extraction_settings
    except (ValidationError, TypeError, KeyError) as error:
        raise CeflError(f"{path}/run.json: not the configuration of a run ({first_line(error)}); {RETRAIN}") from None
    return run


def verify_run(path: Path) -> bool:
    """Return whether every file of a run folder is there and unchanged."""
    try:
        names = _read_sums(path)
        for name in names:
            _verified(path, resolve_inside(path, name))
    except (CeflError, OSError, UnicodeDecodeError):
        return False
    return bool(names)


def _read_sums(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a run folder lists."""
    lines = (path / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _verified(run: Path, file: Path) -> Path:
    """Return ``file``; raises CeflError if its bytes have changed since the run was written."""
    try:
        matches = _read_sums(run).get(file.relative_to(run).as_posix()) == sha256_of(file)
    except (OSError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: cannot be verified ({error}); {RETRAIN}") from None
    if not matches:
        raise CeflError(f"{file}: checksum mismatch with {SUMS_FILE}; {RETRAIN}")
    return file
