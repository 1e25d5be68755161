"""Checks of the data before training: leaks between train and test, labels that cannot be learned, apexes past the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...cache.atomic import fold_stem
from ...cache.errors import CeflError, shorten_list
from ...cache.features import TRAINABLE_STATUSES, FoldFeatures, VideoIndex
from ..fold_encoder import FoldEncoder
from ..manifest.leaks import describe_equal, describe_similar, equal_videos, similar_subjects
from ..manifest.manifest import VideoEntry
from .folds import Fold
from .train_config import CVConfig

MAX_LEAKS = 5
"""Leaks that an error message or a note lists."""


def check_training_data(
    entries: Sequence[VideoEntry], videos: VideoIndex, folds: Sequence[Fold], cv: CVConfig, *, trains: bool = True
) -> list[str]:
    """Return what must be known to read the scores, a sentence each; ``videos`` is the index of the cache.

    Raises CeflError if a video or a person is in the training and the test set of a fold under two names, unless
    ``cv.allow_leaks``; and, if the head ``trains``, if there is nothing to tell apart or no test label to learn.
    """
    hashes = dict(zip(videos.id, videos.source_sha256, strict=True))
    lengths = {
        video_id: int(length) if status in TRAINABLE_STATUSES else 0
        for video_id, length, status in zip(videos.id, videos.length, videos.status, strict=True)
    }
    leaks = find_leaks(entries, folds, hashes)
    shown = "; ".join(leaks[:MAX_LEAKS]) + (f"; and {len(leaks) - MAX_LEAKS} more" if len(leaks) > MAX_LEAKS else "")
    if leaks and not cv.allow_leaks:
        raise CeflError(
            f"in training and in test: {shown}; correct the list (ceflpipe check names all), or score it as it is with "
            "--allow-leaks, which the run and the report then say"
        )
    notes = [f"leaks between training and test were allowed (--allow-leaks): {shown}"] if leaks else []
    if trains:
        notes += _check_labels(entries, folds, lengths, cv.fold_scheme)
    late = [entry for entry in entries if entry.apex and 0 < lengths.get(entry.id, 0) <= int(entry.apex)]
    if late:
        first = late[0]
        notes.append(
            f"the apex is after the last frame in {len(late)} videos, which the locating accuracy leaves out (e.g. "
            f"{first.id}: apex {first.apex}, {lengths[first.id]} frames); apex counts frames from 0"
        )
    return notes


def find_leaks(entries: Sequence[VideoEntry], folds: Sequence[Fold], hashes: Mapping[str, str]) -> list[str]:
    """Return a sentence for each video and person that is in train and test of a fold under two names.

    Two spellings of a person count only if the folds keep subjects apart. ``hashes``: as in leaks.equal_videos.
    """
    parts = [({entries[i].id for i in fold.train}, {entries[i].id for i in fold.test}) for fold in folds]
    leaks = []
    for same in equal_videos(entries, hashes):
        ids = {entry.id for entry in same}
        if any(ids & train and ids & test for train, test in parts):
            leaks.append(describe_equal(same))
    similar = similar_subjects(entry.subject for entry in entries)
    if similar:
        parts_by_subject = [
            ({entries[i].subject for i in fold.train} - {""}, {entries[i].subject for i in fold.test}) for fold in folds
        ]
        if not any(train & test for train, test in parts_by_subject):
            for names in similar:
                if any(set(names) & train and set(names) & test for train, test in parts_by_subject):
                    leaks.append(describe_similar(names))
    return leaks


def check_fold_encoders(
    entries: Sequence[VideoEntry], folds: Sequence[Fold], table: FoldFeatures, encoders: Sequence[FoldEncoder]
) -> None:
    """Raise CeflError if the encoder whose features a fold has was fine-tuned on a video of that fold's test, by the hash of its
    source file, or on another video of a subject of the test, where the fold itself keeps these out of its training.

    ``encoders``: what each encoder file records; one is known by the hash of its file, never by its name.
    """
    hashes = dict(zip(table.videos.id, table.videos.source_sha256, strict=True))
    known = {encoder.sha256: encoder for encoder in encoders}
    again = "make the encoders again with ceflpipe encoder adapt, for these folds"
    for fold in folds:
        stem = fold_stem(fold.name)
        if stem not in table.folds:
            raise CeflError(f"fold {fold.name}: there are no features of an encoder of this fold; {again}")
        digest = table.encoders[table.folds.index(stem)]
        encoder = known.get(digest)
        if encoder is None:
            raise CeflError(
                f"fold {fold.name}: its features are of an encoder {digest[:8]}… that is not there, so what it has seen is "
                f"not known; {again}"
            )
        test = [entries[i] for i in fold.test]
        used = [entry.id for entry in test if hashes.get(entry.id, "") in set(encoder.train_sources) - {""}]
        trained = {entries[i].subject for i in fold.train}
        subjects = sorted({entry.subject for entry in test} & set(encoder.train_subjects) - trained - {""})
        if used or subjects:
            what = f"videos {shorten_list(used)}" if used else f"videos of the subjects {shorten_list(subjects)}"
            raise CeflError(
                f"fold {fold.name}: its encoder (of fold {encoder.fold}, {digest[:8]}…) was fine-tuned on {what} of its test; "
                f"{again}"
            )


def _check_labels(
    entries: Sequence[VideoEntry], folds: Sequence[Fold], lengths: Mapping[str, int], scheme: str
) -> list[str]:
    """Return warnings of labels that folds do not train or do not test; raises CeflError if nothing can be learned.

    ``lengths``: usable frames by id; videos that are not in the cache count as usable, since join_features judges them.
    """
    train = [{entries[i].label for i in fold.train if lengths.get(entries[i].id, 1)} for fold in folds]
    test = [{entries[i].label for i in fold.test} for fold in folds]
    for fold, labels in zip(folds, train, strict=True):
        if len(labels) == 1:
            raise CeflError(
                f"fold {fold.name}: all training videos with features are labeled {min(labels)}; a head needs at least two "
                "labels to tell apart; add videos of others"
            )
    subjects: dict[str, set[str]] = {}
    for entry in entries:
        subjects.setdefault(entry.label, set()).add(entry.subject)
    confounded = all(len(names) == 1 and "" not in names for names in subjects.values())
    if all(train) and not any(trained & tested for trained, tested in zip(train, test, strict=True)):
        reason = ": each label has the videos of one subject only" if confounded else ""
        raise CeflError(
            f"no fold tests a label that it trains on{reason}; add subjects, or use --fold-scheme stratified, which ignores "
            "them"
        )
    notes = []
    if confounded:
        notes.append(
            "each label has the videos of one subject only: a head may tell the people apart, not the expressions"
        )
    for label, names in subjects.items():
        count = f" ({len(names)} subject{'s' * (len(names) > 1)})" if scheme == "subject" else ""
        untrained = [
            fold.name
            for fold, trained, tested in zip(folds, train, test, strict=True)
            if label in tested and trained and label not in trained
        ]
        untested = sum(label not in tested for tested in test)
        if untrained:
            notes.append(f"{label}{count} is tested but not trained on in fold {shorten_list(untrained)}")
        if untested and untested < len(folds):
            notes.append(f"{label}{count} has no test video in {untested} of {len(folds)} folds")
    return notes
