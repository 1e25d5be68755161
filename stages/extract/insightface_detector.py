"""Face detection with the models of the insightface package.

Model packs are licensed for non-commercial research; insightface downloads a pack on first use to
~/.insightface/models/NAME. Offline, unpack the pack there yourself, or pass a folder or an .onnx file instead of a name.
"""

from __future__ import annotations

import io
import zipfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..onnx_session import SESSION_ERRORS, BatchedNetwork, build_session
from .detection import DETECT_ON_CPU, Detections, Network

PROBE_SIDE = 64
"""Side in pixels of the images with which a network of any size is tried."""
NUM_ANCHORS = {3: 2, 5: 1}
"""Anchors per cell, by the number of levels, as insightface has it."""


class InsightFaceDetector:
    """A RetinaFace or SCRFD detection model of insightface.

    ``pack`` is the name of a pack (buffalo_l, buffalo_s, antelopev2 …), a folder that contains one, or an .onnx file.
    Images are resized to fit ``det_size`` x ``det_size`` pixels; faces score at least ``det_thresh`` (0..1). ``device``: cpu,
    cuda, cuda:1 …; ``network``: a PackNetwork that another process computes.
    """

    def __init__(
        self,
        pack: str,
        det_size: int = 640,
        det_thresh: float = 0.5,
        *,
        download: bool = True,
        device: str = "cpu",
        network: Network | None = None,
    ) -> None:
        _check_installed(pack)
        from insightface.model_zoo import get_model

        file = find_detection_model(pack, download)
        self.name = f"insightface:{pack}"
        self.sha256 = sha256_of(file)
        model: Any = get_model(str(file), providers=["CPUExecutionProvider"])
        if sha256_of(file) != self.sha256:
            raise CeflError(f"{file}: was replaced while it was read; run the same command again")
        if getattr(model, "taskname", "") != "detection":
            raise CeflError(
                f"{file}: not a detection model of insightface; pass the folder of a pack, or its det_*.onnx"
            )
        model.prepare(ctx_id=-1, input_size=(det_size, det_size), det_thresh=det_thresh)
        self.device_type = device.partition(":")[0]
        if network or device != "cpu":
            model.session = _NetworkSession(network or PackNetwork(file, device), model)
            model.static_shape_sessions = False
        self._model = model

    def __call__(self, image: np.ndarray) -> Detections:
        boxes, landmarks = self._model.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if landmarks is None:
            raise CeflError(f"{self.name}: this model detects no landmarks; pass one that detects five")
        return Detections(boxes[:, :4].astype(np.float32), landmarks.astype(np.float32), boxes[:, 4].astype(np.float32))

    def detect_roi(self, image: np.ndarray, box: np.ndarray) -> None:
        """None: these models resize every image to one size, so a region is as slow as the whole image."""


class PackNetwork:
    """The network of a detection model on one device, for several images at a time where its outputs can be told apart.

    The models of packs were exported for one image and have no batch axis in their outputs (cells of a level, then images, then
    anchors). Whether that holds is tried with two images; if not, images are computed one by one.
    """

    def __init__(self, file: Path, device: str = "cpu", threads: int = 1) -> None:
        model = file.read_bytes()
        self._session = build_session(model, threads, device, alternative=DETECT_ON_CPU)
        (pixels, *_), outputs = self._session.get_inputs(), self._session.get_outputs()
        self._input = pixels.name
        self._num_levels = 3 if len(outputs) in (6, 9) else 5
        self._has_batch_axis = len(outputs[0].shape) == 3
        self._batched: BatchedNetwork | None = None
        sides = [side if isinstance(side, int) and side > 0 else PROBE_SIDE for side in pixels.shape[2:]]
        self._try_batches(model, device, threads, sides)

    @property
    def batches(self) -> bool:
        """Whether it computes several images at a time."""
        return self._batched is not None

    def _try_batches(self, model: bytes, device: str, threads: int, sides: list[int]) -> None:
        probe = np.random.default_rng(0).standard_normal((2, 3, *sides)).astype(np.float32)
        expected = self(probe)
        try:
            self._batched = BatchedNetwork(_with_batch_axis(model), threads, device, alternative=DETECT_ON_CPU)
            is_same = all(map(partial(np.allclose, rtol=1e-3, atol=1e-3), self(probe), expected))
        except (*SESSION_ERRORS, ValueError):  # a shape inside the network holds for one image only
            is_same = False
        if not is_same:
            self._batched = None

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the outputs (N, rows, ·) of pixels (N, 3, H, W), at most GPU_BATCH images."""
        if self._batched is None:
            single = [self._session.run(None, {self._input: pixels[i : i + 1]}) for i in range(len(pixels))]
            return [np.stack([_as_rows(output) for output in outputs]) for outputs in zip(*single, strict=True)]
        if self._has_batch_axis:
            return self._batched(pixels)
        outputs = self._batched.run_padded(pixels)
        return [self._split(output, number, pixels.shape)[: len(pixels)] for number, output in enumerate(outputs)]

    def _split(self, output: np.ndarray, number: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return an output (cells * N * anchors, C) as (N, cells * anchors, C)."""
        stride = 8 << number % self._num_levels
        cells = -(-shape[2] // stride) * -(-shape[3] // stride)
        images = len(output) // (cells * NUM_ANCHORS[self._num_levels])
        parts = output.reshape(cells, images, -1, output.shape[-1])
        return parts.transpose(1, 0, 2, 3).reshape(images, -1, output.shape[-1])


def _with_batch_axis(network: bytes) -> bytes:
    """Return a network whose first input takes any number of rows, also if it was exported for one."""
    import onnx

    model = onnx.load_from_string(network)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def _as_rows(output: object) -> np.ndarray:
    array = np.asarray(output)
    return array.reshape(-1, array.shape[-1])


class _NetworkSession:
    """What insightface needs of an onnxruntime session, on a network for several images."""

    def __init__(self, network: Network, model: Any) -> None:
        self._network, self._input = network, model.input_name
        self._has_batch_axis = getattr(model, "batched", False)

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self._network(inputs[self._input])
        return list(outputs) if self._has_batch_axis else [output[0] for output in outputs]


def _check_installed(pack: str) -> None:
    try:
        import insightface  # noqa: F401 - only whether it can be imported
    except ImportError as error:
        raise CeflError(
            f"insightface:{pack}: the package insightface cannot be imported ({error}); "
            'pip install "ceflpipe[insightface]", or use the detector retinaface'
        ) from None


def find_detection_model(pack: str, download: bool = True) -> Path:
    """Return the file of a pack's detection model, downloaded if need be; raises CeflError if there is none."""
    for path in (Path(pack).expanduser(), Path("~/.insightface/models").expanduser() / pack):
        if path.is_file():
            return path
        if path.is_dir():
            models = sorted(path.glob("det_*.onnx")) or sorted(path.glob("*.onnx"))
            if models:
                return models[0]
    hint = (
        f"unpack {pack}.zip of github.com/deepinsight/insightface (release model-zoo) to ~/.insightface/models/{pack}/"
    )
    if not download:
        raise CeflError(f"insightface:{pack}: no such model on this machine; {hint}, or pass a folder or an .onnx file")
    _check_installed(pack)
    from insightface.utils import ensure_available

    try:
        with redirect_stdout(io.StringIO()):
            folder = Path(ensure_available("models", pack))
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise CeflError(f"insightface:{pack}: cannot be downloaded ({error}); {hint}") from error
    models = sorted(folder.glob("det_*.onnx"))
    if not models:
        raise CeflError(f"{folder}: no det_*.onnx in it; {hint}")
    return models[0]
