"""Intervals of paired differences: SciPy's t interval for independent folds, and coverage over simulated cross-validations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ceflpipe.stages.heads.comparison import paired_differences, verdict
from ceflpipe.stages.heads.intervals import CONFIDENCE, corrected_interval

FOLDS, SIZE, DIM, SEEDS = 10, 60, 6, 3


def test_without_shared_training_videos_it_is_the_ordinary_t_interval():
    values = [0.1, -0.05, 0.2, 0.15, 0.0]
    expected = stats.t.interval(CONFIDENCE, 4, loc=np.mean(values), scale=stats.sem(values))
    assert corrected_interval(values, 0) == pytest.approx(expected)
    wider = stats.t.interval(
        CONFIDENCE, 4, loc=np.mean(values), scale=np.sqrt((1 / 5 + 1 / 4) * np.var(values, ddof=1))
    )
    assert corrected_interval(values, 1 / 4) == pytest.approx(wider)
    assert corrected_interval([0.1], 0.25) is None


def accuracies(x, y, train, test, random):
    """Return the accuracies (seeds, 2) of two ways to learn a linear classifier, on one fold: with few or all features, from a
    random half of the training data each time, as seeds differ."""
    scores = np.zeros((SEEDS, 2))
    for seed in range(SEEDS):
        part = random.permutation(train)[: len(train) * 3 // 4]
        for way, features in enumerate((2, DIM)):
            center = [x[part][y[part] == label, :features].mean(axis=0) for label in (0, 1)]
            direction, middle = center[1] - center[0], (center[0] + center[1]) / 2
            scores[seed, way] = (((x[test, :features] - middle) @ direction > 0) == y[test]).mean()
    return scores


def sample(random, size):
    y = np.arange(size) % 2
    return random.normal(size=(size, DIM)) + 0.45 * (2 * y[:, None] - 1) * (np.arange(DIM) < 4), y


def test_over_cross_validations_of_new_data_the_interval_covers_the_true_difference():
    """Two classifiers, 10 folds, 3 seeds, 300 data sets. The truth is the mean difference on 40 new data sets of the training size
    and many test points. The interval that takes all 30 pairs for independent covers far less than it says."""
    random = np.random.default_rng(3)
    truths = []
    for _ in range(40):
        x, y = sample(random, SIZE * (FOLDS - 1) // FOLDS)
        new_x, new_y = sample(random, 2000)
        scores = accuracies(np.r_[x, new_x], np.r_[y, new_y], np.arange(len(y)), len(y) + np.arange(2000), random)
        truths.append(scores[:, 1] - scores[:, 0])
    truth, covered, naive = np.mean(truths), 0, 0
    for _ in range(300):
        x, y = sample(random, SIZE)
        order = random.permutation(SIZE).reshape(FOLDS, -1)
        rows = []
        for fold, test in enumerate(order):
            train = np.setdiff1d(order, test)
            for seed, (few, all_of_them) in enumerate(accuracies(x, y, train, test, random)):
                values = {"seed": seed, "fold": str(fold), "videos": len(test), "train_videos": len(train)}
                rows += [values | {"head": "few", "war": few}, values | {"head": "all", "war": all_of_them}]
        table = pd.DataFrame(rows)
        pair = paired_differences(table, "few", "all")
        covered += pair["low"] <= truth <= pair["high"]
        error = pair["std_ddof1"] / np.sqrt(pair["n"])
        naive += abs(pair["mean"] - truth) <= stats.t.ppf(0.975, pair["n"] - 1) * error
    assert covered / 300 > CONFIDENCE - 0.02
    assert naive / 300 < 0.85


def rows_of(*scores):
    """Rows of two heads: scores (head, seed, fold, war); ten test and ninety training videos each."""
    return pd.DataFrame(
        [{"head": h, "seed": s, "fold": f, "war": w, "videos": 10, "train_videos": 90} for h, s, f, w in scores]
    )


def test_seeds_of_a_fold_are_averaged_first_so_that_more_of_them_make_no_more_folds():
    once = [(h, 1, str(f), 0.5 + 0.01 * f * (h == "b")) for h in "ab" for f in range(6)]
    thrice = [(h, s, f, w) for h, _, f, w in once for s in (1, 2, 3)]
    first, second = (paired_differences(rows_of(*scores), "a", "b") for scores in (once, thrice))
    assert (first["folds"], second["folds"], second["n"]) == (6, 6, 18)
    assert (second["low"], second["high"]) == pytest.approx((first["low"], first["high"]))
    expected = corrected_interval([0.01 * f for f in range(6)], 10 / 90)
    assert (first["low"], first["high"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([0.1, 0.11, 0.12], "higher"),
        ([-0.1, -0.11, -0.12], "lower"),
        ([0.1, 0.3, -0.1], "no difference shown"),
        ([0.0, 0.0, 0.0], "no difference shown"),
        ([0.4], "no interval from one fold"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(gains, words):
    scores = [(h, 1, str(f), 0.5 + gain * (h == "b")) for h in "ab" for f, gain in enumerate(gains)]
    assert verdict(paired_differences(rows_of(*scores), "a", "b")) == words
