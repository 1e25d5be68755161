"""Fold schemes: properties over many random manifests."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.folds import make_folds
from ceflpipe.stages.manifest.manifest import VideoEntry

LABELS = ("anger", "fear", "sadness")


@st.composite
def manifests(draw):
    subjects = draw(st.integers(2, 12))
    entries = []
    for s in range(subjects):
        for v in range(draw(st.integers(1, 9))):
            entries.append(VideoEntry(f"{s}-{v}", f"{s}-{v}.mp4", draw(st.sampled_from(LABELS)), f"S{s}"))
    return entries, subjects


@given(manifests(), st.integers(2, 12), st.integers(0, 5))
@settings(max_examples=150)
def test_no_subject_is_in_train_and_test(manifest, count, seed):
    entries, subjects = manifest
    rarest = min(Counter(entry.label for entry in entries).values())
    if count > subjects or count > rarest:
        words = f"only {subjects} subjects" if count > subjects else f"only {rarest} videos"
        with pytest.raises(CeflError, match=words):
            make_folds(entries, "subject", count, seed)
        return
    folds = make_folds(entries, "subject", count, seed)
    tested = Counter()
    for fold in folds:
        assert not {entries[i].subject for i in fold.train} & {entries[i].subject for i in fold.test}
        assert not set(fold.train) & set(fold.test)
        tested.update(fold.test.tolist())
    assert tested == Counter(range(len(entries)))  # every video is tested exactly once


def make_entries(count, label=lambda i: LABELS[i % 3], **columns):
    return [VideoEntry(str(i), f"{i}.mp4", label(i), **{k: f(i) for k, f in columns.items()}) for i in range(count)]


def test_stratified_folds_spread_labels_evenly():
    entries = make_entries(60)
    for fold in make_folds(entries, "stratified", 10, 0):
        assert Counter(entries[i].label for i in fold.test) == dict.fromkeys(LABELS, 2)


def test_official_folds_are_the_column_in_natural_order():
    entries = make_entries(22, fold=lambda i: str(i % 11 + 1))
    folds = make_folds(entries, "official", 5, 0)
    assert [fold.name for fold in folds] == [str(n) for n in range(1, 12)]
    assert folds[9].test.tolist() == [9, 20]
    assert sorted([*folds[9].test, *folds[9].train]) == list(range(22))


def test_split_trains_on_train_and_tests_on_val():
    entries = make_entries(10, split=lambda i: "train" if i < 7 else "val")
    (fold,) = make_folds(entries, "split", 10, 0)
    assert fold.train.tolist() == list(range(7))
    assert fold.test.tolist() == [7, 8, 9]


def test_same_seed_same_folds_other_seed_other_folds():
    entries = make_entries(90, subject=lambda i: f"S{i % 30}")
    a, b, c = (make_folds(entries, "subject", 10, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x.test, y.test) for x, y in zip(a, b, strict=True))
    assert any(not np.array_equal(x.test, y.test) for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize(
    ("entries", "scheme", "count", "words"),
    [
        (make_entries(9), "subject", 3, "9 of 9 have none"),
        (make_entries(9, subject=lambda i: f"S{i % 3}"), "subject", 10, "only 3 subjects"),
        (
            make_entries(9, label=lambda i: "fear" if i < 2 else "anger"),
            "stratified",
            3,
            "only 2 videos are labeled fear",
        ),
        (make_entries(9), "official", 5, "has 0 folds"),
        (make_entries(9, split=lambda i: "train"), "split", 5, "train 9"),
        (make_entries(9), "stratified", 1, "at least 2"),
        (make_entries(9), "random", 3, "unknown"),
    ],
)
def test_data_that_cannot_be_split_is_refused_with_numbers(entries, scheme, count, words):
    with pytest.raises(CeflError, match=words):
        make_folds(entries, scheme, count, 0)
