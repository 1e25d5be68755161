"""Extraction settings and the fingerprint of a video: everything that decides its features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

EXTRACTOR_VERSION = 9
"""Raise when the code of stage one gives other features for the same input."""


@dataclass(frozen=True)
class ExtractionSettings:
    """Everything besides the video itself that decides its features.

    Fields are those of ExtractConfig, with ``auto`` resolved to what was really used, and with hashes of the weights'
    bytes (64 hex digits), since weights of the same name may differ. ``precision`` fp32 is IEEE arithmetic,
    also on a GPU. Without a detector (``input`` is crops) ``align`` is resize.
    """

    input: str
    detector: str
    detector_sha256: str
    det_size: int
    det_thresh: float
    align: str
    crop_size: int
    encoder: str
    encoder_sha256: str
    normalization: str
    precision: str
    backend: str = "torch"  # libraries round differently
    fps: float = 0.0  # of image folders; 0: unknown
    extractor_version: int = EXTRACTOR_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ExtractionSettings:
        """Read what ``to_json`` wrote; raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))


def fingerprint(settings: ExtractionSettings, source_sha256: str, rotation: str = "", region: str = "") -> str:
    """Return 32 hex digits that change whenever the features of this video would."""
    text = "\n".join([settings.to_json(), source_sha256, rotation, region])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def describe_diff(old: ExtractionSettings, new: ExtractionSettings, word: str = "now") -> str:
    """Return which settings of ``old`` differ from those of ``new``, e.g. 'crop_size 224, now 112'."""
    before, after = asdict(old), asdict(new)
    parts = [f"{key} {_short(before[key])}, {word} {_short(after[key])}" for key in after if before[key] != after[key]]
    return "; ".join(parts)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 else text
