"""Configuration of stage one, and the detector and encoder built from it."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...cache.errors import CeflError
from ...cache.fingerprint import ExtractionSettings
from ..strict_model import StrictModel

if TYPE_CHECKING:
    from .detection import Detector
    from .encoder_base import Encoder

BACKENDS = ("torch", "openvino")


class ExtractConfig(StrictModel, frozen=True):
    """Options of stage one: ``extract:`` of a data set. Hashable and picklable, so that workers take it as it is."""

    encoder: Path = Path("imagenet")
    """Encoder file; in YAML and on the command line also the name of one in artifacts/weights."""
    input: Literal["video", "crops"] = "video"
    """``crops``: the data are face crops already, so they are only resized."""
    detector: str = "retinaface"
    """``retinaface``, or ``insightface:PACK`` (a pack's name, a folder or an .onnx file)."""
    det_size: int = Field(default=640, ge=64, le=4096)
    """Longest side in pixels of the image the detector searches; larger frames are shrunk to it."""
    det_thresh: float = Field(default=0.5, gt=0, lt=1)
    """Detection score (0..1) from which a face counts."""
    align: Literal["landmarks", "box"] = "landmarks"
    """Five-point alignment to the ArcFace template, or the detected box resized."""
    crop_size: int | None = Field(default=None, ge=32, le=1024)
    """Side of the square crop in pixels; None: that of the encoder file, see resolve_crop_size."""
    fps: float = Field(default=0.0, ge=0, le=1000)
    """Frames per second of image folders; 0: unknown, so that 25 is assumed. Videos have their own times."""
    rotation: Literal["manifest", "auto"] = "manifest"
    """``auto``: videos that have no rotation in the manifest are turned so that their faces are upright."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` …; a machine's own choice, so it is not part of the fingerprint."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto``: the fastest arithmetic the device computes natively."""
    backend: Literal["torch", "openvino"] = "torch"
    """Library that runs the encoder; openvino runs on processors only and is an extra of the package."""


def resolve_settings(config: ExtractConfig) -> ExtractionSettings:
    """Return the settings that decide the features: hashes of the weights, and the arithmetic of this machine."""
    from ..encoder.weights import read_encoder_metadata

    encoder = read_encoder_metadata(config.encoder)
    detector = build_detector(config)
    return ExtractionSettings(
        input=config.input,
        detector=detector.name if detector else "",
        detector_sha256=detector.sha256 if detector else "",
        det_size=config.det_size if detector else 0,
        det_thresh=config.det_thresh if detector else 0.0,
        align=config.align if detector else "resize",
        crop_size=resolve_crop_size(config),
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        normalization=encoder.normalization,
        precision=_resolve_precision(config),
        backend=config.backend,
        fps=config.fps,
    )


def resolve_crop_size(config: ExtractConfig) -> int:
    """Return the side of the crops in pixels: that of the configuration, else the one the encoder was trained on."""
    from ..encoder.weights import read_crop_size

    return config.crop_size or read_crop_size(config.encoder)


def resolve_backend_device(backend: str, device: str) -> str:
    """Return the device a backend runs on, with ``auto`` resolved; raises CeflError if it is not available.

    Imports only the library of that backend: importing torch takes a second.
    """
    if backend == "openvino":
        if device not in ("cpu", "auto"):
            raise CeflError(
                f"--device {device}: the openvino backend runs on processors only; use --device cpu, or --backend torch"
            )
        return "cpu"
    from ..device import resolve_device

    return str(resolve_device(device))


def _resolve_precision(config: ExtractConfig) -> str:
    device = resolve_backend_device(config.backend, config.device)
    if config.backend == "openvino":
        from .encoder_openvino import openvino_precision

        return openvino_precision(config.precision)
    from ..device import resolve_device, resolve_precision

    return resolve_precision(config.precision, resolve_device(device))


def build_detector(config: ExtractConfig) -> Detector | None:
    """Return the detector, or None if the input is face crops. Built once per process and model file."""
    return None if config.input == "crops" else _build_detector(config, _file_stamp(config.detector.partition(":")[2]))


def build_encoder(config: ExtractConfig) -> Encoder:
    """Return the encoder. Built once per process and encoder file: another file under the same path is loaded."""
    return _build_encoder(config, _file_stamp(config.encoder))


def _file_stamp(path: str | Path) -> tuple[str, ...]:
    """Return what tells files and their versions apart, as the key of a cache: working folder, inode, time and size."""
    with suppress(OSError):
        status = os.stat(path)
        return (os.getcwd(), *map(str, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)))
    return (os.getcwd(),)


@lru_cache(maxsize=4)
def _build_detector(config: ExtractConfig, stamp: tuple[str, ...]) -> Detector:
    kind, _, pack = config.detector.partition(":")
    if kind == "retinaface":
        from .retinaface import RetinaFace

        return RetinaFace(config.det_size, config.det_thresh)
    if kind == "insightface":
        from .insightface_detector import InsightFaceDetector

        return InsightFaceDetector(pack or "buffalo_l", config.det_size, config.det_thresh)
    raise CeflError(
        f"detector {config.detector}: unknown; use retinaface, or insightface:PACK such as insightface:buffalo_l"
    )


@lru_cache(maxsize=2)
def _build_encoder(config: ExtractConfig, stamp: tuple[str, ...]) -> Encoder:
    if config.backend == "openvino":
        from .encoder_openvino import OpenVINOEncoder

        return OpenVINOEncoder(config.encoder, resolve_crop_size(config), config.precision)
    from .encoder_torch import TorchEncoder

    return TorchEncoder(config.encoder, resolve_backend_device(config.backend, config.device), config.precision)
