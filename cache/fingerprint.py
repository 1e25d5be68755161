"""Extraction settings and the two fingerprints of a video: everything that decides its face track, and its features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

DETECTION_VERSION = 1
"""Raise when the code of stage one finds other faces, or gives other times, for the same input."""
ENCODING_VERSION = 1
"""Raise when the code of stage one gives other features for the same face track."""
PIXELS = "uint8"
"""Precision of a crop cache, whose numbers are the pixels of the aligned crops, which no encoder has changed."""


@dataclass(frozen=True)
class ExtractionSettings:
    """Everything besides the video itself that decides its features.

    Fields are those of ExtractConfig, with ``auto`` resolved to what was really used, and with hashes of the weights'
    bytes (64 hex digits), since weights of the same name may differ. ``precision`` fp32 is IEEE arithmetic,
    also on a GPU. Without a detector (``input`` is crops) ``align`` is resize. ``width``: features per frame. Those of a
    crop cache name no encoder, have the precision PIXELS, and a width of 3 * crop_size^2.
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
    width: int = field(kw_only=True)
    detection_version: int = DETECTION_VERSION
    encoding_version: int = ENCODING_VERSION

    @property
    def is_crops(self) -> bool:
        """Whether these are the settings of a crop cache."""
        return self.precision == PIXELS

    @property
    def dtype(self) -> str:
        """Numpy type of a frame's numbers."""
        return "u1" if self.is_crops else "<f2"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ExtractionSettings:
        """Read what ``to_json`` wrote; raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))


_DETECTION = ("input", "detector", "detector_sha256", "det_size", "det_thresh", "fps", "detection_version")
"""Settings that decide the face track and the times; the others decide the features that are made of it."""


def detection_fingerprint(
    settings: ExtractionSettings, source_sha256: str, rotation: str = "", region: str = ""
) -> str:
    """Return 32 hex digits that change whenever the face track of this video, or the times of its frames, would."""
    values = asdict(settings)
    text = json.dumps({name: values[name] for name in _DETECTION}, sort_keys=True)
    return _digest(text, source_sha256, rotation, region)


def fingerprint(settings: ExtractionSettings, source_sha256: str, rotation: str = "", region: str = "") -> str:
    """Return 32 hex digits that change whenever the features of this video would."""
    return _digest(settings.to_json(), source_sha256, rotation, region)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def describe_diff(old: ExtractionSettings, new: ExtractionSettings, word: str = "now") -> str:
    """Return which settings of ``old`` differ from those of ``new``, e.g. 'crop_size 224, now 112'."""
    before, after = asdict(old), asdict(new)
    parts = [f"{key} {_short(before[key])}, {word} {_short(after[key])}" for key in after if before[key] != after[key]]
    return "; ".join(parts)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 else text
