"""Extraction options, and the detector and encoder built from them once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...cache.errors import CeflError
from ...cache.fingerprint import ExtractionSettings
from ..encoder.weights import describe_encoder
from .detection import Detector
from .encoder_base import BACKENDS, Encoder
from .insightface_detector import InsightFace
from .retinaface import RetinaFace


@dataclass(frozen=True)
class Wishes:
    """What a user asks of stage one; plain values, so that it travels to workers.

    faces: detect, or given. detector: retinaface, or insightface:PACK. align: landmarks, or box. size: side of the
    crop in pixels. side: longest side of the picture that is searched. device and precision: see stages/device.py.
    backend: what runs the encoder, torch or openvino.
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
    backend: str = "torch"


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
        precision=_precision(wishes),
        backend=wishes.backend,
    )


def place_of(backend: str, device: str) -> str:
    """Return the device that is meant ('auto' settled) for a backend; raises CeflError where it is not to be had.

    Only the backend that is wanted is imported: torch takes a second.
    """
    if backend not in BACKENDS:
        raise CeflError(f"backend: {backend} is not known; use {' or '.join(BACKENDS)}")
    if backend == "openvino":
        if device not in ("cpu", "auto"):
            raise CeflError(
                f"--device {device}: the openvino backend runs on processors only; use --device cpu, or the torch backend"
            )
        return "cpu"
    from ..device import checked_device

    return str(checked_device(device))


def _precision(wishes: Wishes) -> str:
    """Return the arithmetic that these wishes come to on this machine."""
    place = place_of(wishes.backend, wishes.device)
    if wishes.backend == "openvino":
        from .encoder_openvino import openvino_precision

        return openvino_precision(wishes.precision)
    from ..device import checked_device, resolve_precision

    return resolve_precision(wishes.precision, checked_device(place))


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
    if wishes.backend == "openvino":
        from .encoder_openvino import OpenVINOEncoder

        return OpenVINOEncoder(wishes.weights, wishes.size, wishes.precision)
    from .encoder_torch import TorchEncoder

    return TorchEncoder(wishes.weights, wishes.device, wishes.precision)
