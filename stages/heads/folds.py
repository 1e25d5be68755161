"""Cross-validation splits. The only module that imports scikit-learn's splitters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ...cache.errors import CeflError
from ..manifest.manifest import VideoEntry

SCHEMES = ("subject", "stratified", "official", "split")
TRAIN_SPLITS, TEST_SPLITS = ("train",), ("val", "test")


@dataclass(frozen=True)
class Fold:
    """Positions (into the manifest's rows) of the videos to train on and to test on; disjoint."""

    name: str
    train: np.ndarray
    test: np.ndarray


def make_folds(rows: Sequence[VideoEntry], scheme: str, count: int, seed: int) -> list[Fold]:
    """Return the folds of a data set.

    ``subject``: no subject is in train and test at once, labels spread as evenly as subjects allow. ``stratified``: labels
    spread evenly, subjects ignored (the paper's MMI figures look like this; they are not subject-independent).
    ``official``: the manifest's fold column. ``split``: the manifest's split column, train -> val, one fold.
    Raises CeflError when the data cannot be split so, with the numbers.
    """
    if scheme == "split":
        return _split(rows)
    if scheme == "official":
        return _official(rows)
    labels = np.array([row.label for row in rows])
    rarest, least = Counter(labels.tolist()).most_common()[-1]
    if count < 2:
        raise CeflError(f"--folds {count}: at least 2 are needed")
    if scheme not in ("subject", "stratified"):
        raise CeflError(f"--fold-scheme {scheme}: unknown; use one of {', '.join(SCHEMES)}")
    subjects = _subjects(rows, count) if scheme == "subject" else None
    if least < count:
        advice = f"use --folds {least} or fewer" if least > 1 else "add videos of it, or leave it out"
        raise CeflError(
            f"--folds {count}: only {least} videos are labelled {rarest}, so some fold would hold none; {advice}"
        )
    if subjects is None:
        splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    else:
        splits = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, subjects)
    folds = [Fold(str(number), train, test) for number, (train, test) in enumerate(splits, start=1)]
    if any(not len(fold.test) for fold in folds):
        raise CeflError(f"--folds {count}: too many for {len(set(labels))} labels over these subjects; use fewer")
    return folds


def _subjects(rows: Sequence[VideoEntry], count: int) -> np.ndarray:
    subjects = np.array([row.subject for row in rows])
    without = int((subjects == "").sum())
    if without:
        raise CeflError(
            f"subject-wise folds need a subject for every video; {without} of {len(rows)} have none; "
            "fill in the manifest's subject column, or use --fold-scheme stratified"
        )
    distinct = len(set(subjects.tolist()))
    if distinct < count:
        raise CeflError(
            f"--folds {count}: there are only {distinct} subjects, and each may be in one fold only; "
            f"use --folds {distinct} or fewer"
        )
    return subjects


def _official(rows: Sequence[VideoEntry]) -> list[Fold]:
    folds = np.array([row.fold for row in rows])
    names = sorted(set(folds.tolist()) - {""}, key=lambda name: (len(name), name))
    if len(names) < 2:
        raise CeflError(
            "official folds need the manifest's fold column; found "
            f"{len(names)} folds; use --fold-scheme subject or stratified"
        )
    listed = folds != ""
    return [Fold(name, np.flatnonzero(listed & (folds != name)), np.flatnonzero(folds == name)) for name in names]


def _split(rows: Sequence[VideoEntry]) -> list[Fold]:
    splits = np.array([row.split for row in rows])
    train, test = np.flatnonzero(np.isin(splits, TRAIN_SPLITS)), np.flatnonzero(np.isin(splits, TEST_SPLITS))
    if not len(train) or not len(test):
        found = ", ".join(f"{name or 'empty'} {n}" for name, n in Counter(splits.tolist()).most_common())
        raise CeflError(
            f"train -> val needs the manifest's split column with train and val (or test) in it; found {found}; "
            "use --fold-scheme subject or stratified"
        )
    return [Fold("val", train, test)]
