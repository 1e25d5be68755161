"""Calibration of a run: one temperature, fitted to its own test predictions, and how far confidence is from accuracy.

Temperature scaling of Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017 (section 4.2): the
logits z of a model become z / T, where T minimizes the negative log-likelihood of videos that the model was not trained on. A
softmax tells z up to a constant, so this is p^(1/T), normalized; with several test-time views p is their mean. T is applied
to the probabilities of each model, before the mean over models, so it changes no label of a single model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

NUM_BINS = 15
"""Bins of the expected calibration error, as in the paper."""
FEW_VIDEOS = 10
"""A bin of fewer predictions says little."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
STEPS = 50
"""Halvings of the interval in which log T lies, each from the sign of the derivative."""
NUM_PARTS = 10
"""Parts of a single test split for the error after calibration, each of whole subjects."""
NUM_DRAWS = 200
SMALLEST = float(np.finfo(np.float32).tiny)
"""Of a probability whose logarithm is taken."""


def calibrate(probabilities: Tensor, temperature: float | None) -> Tensor:
    """Return probabilities (..., C) of a model at a temperature: softmax(log p / T); as they are for None."""
    if temperature is None:
        return probabilities
    return torch.softmax(torch.log(probabilities.clamp_min(SMALLEST)) / temperature, dim=-1)


def fit_temperature(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Return the T in 0.05..20 that minimizes the negative log-likelihood of n predictions (n, C) for labels (n,), indices.

    The likelihood is log-concave in 1/T, so there is one minimum, and the sign of its derivative brackets it. 1 if no
    prediction is wrong: any smaller T would fit better, which such a test cannot justify.
    """
    logits = _logits(probabilities)
    if (logits.argmax(axis=1) == true).all():
        return 1.0
    of_true = logits[np.arange(len(true)), true]
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(STEPS):
        middle = (low + high) / 2
        mean = (_softmax(logits / np.exp(middle)) * logits).sum(axis=1)
        if float((mean - of_true).mean()) < 0:  # the likelihood still rises with 1/T: a smaller T is better
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray) -> float:
    """Return the mean over predictions of |accuracy - mean confidence| of their bin (equation 3 of the paper), in 0..1.

    ``bins``: the bin of each prediction, as equal_width_bins or equal_mass_bins return it.
    """
    gaps = np.bincount(bins, weights=correct.astype(float) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def equal_width_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin 0..14 of each confidence (0..1]: bin i is (i/15, (i+1)/15]."""
    return np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def equal_mass_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin 0..14 of each confidence such that all bins have as many predictions, up to one."""
    bins = np.empty(len(confidence), int)
    bins[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * NUM_BINS // max(1, len(confidence))
    return bins


def cross_fitted(predictions: pd.DataFrame, labels: Sequence[str]) -> tuple[pd.DataFrame, list[float]]:
    """Return the predictions with a face at temperatures that are fitted without them, and these temperatures.

    The temperature of a fold is fitted to all other folds, that of a run with a single fold to all other parts of it. The table
    has columns id, true (index), p_<label> as they were, and q_<label> at the temperature; no rows with fewer than two parts.
    """
    table = predictions[predictions.predicted != ""].reset_index(drop=True)
    p = table[[f"p_{label}" for label in labels]].to_numpy(float).reshape(-1, len(labels))
    true = np.array([labels.index(label) for label in table.label], int)
    parts = _parts(table)
    q, temperatures = np.full_like(p, np.nan), []
    names = sorted(set(parts.tolist()))
    for name in names if len(names) > 1 else ():
        inside = parts == name
        temperatures.append(fit_temperature(p[~inside], true[~inside]))
        q[inside] = _softmax(_logits(p[inside]) / temperatures[-1])
    columns = {f"p_{label}": p[:, i] for i, label in enumerate(labels)}
    columns |= {f"q_{label}": q[:, i] for i, label in enumerate(labels)}
    result = pd.DataFrame({"id": table.id, "true": true, **columns})
    return (result if temperatures else result.iloc[:0]), temperatures


def calibration_metrics(predictions: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any] | None:
    """Return the temperature of a run and its calibration, from its test predictions (predictions.py); None without any.

    ``temperature`` is fitted to all of them. All else is of the confidence, the probability of the predicted label,
    ``before`` and ``after``; after is cross-fitted: no prediction is scored at a temperature that it helped to fit.
    ``n``: predictions with a face, videos times seeds. ``parts``: of the cross-fitting, with ``temperature_min`` and ``_max``
    over them. ``ece_…``: expected calibration error in 15 bins of equal width, ``ece_equal_mass_…`` in 15 bins of as many
    predictions; ``ece_noise``: the mean one of as many predictions that are right with exactly their confidence after.
    ``nll_…``: negative log-likelihood in nats. ``confidence_…``: mean. ``seeds_…``: of the mean over the seeds of a video, each
    calibrated; None with one seed. None in place of a number that cannot be computed.
    """
    labels = list(labels)
    table = predictions[predictions.predicted != ""]
    if table.empty:
        return None
    fitted, temperatures = cross_fitted(predictions, labels)
    p = table[[f"p_{label}" for label in labels]].to_numpy(float)
    true = np.array([labels.index(label) for label in table.label], int)
    values: dict[str, Any] = {
        "temperature": fit_temperature(p, true),
        "n": len(table),
        "videos": int(table.id.nunique()),
        "bins": NUM_BINS,
        "parts": len(temperatures),
        "temperature_min": min(temperatures, default=None),
        "temperature_max": max(temperatures, default=None),
        "accuracy": float((p.argmax(axis=1) == true).mean()),
    }
    q = fitted[[f"q_{label}" for label in labels]].to_numpy(float)
    for when, probabilities in (("before", p), ("after", q if len(q) else None)):
        values |= {f"{key}_{when}": value for key, value in _scores(probabilities, true).items()}
    values["ece_noise"] = _noise(q.max(axis=1)) if len(q) else None
    means, of_video = None, true
    if len(q) and predictions.seed.nunique() > 1:
        means, of_video = _mean_over_seeds(fitted, labels)
    values |= {f"seeds_{key}": value for key, value in _scores(means, of_video).items()}
    values["seeds_accuracy"] = None if means is None else float((means.argmax(axis=1) == of_video).mean())
    return values


def reliability(predictions: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return a row per bin of equal width, before and after: columns calibration, low, high, n, confidence, accuracy (0..1).

    Confidence and accuracy are means over the bin, NaN in an empty one. After is cross-fitted; no rows if that cannot be.
    """
    labels = list(labels)
    fitted, _ = cross_fitted(predictions, labels)
    rows = []
    for when, prefix in (("before", "p"), ("after", "q")) if len(fitted) else ():
        probabilities = fitted[[f"{prefix}_{label}" for label in labels]].to_numpy(float)
        confidence = probabilities.max(axis=1)
        correct = probabilities.argmax(axis=1) == fitted.true.to_numpy()
        bins = equal_width_bins(confidence)
        for number in range(NUM_BINS):
            inside = bins == number
            means = (confidence[inside].mean(), correct[inside].mean()) if inside.any() else (np.nan, np.nan)
            rows.append((when, number / NUM_BINS, (number + 1) / NUM_BINS, int(inside.sum()), *means))
    columns = ["calibration", "low", "high", "n", "confidence", "accuracy"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def describe_calibration(values: dict[str, Any]) -> str:
    """Return the calibration of a run in words, e.g. 'temperature 1.50: calibration error 3.1 % (before 7.9 %), n = 168 …'."""
    text = f"temperature {values['temperature']:.2f}"
    if values["ece_after"] is None:
        return f"{text}, its effect not measured: the test is one fold of one subject (n = {values['n']})"
    return (
        f"{text}: calibration error {100 * values['ece_after']:.1f} % (before {100 * values['ece_before']:.1f} %; of perfect "
        f"confidence at this n about {100 * values['ece_noise']:.1f} %), n = {values['n']:,} held-out predictions, "
        f"{values['bins']} bins"
    )


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, SMALLEST))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _parts(table: pd.DataFrame) -> np.ndarray:
    """Return the part of each row: its fold, or with a single fold one of 10 of whole subjects (of videos without subjects)."""
    if table.fold.nunique() > 1:
        return table.fold.to_numpy(str)
    owner = np.where(table.subject != "", "subject " + table.subject, "video " + table.id).astype(str)
    ranked = sorted(set(owner.tolist()), key=lambda name: hashlib.sha256(name.encode()).digest())
    part_of = {name: rank % NUM_PARTS for rank, name in enumerate(ranked)}
    return np.array([part_of[name] for name in owner.tolist()], int)


