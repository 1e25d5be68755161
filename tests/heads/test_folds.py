"""Who is tested when: properties of the fold schemes over many random manifests."""

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
    rows = []
    for s in range(subjects):
        for v in range(draw(st.integers(1, 9))):
            rows.append(VideoEntry(f"{s}-{v}", f"{s}-{v}.mp4", draw(st.sampled_from(LABELS)), f"S{s}"))
    return rows, subjects


@given(manifests(), st.integers(2, 12), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_no_subject_is_on_both_sides(manifest, count, seed):
    rows, subjects = manifest
    rarest = min(Counter(row.label for row in rows).values())
    if count > subjects or count > rarest:
        with pytest.raises(
            CeflError, match=f"only {subjects} subjects" if count > subjects else f"only {rarest} videos"
        ):
            make_folds(rows, "subject", count, seed)
        return
    folds = make_folds(rows, "subject", count, seed)
    tested = Counter()
    for fold in folds:
        assert not {rows[i].subject for i in fold.train} & {rows[i].subject for i in fold.test}
        assert not set(fold.train) & set(fold.test)
        tested.update(fold.test.tolist())
    assert tested == Counter(range(len(rows)))  # every video is tested exactly once


def rows_of(count, label=lambda i: LABELS[i % 3], **columns):
    return [VideoEntry(str(i), f"{i}.mp4", label(i), **{k: f(i) for k, f in columns.items()}) for i in range(count)]


def test_stratified_folds_spread_labels_evenly():
    rows = rows_of(60)
    for fold in make_folds(rows, "stratified", 10, 0):
        assert Counter(rows[i].label for i in fold.test) == dict.fromkeys(LABELS, 2)


def test_official_folds_are_the_column_in_natural_order():
    rows = rows_of(22, fold=lambda i: str(i % 11 + 1))
    folds = make_folds(rows, "official", 5, 0)
    assert [fold.name for fold in folds] == [str(n) for n in range(1, 12)]
    assert folds[9].test.tolist() == [9, 20]
    assert sorted([*folds[9].test, *folds[9].train]) == list(range(22))


def test_split_trains_on_train_and_tests_on_val():
    rows = rows_of(10, split=lambda i: "train" if i < 7 else "val")
    (fold,) = make_folds(rows, "split", 10, 0)
    assert fold.train.tolist() == list(range(7))
    assert fold.test.tolist() == [7, 8, 9]


def test_same_seed_same_folds_other_seed_other_folds():
    rows = rows_of(90, subject=lambda i: f"S{i % 30}")
    a, b, c = (make_folds(rows, "subject", 10, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x.test, y.test) for x, y in zip(a, b, strict=True))
    assert any(not np.array_equal(x.test, y.test) for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize(
    ("rows", "scheme", "count", "words"),
    [
        (rows_of(9), "subject", 3, "9 of 9 have none"),
        (rows_of(9, subject=lambda i: f"S{i % 3}"), "subject", 10, "only 3 subjects"),
        (rows_of(9, label=lambda i: "fear" if i < 2 else "anger"), "stratified", 3, "only 2 videos are labelled fear"),
        (rows_of(9), "official", 5, "found 0 folds"),
        (rows_of(9, split=lambda i: "train"), "split", 5, "train 9"),
        (rows_of(9), "stratified", 1, "at least 2"),
        (rows_of(9), "random", 3, "unknown"),
    ],
)
def test_what_cannot_be_split_is_said_with_numbers(rows, scheme, count, words):
    with pytest.raises(CeflError, match=words):
        make_folds(rows, scheme, count, 0)
