"""Metrics, against scikit-learn and against counting by hand."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from ceflpipe.pipeline.console import describe_reachable
from ceflpipe.stages.heads.metrics import compute_metrics, confusion_matrix, mean_std, per_class_recall, uar, war

LABELS = ("anger", "fear", "happiness", "sadness")


def table(seed=0, count=200, missing=0):
    rng = np.random.default_rng(seed)
    label = rng.choice(LABELS, count, p=[0.5, 0.2, 0.2, 0.1])
    predicted = np.where(rng.random(count) < 0.6, label, rng.choice(LABELS, count))
    predicted[:missing] = ""
    frame = pd.DataFrame({"id": [str(i) for i in range(count)], "label": label, "predicted": predicted})
    frame["fold"], frame["seed"] = [str(i % 5) for i in range(count)], 1
    frame["correct"] = frame.label == frame.predicted
    return frame


def test_war_uar_and_confusion_match_scikit_learn():
    t = table()
    assert war(t.correct) == pytest.approx((t.label == t.predicted).mean())
    assert uar(t.label, t.correct, LABELS) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(t.label, t.predicted)
    )
    assert list(per_class_recall(t.label, t.correct, LABELS).values()) == pytest.approx(
        sklearn.metrics.recall_score(t.label, t.predicted, labels=LABELS, average=None)
    )
    np.testing.assert_array_equal(
        confusion_matrix(t, LABELS)[:, :-1], sklearn.metrics.confusion_matrix(t.label, t.predicted, labels=LABELS)
    )


def test_the_recall_of_a_label_without_test_videos_is_undefined_not_zero():
    t = table()
    t = t[t.label != "fear"]
    assert np.isnan(per_class_recall(t.label, t.correct, LABELS)["fear"])
    assert uar(t.label, t.correct, LABELS) == pytest.approx(
        np.mean([per_class_recall(t.label, t.correct, LABELS)[x] for x in LABELS if x != "fear"])
    )


def test_videos_without_a_face_count_as_errors():
    t = table(missing=20)
    got = compute_metrics(t, LABELS)
    assert got["videos_without_prediction"] == 20
    assert got["pooled"]["war"] == pytest.approx((t.label == t.predicted).sum() / 200)
    assert got["war_with_face"]["mean"] > got["war"]["mean"]
    assert np.array(got["confusion"])[:, -1].sum() == 20


def test_mean_std_has_both_deviations_and_n():
    """The paper's MMI result: ten folds of 20 videos, 182 correct, give 91.00 +- 4.36 only with ddof 0."""
    folds = [0.95] * 5 + [0.90] * 2 + [0.85] * 3
    got = mean_std(folds)
    assert (round(100 * got["mean"], 2), round(100 * got["std_ddof0"], 2), got["n"]) == (91.0, 4.36, 10)
    assert round(100 * got["std_ddof1"], 2) == 4.59
    assert mean_std([0.5])["std_ddof1"] is None
    assert mean_std([])["mean"] is None


def test_folds_of_any_size_have_the_same_weight():
    t = table(count=30)
    t["fold"] = ["1"] * 3 + ["2"] * 27
    got = compute_metrics(t, LABELS)
    assert got["war"]["mean"] == pytest.approx((t.correct[:3].mean() + t.correct[3:].mean()) / 2)


def test_locating_accuracy_counts_videos_whose_apex_a_clip_can_hold_only():
    """Of ten videos five have a known apex, and no clip of the test view holds those of two."""
    t = table(count=10)
    t["fold"] = "1"
    t["apex_hit"] = [True, True, False, False, False] + [None] * 5
    t["apex_hit_true"] = [True, False, False, False, False] + [None] * 5
    t["apex_chance"] = [0.2, 0.2, 0.2, 0.0, 0.0] + [np.nan] * 5
    got = compute_metrics(t, LABELS)["locating_accuracy"]
    assert got["predicted_label"]["mean"] == pytest.approx(2 / 3)
    assert got["true_label"]["mean"] == pytest.approx(1 / 3)
    assert got["chance"] == pytest.approx(0.2)
    assert (got["videos"], got["reachable"]) == (5, 3)
    assert "over the 3 of 5 videos with a known apex" in describe_reachable(got, 10)
    assert describe_reachable(got, 10).endswith("left out: 5 videos without a known apex")
    assert "left out" not in describe_reachable(got, 5)
    assert compute_metrics(table(), LABELS)["locating_accuracy"] is None
    none = compute_metrics(t[t.apex_chance == 0], LABELS)["locating_accuracy"]
    assert (none["reachable"], none["chance"], none["predicted_label"]["mean"]) == (0, None, None)
