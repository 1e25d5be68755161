"""Calibration, against SciPy's minimum of the likelihood, against counting by hand, and against labels sampled at a temperature."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import make_small_dataset, train
from scipy.optimize import minimize_scalar

from ceflpipe.stages.heads.calibration import (
    calibrate,
    calibration_metrics,
    cross_fitted,
    describe_calibration,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from ceflpipe.stages.heads.run_card import run_card
from ceflpipe.stages.heads.run_io import Run, read_run

LABELS = ("anger", "fear", "happiness")


def softmax(z):
    return torch.softmax(torch.tensor(z), dim=-1).numpy()


def sampled(temperature, count, seed=0):
    """Return probabilities (count, 3), and labels that are sampled at a temperature of them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 4, (count, 3))
    true = (softmax(z / temperature).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return softmax(z), true


def table(temperature=2.0, count=300, folds=5, seeds=1, missing=0):
    parts = []
    for seed in range(seeds):
        p, true = sampled(temperature, count)
        p = softmax(np.log(p) + np.random.default_rng(seed + 9).normal(0, 0.5, p.shape))
        part = pd.DataFrame({f"p_{label}": p[:, i] for i, label in enumerate(LABELS)})
        part["id"] = [f"v{i}" for i in range(count)]
        part["subject"] = [f"s{i // 4}" for i in range(count)]
        part["label"], part["predicted"] = np.array(LABELS)[true], np.array(LABELS)[p.argmax(axis=1)]
        part["fold"], part["seed"] = [str(i % folds) for i in range(count)], seed
        part.loc[: missing - 1, ["predicted", *(f"p_{label}" for label in LABELS)]] = ["", np.nan, np.nan, np.nan]
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(correct=frame.label == frame.predicted)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_is_that_of_the_labels_and_the_minimum_of_scipy(temperature):
    p, true = sampled(temperature, 20_000)

    def loss(log_t):
        return -np.log(softmax(np.log(p) / np.exp(log_t))[np.arange(len(true)), true]).mean()

    fitted = fit_temperature(p, true)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert fitted == pytest.approx(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x), rel=1e-3)


def test_a_temperature_divides_logits_and_changes_no_label():
    z = torch.randn(4, 50, 7, generator=torch.Generator().manual_seed(0)) * 5
    calibrated = calibrate(torch.softmax(z, dim=-1), 1.7)
    torch.testing.assert_close(calibrated, torch.softmax(z / 1.7, dim=-1))
    assert torch.equal(calibrated.argmax(dim=-1), z.argmax(dim=-1))
    torch.testing.assert_close(calibrate(torch.tensor([[1.0, 0.0]]), 2.0), torch.tensor([[1.0, 0.0]]))


def test_without_a_wrong_prediction_nothing_is_made_sharper():
    p = softmax(np.array([[3.0, 0, 0], [0, 1, 0], [0, 0, 2]]))
    assert fit_temperature(p, np.array([0, 1, 2])) == 1
    assert fit_temperature(p, np.array([1, 2, 0])) == pytest.approx(20)  # worse than chance: no confidence at all


def test_the_error_is_that_counted_by_hand():
    """Two bins: (12/15, 13/15] with 0.85 right once in two, and (14/15, 1] with 0.95 and 0.99, both right."""
    confidence, correct = np.array([0.85, 0.81, 0.95, 0.99]), np.array([True, False, True, True])
    bins = equal_width_bins(confidence)
    assert bins.tolist() == [12, 12, 14, 14]
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(0.5 * 0.33 + 0.5 * 0.03)
    assert equal_width_bins(np.array([1.0, 1 / 15, 0.5])).tolist() == [14, 0, 7]
    assert np.bincount(equal_mass_bins(np.random.default_rng(0).random(151))).tolist() == [11] + [10] * 14


