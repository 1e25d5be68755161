"""Are the counts those that a data set is known for?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Expected:
    """Published counts of a data set; what is not known is None or empty."""

    videos: int | None = None
    subjects: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    folds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """One line of the comparison: ``kind`` (videos, subjects, label, split, fold), its name, found and expected."""

    kind: str
    name: str
    found: int
    expected: int | None

    @property
    def differs(self) -> bool:
        return self.expected is not None and self.expected != self.found


def compare(videos: int, subjects: int, groups: Mapping[str, Mapping[str, int]], expected: Expected) -> list[Count]:
    """Return a line for every count found or expected; ``groups`` are the counts per label, split and fold by kind."""
    lines = [Count("videos", "", videos, expected.videos), Count("subjects", "", subjects, expected.subjects)]
    for kind, known in (("label", expected.labels), ("split", expected.splits), ("fold", expected.folds)):
        found = groups[kind]
        names = [*found, *(name for name in known if name not in found)]
        lines += [Count(kind, name, found.get(name, 0), known.get(name)) for name in names]
    return lines
