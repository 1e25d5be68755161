"""Cross-validation splits. The only module that imports scikit-learn's splitters."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ...cache.errors import CeflError
from ..manifest.manifest import VideoEntry
from .train_config import FOLD_SCHEMES, CVConfig

TRAIN_SPLITS, TEST_SPLITS = ("train",), ("val", "test")


@dataclass(frozen=True)
class Fold:
    """Indices (into the manifest's entries) of the videos to train on and to test on; disjoint."""

    name: str
    train: np.ndarray
    test: np.ndarray


def make_folds(entries: Sequence[VideoEntry], scheme: str, num_folds: int, seed: int) -> list[Fold]:
    """Return the folds of a data set.

    ``subject``: no subject is in train and test at once, labels spread as evenly as subjects allow. ``stratified``: labels
    spread evenly, subjects ignored (the paper's MMI figures suggest this; such folds are not subject-independent).
    ``official``: the manifest's fold column. ``split``: the manifest's split column, train -> val, one fold.
    Raises CeflError, with the numbers, if the data cannot be split this way.
    """
    if scheme == "split":
        return _split(entries)
    if scheme == "official":
        return _official(entries)
    if num_folds < 2:
        raise CeflError(f"--folds {num_folds}: too few; use at least 2")
    if scheme not in ("subject", "stratified"):
        raise CeflError(f"--fold-scheme {scheme}: unknown; use one of {', '.join(FOLD_SCHEMES)}")
    subjects = _subjects(entries, num_folds) if scheme == "subject" else None
    labels = np.array([entry.label for entry in entries])
    rarest, count = Counter(labels.tolist()).most_common()[-1]
    if count < num_folds:
        advice = f"use --folds {count} or fewer" if count > 1 else "add videos of it, or remove the label"
        raise CeflError(
            f"--folds {num_folds}: only {count} videos are labeled {rarest}, so some fold would have none; {advice}"
        )
    if subjects is None:
        splits = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels)
    else:
        splits = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels, subjects)
    folds = [Fold(str(number), train, test) for number, (train, test) in enumerate(splits, start=1)]
    if any(not len(fold.test) for fold in folds):
        raise CeflError(f"--folds {num_folds}: too many for {len(set(labels))} labels over these subjects; use fewer")
    return folds


def inner_folds(entries: Sequence[VideoEntry], train: np.ndarray, cv: CVConfig, seed: int) -> list[Fold]:
    """Divide the training videos ``train`` (indices of entries) of a fold and return the first ``cv.tune_splits`` divisions.

    The ``test`` of an inner fold is one of ``cv.tune_folds`` parts of ``train``, held out of its ``train``. Subjects stay apart,
    unless the fold scheme is ``stratified`` or a training video has no subject; then labels are spread evenly. With fewer
    subjects, or fewer videos of the most common label, there are fewer parts. Only entries of ``train`` are looked at. Raises
    CeflError if these cannot be divided.
    """
    labels, subjects = (np.array([getattr(entries[i], name) for i in train]) for name in ("label", "subject"))
    by_subject = cv.fold_scheme != "stratified" and len(train) > 0 and bool((subjects != "").all())
    most = len(set(subjects.tolist())) if by_subject else max(Counter(labels.tolist()).values(), default=0)
    parts = min(cv.tune_folds, most)
    if parts < 2:
        content = f"{most} subject{'s' * (most != 1)}" if by_subject else "no two videos of one label"
        raise CeflError(
            f"--tune: the {len(train)} training videos of a fold cannot be divided, they have {content}; train without --tune"
        )
    splitter = (StratifiedGroupKFold if by_subject else StratifiedKFold)(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of labels with fewer videos than parts, which are then not in every part
        warnings.simplefilter("ignore", UserWarning)
        splits = list(splitter.split(labels, labels, subjects))
    folds = [
        Fold(str(number), train[inner], train[held_out]) for number, (inner, held_out) in enumerate(splits, start=1)
    ]
    return [fold for fold in folds if len(fold.train) and len(fold.test)][: cv.tune_splits]


def _subjects(entries: Sequence[VideoEntry], num_folds: int) -> np.ndarray:
    subjects = np.array([entry.subject for entry in entries])
    missing = int((subjects == "").sum())
    if missing:
        raise CeflError(
            f"subject-wise folds need a subject for every video; {missing} of {len(entries)} have none; "
            "fill in the manifest's subject column, or use --fold-scheme stratified"
        )
    count = len(set(subjects.tolist()))
    if count < num_folds:
        raise CeflError(
            f"--folds {num_folds}: there are only {count} subjects, and each may be in one fold only; "
            f"use --folds {count} or fewer"
        )
    return subjects


def _official(entries: Sequence[VideoEntry]) -> list[Fold]:
    folds = np.array([entry.fold for entry in entries])
    names = sorted(set(folds.tolist()) - {""}, key=lambda name: (len(name), name))
    if len(names) < 2:
        raise CeflError(
            f"official folds need at least 2 folds in the manifest's fold column; it has {len(names)} folds; "
            "use --fold-scheme subject or stratified"
        )
    listed = folds != ""
    return [Fold(name, np.flatnonzero(listed & (folds != name)), np.flatnonzero(folds == name)) for name in names]


def _split(entries: Sequence[VideoEntry]) -> list[Fold]:
    splits = np.array([entry.split for entry in entries])
    train, test = np.flatnonzero(np.isin(splits, TRAIN_SPLITS)), np.flatnonzero(np.isin(splits, TEST_SPLITS))
    if not len(train) or not len(test):
        counts = ", ".join(f"{name or 'empty'} {n}" for name, n in Counter(splits.tolist()).most_common())
        raise CeflError(
            f"train -> val needs train and val (or test) in the manifest's split column; it has {counts}; "
            "use --fold-scheme subject or stratified"
        )
    return [Fold("val", train, test)]
