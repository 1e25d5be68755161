"""People and videos that a list has under two names, so that they may be in training and test at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ...cache.errors import shorten_list
from .manifest import VideoEntry


def person_key(subject: str) -> str:
    """Return what is left of a subject's name without case, spaces and leading zeros.

    >>> person_key("Anna "), person_key("S 01"), person_key("s1"), person_key("100")
    ('anna', 's1', 's1', '100')
    """
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", subject).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def similar_subjects(subjects: Iterable[str]) -> list[list[str]]:
    """Return the groups of subjects that differ in case, spaces or leading zeros only."""
    groups: dict[str, list[str]] = {}
    for subject in sorted(set(subjects) - {""}):
        groups.setdefault(person_key(subject), []).append(subject)
    return [names for names in groups.values() if len(names) > 1]


def equal_videos(entries: Sequence[VideoEntry], hashes: Mapping[str, str]) -> list[list[VideoEntry]]:
    """Return the groups of entries with the same bytes and region; ``hashes``: SHA-256 of the sources that are known, by id."""
    groups: dict[tuple[str, str], list[VideoEntry]] = {}
    for entry in entries:
        if hashes.get(entry.id):
            groups.setdefault((hashes[entry.id], entry.region), []).append(entry)
    return [same for same in groups.values() if len(same) > 1]


def describe_similar(names: Sequence[str]) -> str:
    return f"subjects {shorten_list(names)} may be one person"


def describe_equal(entries: Sequence[VideoEntry]) -> str:
    labels = " but different labels" if len({entry.label for entry in entries}) > 1 else ""
    paths = {entry.path: entry for entry in entries}
    names = list(paths) if len(paths) == len(entries) else [entry.id for entry in entries]
    return f"{shorten_list(names)} have the same bytes{labels}"


def leak_warnings(entries: Sequence[VideoEntry], hashes: Mapping[str, str]) -> list[str]:
    """Return a warning for each person and each video that the list has under two names."""
    return [
        f"{describe_similar(names)}, but are {len(names)} in the folds; write them alike"
        for names in similar_subjects(entry.subject for entry in entries)
    ] + [
        f"{describe_equal(same)}, so one video may be in training and test; keep one"
        for same in equal_videos(entries, hashes)
    ]
