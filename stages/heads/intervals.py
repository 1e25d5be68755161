"""Confidence intervals of paired differences over the folds of a cross-validation. The only module that imports SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

CONFIDENCE = 0.95


def corrected_interval(differences: Sequence[float], test_to_train: float) -> tuple[float, float] | None:
    """Return the interval, at CONFIDENCE, of the expected difference between two ways of training; None for fewer than two folds.

    ``differences``: one per fold, of the same test videos; seeds are averaged within a fold before, since they share its
    videos. ``test_to_train``: number of test videos of a fold divided by that of its training videos.

    Folds share most of their training videos, so that the differences are correlated, and their variance over their number J is
    less than the variance of their mean. The corrected resampled t interval takes the variance times (1 / J + test / train)
    instead, with J - 1 degrees of freedom: Nadeau & Bengio, Inference for the Generalization Error, Machine Learning 52 (2003),
    239-281; for the folds of a cross-validation: Bouckaert & Frank, PAKDD 2004, 3-12.
    """
    values = np.asarray(differences, float)
    count = len(values)
    if count < 2:
        return None
    error = np.sqrt((1 / count + test_to_train) * values.var(ddof=1))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1) * error)
    return float(values.mean()) - half, float(values.mean()) + half
