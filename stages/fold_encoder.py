"""The record of an encoder that was fine-tuned on the training videos of one fold: what it has seen, and what it must not see.

It is part of the encoder file (stages/encoder/adapt.py writes it there), and compared with the folds before heads are trained
on features of that encoder (stages/heads/data_checks.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cache.errors import CeflError
from .manifest.manifest import VideoEntry

SOURCE_LISTS = ("train_sources", "test_sources")
RECORD_KEYS = (*SOURCE_LISTS, "train_subjects", "test_subjects")


@dataclass(frozen=True)
class FoldEncoder:
    """``sha256``: of the encoder file. ``train_sources``: hashes of the video files that it was fine-tuned or validated on, and
    ``train_subjects`` their subjects; ``test_sources`` and ``test_subjects``: those of its fold's test."""

    fold: str
    sha256: str
    train_sources: tuple[str, ...]
    train_subjects: tuple[str, ...]
    test_sources: tuple[str, ...]
    test_subjects: tuple[str, ...]

    @classmethod
    def of(
        cls, fold: str, train: Sequence[VideoEntry], test: Sequence[VideoEntry], hashes: Mapping[str, str]
    ) -> FoldEncoder:
        """Return the record of an encoder whose file is not written yet; ``hashes``: of source files, by the id of the video."""
        sources = [tuple(hashes.get(entry.id, "") for entry in part) for part in (train, test)]
        subjects = [tuple(entry.subject for entry in part) for part in (train, test)]
        return cls(fold, "", sources[0], subjects[0], sources[1], subjects[1])

    def to_metadata(self) -> dict[str, str]:
        """Return what the encoder file records."""
        return {"fold": self.fold} | {key: json.dumps(sorted(set(getattr(self, key)) - {""})) for key in RECORD_KEYS}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], sha256: str, source: str) -> FoldEncoder:
        """Read what ``to_metadata`` wrote; raises CeflError, which names the file ``source``, if it is not there."""
        try:
            values = {key: tuple(map(str, json.loads(metadata[key]))) for key in RECORD_KEYS}
            return cls(metadata["fold"], sha256, **values)
        except (KeyError, TypeError, ValueError):
            raise CeflError(
                f"{source}: does not record the videos it was fine-tuned on; make it again with ceflpipe encoder adapt --force"
            ) from None
