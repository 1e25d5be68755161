"""What does a worker need to extract a video, and how is it made ready once per process?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...cache.errors import CeflError
from ...cache.identity import ExtractionSettings
from ..device import checked_device, resolve_precision
from ..encoder.weights import describe_encoder
from .detect import Detector, RetinaFace
from .encode import Encoder
from .insight import InsightFace


@dataclass(frozen=True)
class Wishes:
    """What a user asks of stage one; plain values, so that it travels to workers.

    faces: detect, or given. detector: retinaface, or insightface:PACK. align: landmarks, or box. size: side of the
    crop in pixels. side: longest side of the picture that is searched. device and precision: see stages/device.py.
    """

    weights: Path
    faces: str = "detect"
    detector: str = "retinaface"
    side: int = 640
    minimum_score: float = 0.5
    align: str = "landmarks"
    size: int = 224
    device: str = "cpu"
    precision: str = "auto"


def settle(wishes: Wishes) -> ExtractionSettings:
    """Return the settings these wishes come to on this machine: hashes of the weights, the arithmetic really used."""
    encoder = describe_encoder(wishes.weights)
    detector = make_detector(wishes)
    return ExtractionSettings(
        faces=wishes.faces,
        detector=detector.name if detector else "",
        detector_sha256=detector.sha256 if detector else "",
        detector_side=wishes.side if detector else 0,
        minimum_score=wishes.minimum_score if detector else 0.0,
        align=wishes.align if detector else "resize",
        size=wishes.size,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        normalisation=encoder.normalisation,
        precision=resolve_precision(wishes.precision, checked_device(wishes.device)),
    )


@lru_cache(maxsize=4)
def make_detector(wishes: Wishes) -> Detector | None:
    """Return the detector of these wishes, or None where faces are given."""
    if wishes.faces == "given":
        return None
    if wishes.faces != "detect":
        raise CeflError(f"faces: {wishes.faces} is not known; use detect, or given when the data are face crops")
    if wishes.align not in ("landmarks", "box"):
        raise CeflError(f"align: {wishes.align} is not known; use landmarks or box")
    kind, _, pack = wishes.detector.partition(":")
    if kind == "retinaface":
        return RetinaFace(wishes.side, wishes.minimum_score)
    if kind == "insightface":
        return InsightFace(pack or "buffalo_l", wishes.side, wishes.minimum_score)
    raise CeflError(
        f"detector: {wishes.detector} is not known; use retinaface, or insightface:PACK such as insightface:buffalo_l"
    )


@lru_cache(maxsize=2)
def make_encoder(wishes: Wishes) -> Encoder:
    return Encoder(wishes.weights, wishes.device, wishes.precision)