def test_no_prediction_is_scored_at_a_temperature_that_it_helped_to_fit():
    """The labels of a fold are all changed: its own calibrated probabilities stay, those of all others move."""
    before = table()
    after = before.assign(
        label=before.label.where(
            before.fold != "2", before.label.map(dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)))
        )
    )
    first, second = (cross_fitted(frame, LABELS)[0]["q_fear"].to_numpy() for frame in (before, after))
    own = (before.fold == "2").to_numpy()
    np.testing.assert_array_equal(first[own], second[own])
    assert (np.abs(first[~own] - second[~own]) > 0).all()


def test_one_fold_is_split_by_whole_subjects():
    frame = table(folds=1)
    fitted, temperatures = cross_fitted(frame, LABELS)
    assert len(temperatures) == 10
    used = np.log(fitted.p_fear / fitted.p_anger) / np.log(fitted.q_fear / fitted.q_anger)
    assert (used.groupby(frame.subject).std() < 1e-6).all()
    assert used.round(6).nunique() == 10
    nothing, none = cross_fitted(frame[frame.subject == "s0"], LABELS)
    assert (len(nothing), none) == (0, [])


def test_the_metrics_say_n_and_improve_where_confidence_is_too_high():
    got = calibration_metrics(table(temperature=3.0, count=3000, missing=30), LABELS)
    assert (got["n"], got["videos"], got["parts"]) == (2970, 2970, 5)
    assert got["ece_after"] < 0.5 * got["ece_before"]
    assert got["nll_after"] < got["nll_before"]
    assert got["confidence_after"] == pytest.approx(got["accuracy"], abs=0.03)
    assert got["temperature_min"] <= got["temperature"] <= got["temperature_max"]
    assert got["ece_noise"] == pytest.approx(got["ece_after"], abs=0.01)
    assert "n = 2,970 held-out predictions" in describe_calibration(got)
    assert got["seeds_ece"] is None
    assert calibration_metrics(table(missing=300), LABELS) is None


def test_the_mean_over_seeds_is_at_most_as_confident():
    frame = table(seeds=3)
    got, (fitted, _) = calibration_metrics(frame, LABELS), cross_fitted(frame, LABELS)
    mean = fitted.groupby("id")[[f"q_{label}" for label in LABELS]].mean()
    assert got["seeds_confidence"] == pytest.approx(mean.max(axis=1).mean())
    assert got["seeds_confidence"] < got["confidence_after"]
    assert (got["n"], got["videos"]) == (900, 300)


def test_bins_of_the_figure_hold_every_prediction():
    frame = table(missing=7)
    bins = reliability(frame, LABELS)
    assert bins.groupby("calibration").n.sum().to_dict() == {"before": 293, "after": 293}
    known = bins[bins.n > 0]
    assert ((known.low < known.confidence) & (known.confidence <= known.high)).all()
    before = known[known.calibration == "before"]
    assert (before.accuracy * before.n).sum() == pytest.approx(frame.correct[7:].sum())


def test_a_run_has_its_temperature_and_one_of_an_earlier_version_gets_it_from_its_predictions(tmp_path):
    run = train(make_small_dataset(tmp_path, with_videos=False), "mean", epochs=3)
    stored = read_run(run.path)
    again = calibration_metrics(run.predictions(), run.labels)
    assert again is not None
    assert all(
        stored.metrics["calibration"][key] == pytest.approx(again[key], rel=1e-3)
        for key in ("temperature", "nll_after")
    )
    assert stored.temperature == stored.metrics["calibration"]["temperature"]
    assert f"emperature {stored.temperature:.2f}" in stored.card()
    earlier = Run(run.path, run.config, {key: value for key, value in run.metrics.items() if key != "calibration"})
    assert earlier.temperature == pytest.approx(stored.temperature, rel=1e-3)
    card = run_card(earlier.config, earlier.metrics, earlier.predictions(), earlier.history())
    assert "### Calibration" in card
    final = Run(run.path, run.config | {"final": {}}, {"final": True})
    assert final.temperature is None