def _scores(probabilities: np.ndarray | None, true: np.ndarray) -> dict[str, float | None]:
    """Return ece, ece_equal_mass, nll and mean confidence of predictions (n, C), None for each without any."""
    if probabilities is None:
        return dict.fromkeys(("ece", "ece_equal_mass", "nll", "confidence"))
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    return {
        "ece": expected_calibration_error(confidence, correct, equal_width_bins(confidence)),
        "ece_equal_mass": expected_calibration_error(confidence, correct, equal_mass_bins(confidence)),
        "nll": float(-_logits(probabilities)[np.arange(len(true)), true].mean()),
        "confidence": float(confidence.mean()),
    }


def _noise(confidence: np.ndarray) -> float:
    """Return the mean expected calibration error of predictions that are right with exactly their confidence."""
    generator, bins = np.random.default_rng(0), equal_width_bins(confidence)
    draws = (generator.random(len(confidence)) < confidence for _ in range(NUM_DRAWS))
    return float(np.mean([expected_calibration_error(confidence, correct, bins) for correct in draws]))


def _mean_over_seeds(fitted: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over seeds of the calibrated probabilities of each video, and its true label."""
    means = fitted.groupby("id", sort=True)[["true", *(f"q_{label}" for label in labels)]].mean()
    return means.drop(columns="true").to_numpy(), means["true"].to_numpy().astype(int)
