"""The final model of a cross-validated run: trained on all of its videos, with its configuration; it has no test of its own."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Any

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.ownership import RUN_FOLDER
from ..manifest.manifest import Manifest
from .folds import Fold
from .run_io import Run, run_config, verify_run
from .train_config import TrainConfig

ALL_VIDEOS = "all"
"""Name of the only fold of a final model, which seeds its random numbers."""
EXPECTED = "expected_"
"""Before the names of metrics that were measured by the cross-validation, not on the final model."""
SCORES = ("war", "uar", "war_with_face", "recall")


def final_config(reference: Run) -> TrainConfig:
    """Return the configuration with which the final model of a cross-validated run is trained: that of the run.

    A setting that was tuned has the median of what its models chose, the lower one of an even number, so that it is a value that
    was tried.
    """
    return reference.train_config.model_copy(update=tuned_medians(reference))


def tuned_medians(reference: Run) -> dict[str, Any]:
    """Return the median over the models of a run of each setting that was tuned, by its name; none if nothing was."""
    models = reference.settings_by_model()
    return {name: median_low([model[name] for model in models]) for name in reference.cv.tune}


def check_reference(
    reference: Run, manifest: Manifest, config: TrainConfig, features_sha256: str, init_sha256: str = ""
) -> None:
    """Raise CeflError unless a run is a whole cross-validation of these videos, features and code, whose score can be quoted.

    ``init_sha256``: of the checkpoint that training starts from, '' without one.
    """
    path, command = reference.path, reference.config.get("command", "")
    again = f"cross-validate again, then train the final model ({command})"
    if reference.is_final:
        raise CeflError(
            f"{path}: is a final model itself; give the cross-validated run that it belongs to with --cv-run"
        )
    if not verify_run(path):
        raise CeflError(f"{path}: not a complete run, or files of it have changed; {again}")
    if reference.cv.checkpoint != "last":
        raise CeflError(
            f"{path}: kept the epoch with the best test score, and a final model has no test; cross-validate with "
            "ceflpipe train-heads --checkpoint last"
        )
    if not config.epochs:
        raise CeflError(f"{path}: was tested without training (0 epochs), so there is nothing to train on all videos")
    now = run_config(manifest, config, reference.cv) | {"init_sha256": init_sha256}
    before = {"init_sha256": "", **reference.config}
    reasons = {
        "dataset": "is a run on another data set",
        "labels": "has other labels",
        "manifest_sha256": "was trained and tested on another list of videos",
        "code": "was made by other code of the heads",
        "init_sha256": "started from another checkpoint (--init)",
    }
    differences = [text for key, text in reasons.items() if before.get(key) != now[key]]
    if reference.config["features"]["sha256"] != features_sha256:
        differences.append("was trained on other features")
    if differences:
        raise CeflError(f"{path}: {', '.join(differences)}, so its score is not that of this final model; {again}")


def describe_reference(reference: Run) -> dict[str, Any]:
    """Return what a final model records of the run that it belongs to: ``final`` of run.json."""
    return {
        "run": reference.path.resolve().name,
        "sums_sha256": sha256_of(reference.path / RUN_FOLDER.sums_file),
        "folds": reference.metrics["folds"],
        "command": reference.config.get("command", ""),
        "tuned": tuned_medians(reference),
    }


def all_videos(folds: Sequence[Fold]) -> Fold:
    """Return the fold that trains on every video of the folds and tests none."""
    indices = np.unique(np.concatenate([part for fold in folds for part in (fold.train, fold.test)]))
    return Fold(ALL_VIDEOS, indices, indices[:0])


def expected_metrics(reference: Run, num_videos: int) -> dict[str, Any]:
    """Return the metrics of a final model: numbers of videos and seeds, and the scores to expect, each marked so.

    Scores and calibration are those of the cross-validation, scores as means and both standard deviations over its folds and
    seeds. Their models saw fewer videos each than the final one.
    """
    metrics, locating = reference.metrics, reference.metrics["locating_accuracy"]
    expected = {f"{EXPECTED}{name}": metrics[name] for name in SCORES}
    expected[f"{EXPECTED}locating_accuracy"] = locating["predicted_label"] if locating else None
    expected[f"{EXPECTED}calibration"] = reference.calibration
    return {"final": True, "videos": num_videos, "seeds": metrics["seeds"], "optimistic": False, **expected}
