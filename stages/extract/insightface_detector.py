"""Face detection with the models of the insightface package.

Model packs are licensed for non-commercial research; insightface downloads a pack on first use to
~/.insightface/models/NAME. Offline, unpack the pack there yourself, or pass a folder or an .onnx file instead of a name.
"""

from __future__ import annotations

import io
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from .detection import Detections


class InsightFaceDetector:
    """A RetinaFace or SCRFD detection model of insightface.

    ``pack`` is the name of a pack (buffalo_l, buffalo_s, antelopev2 …), a folder that contains one, or an .onnx file.
    Images are resized to fit ``det_size`` x ``det_size`` pixels; faces score at least ``det_thresh`` (0..1).
    """

    def __init__(self, pack: str, det_size: int = 640, det_thresh: float = 0.5, *, download: bool = True) -> None:
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
        self._model = model

    def __call__(self, image: np.ndarray) -> Detections:
        boxes, landmarks = self._model.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if landmarks is None:
            raise CeflError(f"{self.name}: this model detects no landmarks; pass one that detects five")
        return Detections(boxes[:, :4].astype(np.float32), landmarks.astype(np.float32), boxes[:, 4].astype(np.float32))

    def detect_roi(self, image: np.ndarray, box: np.ndarray) -> None:
        """None: these models resize every image to one size, so a region is as slow as the whole image."""


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
