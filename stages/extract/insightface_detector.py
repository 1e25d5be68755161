"""Detection models of the insightface package as face detector.

Model packs are under a licence for non-commercial research; insightface downloads a pack on first use to
~/.insightface/models/NAME. Offline, unpack the pack there yourself, or give a folder or an .onnx file instead of a name.
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

    ``pack`` is a pack's name (buffalo_l, buffalo_s, antelopev2 …), a folder that holds one, or an .onnx file. Pictures
    are searched at ``side`` x ``side`` pixels.
    """

    def __init__(self, pack: str, side: int = 640, minimum_score: float = 0.5, *, download: bool = True) -> None:
        from insightface.model_zoo import get_model

        file = _detection_model(pack, download)
        self.name = f"insightface:{pack}"
        self.sha256 = sha256_of(file)
        model: Any = get_model(str(file), providers=["CPUExecutionProvider"])
        if getattr(model, "taskname", "") != "detection":
            raise CeflError(f"{file}: not a face detection model of insightface; give the pack's folder or det_*.onnx")
        model.prepare(ctx_id=-1, input_size=(side, side), det_thresh=minimum_score)
        self._model = model

    def __call__(self, picture: np.ndarray) -> Detections:
        found, landmarks = self._model.detect(np.ascontiguousarray(picture[:, :, ::-1]))
        if landmarks is None:
            raise CeflError(f"{self.name}: this detection model gives no landmarks; take one with five points")
        return Detections(found[:, :4].astype(np.float32), landmarks.astype(np.float32), found[:, 4].astype(np.float32))

    def detect_roi(self, picture: np.ndarray, box: np.ndarray) -> None:
        """These models bring every picture to one size, so a region costs as much as the whole."""


def _detection_model(pack: str, download: bool) -> Path:
    for place in (Path(pack).expanduser(), Path("~/.insightface/models").expanduser() / pack):
        if place.is_file():
            return place
        if place.is_dir():
            models = sorted(place.glob("det_*.onnx")) or sorted(place.glob("*.onnx"))
            if models:
                return models[0]
    where = (
        f"unpack {pack}.zip of github.com/deepinsight/insightface (release model-zoo) to ~/.insightface/models/{pack}/"
    )
    if not download:
        raise CeflError(f"insightface:{pack}: no such model on this machine; {where}, or give a folder or .onnx file")
    from insightface.utils import ensure_available

    try:
        with redirect_stdout(io.StringIO()):
            folder = Path(ensure_available("models", pack))
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise CeflError(f"insightface:{pack}: cannot be downloaded ({error}); {where}") from error
    models = sorted(folder.glob("det_*.onnx"))
    if not models:
        raise CeflError(f"{folder}: no det_*.onnx in it; {where}")
    return models[0]
