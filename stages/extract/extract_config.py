"""Configuration of stage one, and the detector and encoder built from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.fingerprint import PIXELS, ExtractionSettings
from ..strict_model import StrictModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .detection import Detector, Network
    from .encoder_base import Encoder

BACKENDS = {".safetensors": ("torch", "openvino"), ".onnx": ("onnxruntime", "openvino")}
"""Libraries that run an encoder, by the kind of its file; the first is the default, but see resolve_backend."""
DEFAULT_PACK = "buffalo_l"
DECODE_TIMEOUT = 120.0
"""Seconds without a new frame after which a video counts as stalled."""


class ExtractConfig(StrictModel, frozen=True):
    """Options of stage one: ``extract:`` of a data set. Hashable and picklable, so that workers take it as it is."""

    encoder: Path = Path("faces")
    """Encoder file; in YAML and on the command line also the name of one in artifacts/weights or of one in the package."""
    input: Literal["video", "crops"] = "video"
    """``crops``: the data are face crops already, so they are only resized."""
    detector: str = "retinaface"
    """``retinaface``, or ``insightface:PACK`` (a pack's name, a folder or an .onnx file)."""
    det_size: int = Field(default=640, ge=64, le=4096)
    """Longest side in pixels of the image the detector searches; larger frames are shrunk to it."""
    det_thresh: float = Field(default=0.5, gt=0, lt=1)
    """Detection score (0..1) from which a face counts."""
    detector_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where faces are detected; ``auto``: on the GPU of ``device``, if there is one and onnxruntime-gpu is installed."""
    align: Literal["landmarks", "box"] = "landmarks"
    """Five-point alignment to the ArcFace template, or the detected box resized."""
    crop_size: int | None = Field(default=None, ge=32, le=1024)
    """Side of the square crop in pixels; None: that of the encoder file, see resolve_crop_size."""
    keep: Literal["features", "crops"] = "features"
    """``crops``: keep the pixels of the aligned crops, which are the same for all encoders of one crop size; none is run."""
    fps: float = Field(default=0.0, ge=0, le=1000)
    """Frames per second of image folders; 0: unknown, so that 25 is assumed. Videos have their own times."""
    rotation: Literal["manifest", "auto"] = "manifest"
    """``auto``: videos that have no rotation in the manifest are turned so that their faces are upright."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` (every visible GPU), ``cuda:1``, ``cuda:0,cuda:2``; a machine's own choice, so it is not part
    of the fingerprint."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """``auto``: the fastest floating-point arithmetic the device computes natively. int8: see ceflpipe encoder quantize."""
    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """Library that runs the encoder; openvino runs all, on processors only, and is an extra of the package. ``auto``: for
    ResNet-18 openvino on a processor if it is installed, else torch; for ONNX networks onnxruntime; what a feature cache that is
    there was made with."""


@dataclass(frozen=True)
class ResolvedConfig:
    """``config`` with the device and precision of the machine that computes, and the ``settings`` that are recorded.

    ``note``: what is to be known of backend and precision, '' if nothing.
    """

    config: ExtractConfig
    settings: ExtractionSettings
    note: str = ""


def resolve_config(config: ExtractConfig, cached: ExtractionSettings | None = None) -> ResolvedConfig:
    """Resolve ``auto`` on this machine. If a feature cache (``cached``) differs only in backend or precision, auto takes the
    cache's."""
    own = resolve_settings(config)
    settings, note = own, ""
    automatic = {
        name: getattr(cached, name) for name in ("backend", "precision") if cached and getattr(config, name) == "auto"
    }
    if (
        cached
        and cached != own
        and cached == replace(own, **automatic)
        and is_usable(cached.backend, cached.precision, config.device)
    ):
        note, settings = _note_of_cached(cached, own, config.device), cached
    config = config.model_copy(update={"backend": settings.backend})
    device = resolve_backend_device(config.backend, config.device)
    resolved = {
        "device": device, "precision": settings.precision, "crop_size": settings.crop_size,
        "detector_device": resolve_detector_device(config, device),
    }  # fmt: skip
    return ResolvedConfig(config.model_copy(update=resolved), settings, note)


def _note_of_cached(cached: ExtractionSettings, own: ExtractionSettings, device: str) -> str:
    """Return what to say if ``auto`` is what a feature cache has in place of this machine's own choice."""
    if cached.backend != own.backend:
        return (
            f"{cached.precision} by {cached.backend}, as the feature cache has; {own.precision} by {own.backend} is this "
            f"machine's own: --backend {own.backend} --redo extracts everything again"
        )
    note = f"precision {cached.precision}, as the feature cache has; {own.precision} is this machine's own"
    if not _is_native(own.backend, resolve_backend_device(own.backend, device), cached.precision):
        note += ", and faster: --precision " + own.precision + " --redo extracts everything again"
    return note


def resolve_backend(config: ExtractConfig) -> str:
    """Return the library that runs the encoder, with ``auto`` resolved, '' if none is run; raises CeflError if it cannot run its
    kind of file.

    For ResNet-18 ``auto`` is openvino on a processor, if it is installed and computes in this precision: it is faster, and its
    features agree with torch's (tests/extract/test_encoder_backends.py). ONNX networks are of any kind, so onnxruntime, which
    they are checked with, stays the default.
    """
    if config.keep == "crops":
        return ""
    backends = BACKENDS.get(config.encoder.suffix, BACKENDS[".safetensors"])
    if config.backend == "auto":
        is_resnet18 = backends[0] == "torch"
        return "openvino" if is_resnet18 and is_usable("openvino", config.precision, config.device) else backends[0]
    if config.backend not in backends:
        kind = "an ONNX network" if config.encoder.suffix == ".onnx" else "a ResNet-18"
        raise CeflError(
            f"--backend {config.backend}: {config.encoder} is {kind}; leave out --backend, or use {' or '.join(backends)}"
        )
    return config.backend


def _on_processor(device: str) -> bool:
    """Return whether an encoder runs on the processor; torch, slow to import, is asked only if there may be a GPU."""
    if device != "auto":
        return device == "cpu"
    from ..device import may_have_gpu, resolve_device

    return not may_have_gpu() or resolve_device("auto").type == "cpu"


def is_usable(backend: str, precision: str, device: str) -> bool:
    """Return whether a backend is installed and can compute a precision on a device of this machine, in hardware or not."""
    if backend == "onnxruntime":
        return False  # that of the network only
    if backend != "openvino":
        return True
    from .encoder_openvino import openvino_available

    return _on_processor(device) and openvino_available(precision)


def _is_native(backend: str, device: str, precision: str) -> bool:
    if backend == "openvino":
        return True
    from ..device import has_native_precision, resolve_device

    return has_native_precision(precision, resolve_device(device))


def resolve_settings(config: ExtractConfig) -> ExtractionSettings:
    """Return the settings that decide the features: hashes of the weights, and the arithmetic of this machine."""
    detector = build_detector(config.model_copy(update={"detector_device": "cpu"}))  # its name and hash only
    return ExtractionSettings(
        **_encoder_settings(config),
        input=config.input,
        detector=detector.name if detector else "",
        detector_sha256=detector.sha256 if detector else "",
        det_size=config.det_size if detector else 0,
        det_thresh=config.det_thresh if detector else 0.0,
        align=config.align if detector else "resize",
        crop_size=resolve_crop_size(config),
        backend=resolve_backend(config),
        fps=config.fps,
    )


def _encoder_settings(config: ExtractConfig) -> dict[str, Any]:
    """Return the settings of the encoder, or of crops that are kept as they are."""
    if config.keep == "crops":
        width = 3 * resolve_crop_size(config) ** 2
        return {"encoder": "", "encoder_sha256": "", "normalization": "", "precision": PIXELS, "width": width}
    from ..encoder.weights import read_encoder_metadata

    encoder = read_encoder_metadata(config.encoder)
    return {
        "encoder": encoder.name, "encoder_sha256": encoder.sha256, "normalization": encoder.normalization,
        "precision": _resolve_precision(config), "width": encoder.width,
    }  # fmt: skip


def resolve_crop_size(config: ExtractConfig) -> int:
    """Return the side of the crops in pixels: that of the configuration, else the one the encoder was trained on.

    Raises CeflError for another side than an ONNX network takes.
    """
    if config.keep == "crops" and config.crop_size:
        return config.crop_size
    from ..encoder.weights import is_onnx, read_crop_size

    size = read_crop_size(config.encoder)
    if is_onnx(config.encoder) and config.crop_size not in (None, size):
        raise CeflError(
            f"--crop-size {config.crop_size}: {config.encoder} takes crops of {size} pixels only; leave out the crop size"
        )
    return config.crop_size or size


def resolve_backend_device(backend: str, device: str) -> str:
    """Return the device a backend runs on, with ``auto`` resolved; raises CeflError if it is not available.

    Imports only the library of that backend: importing torch takes a second. Without a backend, where crops are kept, it is cpu.
    """
    if not backend:
        return "cpu"
    if backend == "onnxruntime":
        return _resolve_onnx_device(device)
    if backend == "openvino":
        if device not in ("cpu", "auto"):
            raise CeflError(
                f"--device {device}: the openvino backend runs on processors only; use --device cpu, or leave out --backend"
            )
        return "cpu"
    from ..device import resolve_device

    return str(resolve_device(device))


def _resolve_onnx_device(device: str) -> str:
    """Return the device that ONNX Runtime uses; ``auto`` is a GPU if its package and the machine have one."""
    from ..onnx_session import cuda_provider_available

    if device == "cpu" or (device == "auto" and not cuda_provider_available()):
        return "cpu"
    from ..device import resolve_device

    return str(resolve_device(device))


def resolve_backend_devices(backend: str, device: str) -> tuple[str, ...]:
    """Return all devices that a backend runs on: every visible GPU for cuda, or those of a list; else resolve_backend_device."""
    if "," not in device and resolve_backend_device(backend, device) == "cpu":
        return ("cpu",)
    resolve_backend_device(backend, device.split(",")[0])
    from ..device import resolve_devices

    return resolve_devices(device)


def resolve_detector_device(config: ExtractConfig, device: str) -> str:
    """Return cpu or cuda, where faces are detected while ``device`` encodes; raises CeflError for cuda beside a processor."""
    on_gpu = device.startswith("cuda")
    if config.detector_device == "cuda" and not on_gpu:
        raise CeflError(
            "--detector-device cuda: faces are detected on the GPU that encodes; give --device cuda as well"
        )
    if config.detector_device != "auto" or not on_gpu or config.input == "crops":
        return config.detector_device if config.detector_device == "cuda" else "cpu"
    from ..onnx_session import cuda_provider_available

    return "cuda" if cuda_provider_available() else "cpu"


def _resolve_precision(config: ExtractConfig) -> str:
    backend = resolve_backend(config)
    device = resolve_backend_device(backend, config.device)
    from ..encoder.weights import is_onnx, read_encoder_metadata

    if backend == "onnxruntime":
        from .encoder_onnx import onnx_precision

        return onnx_precision(config.precision, read_encoder_metadata(config.encoder).storage)
    if backend == "openvino":
        from .encoder_openvino import activation_ranges, openvino_precision

        if config.precision == "int8" and not is_onnx(config.encoder):
            activation_ranges(read_encoder_metadata(config.encoder))
        return openvino_precision(config.precision)
    if config.precision == "int8":
        raise CeflError(
            'precision int8: only OpenVINO computes it, on processors; pip install "ceflpipe[openvino]", or leave out '
            "--precision and --device"
        )
    from ..device import resolve_device, resolve_precision

    return resolve_precision(config.precision, resolve_device(device))


def build_detector(
    config: ExtractConfig, sha256: str = "", networks: Sequence[Network] | None = None, device: str = "cpu"
) -> Detector | None:
    """Return the detector, or None if the input is face crops; built once per process and content of its file.

    ``sha256``: 64 hex digits that its file must have, '' for any; raises CeflError if it is another file by now. ``networks``:
    its networks where another process computes them, on a ``device``; default: those of this process, on the GPU if
    ``detector_device`` is cuda.
    """
    if config.input == "crops":
        return None
    key = _detector_key(config, sha256)
    if networks:
        detector = _new_detector(config.detector, config.det_size, config.det_thresh, device, networks)
    else:
        device = config.device if config.detector_device == "cuda" else "cpu"
        detector = _build_detector(config.detector, config.det_size, config.det_thresh, device, key)
    _check_hash(f"detector {config.detector}", key or sha256, detector.sha256, _build_detector)
    return detector


def build_networks(config: ExtractConfig, sha256: str = "") -> list[Network]:
    """Return the networks of the detector on ``device``, for build_detector; none if the input is face crops."""
    if config.input == "crops":
        return []
    kind, _, pack = config.detector.partition(":")
    if kind == "retinaface":
        from .retinaface import retinaface_networks

        return retinaface_networks(device=config.device)
    from .insightface_detector import PackNetwork, find_detection_model

    file = find_detection_model(pack or DEFAULT_PACK)
    _check_hash(f"detector {config.detector}", sha256, sha256_of(file), _build_detector)
    return [PackNetwork(file, config.device)]


def _detector_key(config: ExtractConfig, sha256: str) -> str:
    """Return the hash of the detector's file, '' for RetinaFace, whose weights are imported once per process."""
    kind, _, pack = config.detector.partition(":")
    if kind != "insightface":
        return ""
    from .insightface_detector import find_detection_model

    return sha256 or sha256_of(find_detection_model(pack or DEFAULT_PACK))


def build_encoder(config: ExtractConfig, sha256: str = "") -> Encoder:
    """Return the encoder, built once per process and content of its file.

    ``sha256``: 64 hex digits that its file must have, '' for any; raises CeflError if it is another file by now.
    """
    backend = resolve_backend(config)
    if not backend:
        from .encoder_pixels import PixelEncoder

        return PixelEncoder(resolve_crop_size(config))
    key = sha256 or (sha256_of(config.encoder) if config.encoder.is_file() else "")
    crop_size = resolve_crop_size(config) if backend == "openvino" else 0  # torch takes crops of any size
    encoder = _build_encoder(config.encoder, crop_size, backend, config.device, config.precision, key)
    _check_hash(str(config.encoder), key, encoder.sha256, _build_encoder)
    return encoder


def _check_hash(name: str, expected: str, actual: str, builder: Any) -> None:
    """Raise CeflError unless the bytes that were read have the ``expected`` hash; what was built of others is forgotten."""
    if expected and expected != actual:
        builder.cache_clear()
        raise CeflError(
            f"{name}: its file has the hash {actual[:8]}…, not {expected[:8]}… as the features on record; it was replaced, or "
            "is another one on this machine. Put the right file there and run the same command again"
        )


@lru_cache(maxsize=4)
def _build_detector(detector: str, det_size: int, det_thresh: float, device: str, sha256: str) -> Detector:
    return _new_detector(detector, det_size, det_thresh, device, None)


def _new_detector(
    detector: str, det_size: int, det_thresh: float, device: str, networks: Sequence[Network] | None
) -> Detector:
    kind, _, pack = detector.partition(":")
    if kind == "retinaface":
        from .retinaface import RetinaFace

        return RetinaFace(det_size, det_thresh, device=device, networks=networks)
    if kind == "insightface":
        from .insightface_detector import InsightFaceDetector

        network = networks[0] if networks else None
        return InsightFaceDetector(pack or DEFAULT_PACK, det_size, det_thresh, device=device, network=network)
    raise CeflError(f"detector {detector}: unknown; use retinaface, or insightface:PACK such as insightface:buffalo_l")


@lru_cache(maxsize=2)
def _build_encoder(path: Path, crop_size: int, backend: str, device: str, precision: str, sha256: str) -> Encoder:
    if backend == "onnxruntime":
        from .encoder_onnx import OnnxEncoder

        return OnnxEncoder(path, resolve_backend_device(backend, device), precision)
    if backend == "openvino":
        from ..encoder.weights import is_onnx
        from .encoder_openvino import OpenVINOEncoder, OpenVINOOnnxEncoder

        if is_onnx(path):
            return OpenVINOOnnxEncoder(path, precision)
        return OpenVINOEncoder(path, crop_size, precision)
    from .encoder_torch import TorchEncoder

    return TorchEncoder(path, resolve_backend_device(backend, device), precision)
