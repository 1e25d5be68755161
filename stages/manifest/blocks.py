"""Which fold is a subject in, where the field forms folds by a rule over the subjects' numbers?"""

from __future__ import annotations

from collections.abc import Sequence


def in_blocks(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """Cut subjects, in the order given, into blocks of these sizes, and return the fold of each ('1', '2', …).

    >>> in_blocks(["a", "b", "c"], (2, 1))
    {'a': '1', 'b': '1', 'c': '2'}
    """
    folds = [str(number) for number, size in enumerate(sizes, start=1) for _ in range(size)]
    return dict(zip(subjects, folds, strict=True))


def by_turns(subjects: Sequence[str], count: int) -> dict[str, str]:
    """Deal subjects out to ``count`` folds one after the other, in the order given.

    >>> by_turns(["a", "b", "c"], 2)
    {'a': '1', 'b': '2', 'c': '1'}
    """
    return {subject: str(place % count + 1) for place, subject in enumerate(subjects)}
