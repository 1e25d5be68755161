"""Extraction settings and the fingerprint of a video: all that decides its features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

EXTRACTION = 4
"""Raised by hand when the code of stage one changes what comes out for the same input."""


@dataclass(frozen=True)
class ExtractionSettings:
    """Everything besides the video itself that decides what its features are.

    ``size`` is the side of the square crop in pixels; ``detector_sha256`` and ``encoder_sha256`` are hashes of the
    weights' bytes, since a name is not an identity; ``precision`` is the arithmetic the encoder really used.
    """

    faces: str  # "detect", or "given" when the data are already face crops
    detector: str
    detector_sha256: str
    detector_side: int
    minimum_score: float
    align: str  # "landmarks" or "box"
    size: int
    encoder: str
    encoder_sha256: str
    normalisation: str
    precision: str
    backend: str = "torch"  # the library that ran the encoder: another rounds otherwise
    extraction: int = EXTRACTION

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def fingerprint(settings: ExtractionSettings, source_sha256: str, rotation: str = "", region: str = "") -> str:
    """Return 32 hex digits that change whenever the features of this video would."""
    text = "\n".join([settings.to_json(), source_sha256, rotation, region])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def difference(old: str, new: ExtractionSettings) -> str:
    """Say in words what differs between the settings a cache holds (JSON) and those wanted now."""
    was, now = json.loads(old), asdict(new)
    parts = []
    for key in now:
        if was.get(key) != now[key]:
            parts.append(f"{key} {_short(was.get(key))}, now {_short(now[key])}")
    return "; ".join(parts) or "the source files themselves"


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 else text
