"""Face detections, the detector interface, and non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

NMS_THRESH = 0.4  # boxes that share more than this (IoU) are one face


@dataclass(frozen=True)
class Detections:
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

    def __call__(self, picture: np.ndarray) -> Detections:
        """Find faces in a uint8 (H, W, 3) RGB picture."""
        ...

    def detect_roi(self, picture: np.ndarray, box: np.ndarray) -> Detections | None:
        """Find faces in the region around a box (4,), as good as in the whole picture and cheaper, or return None where
        that would not be cheaper. Faces that the region's edge cuts are left out."""
        ...


def nms(boxes: np.ndarray) -> list[int]:
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
        rest = rest[shared <= NMS_THRESH * (area[best] + area[rest] - shared)]
    return kept
