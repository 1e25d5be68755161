"""Face detections, the detector interface, intersection over union, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NMS_THRESH = 0.4
"""IoU (0..1) above which two detections are the same face."""

DETECT_ON_CPU = "--detector-device cpu"
"""What to type where a detector cannot use the GPU."""

Network = Callable[[np.ndarray], Sequence[np.ndarray]]
"""The network of a detector: float32 pixels (N, 3, H, W) of several images to outputs (N, …)."""


@dataclass(frozen=True)
class Detections:
    """The faces of one image, best score first.

    boxes (N, 4) x1 y1 x2 y2 and landmarks (N, 5, 2) x y in pixels of the image, float32; scores (N,) in 0..1.
    Landmarks: both eyes, nose tip, both mouth corners, those on the left of the image first.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | list[int]) -> Detections:
        return Detections(self.boxes[index], self.landmarks[index], self.scores[index])


class Detector(Protocol):
    """Interface of face detectors. ``device_type``: cpu or cuda."""

    name: str
    sha256: str
    device_type: str

    def __call__(self, image: np.ndarray) -> Detections:
        """Detect faces in a uint8 RGB image (H, W, 3)."""
        ...

    def detect_roi(self, image: np.ndarray, box: np.ndarray) -> Detections | None:
        """Detect faces in the region around a box (4,), with the same results as in the whole image but faster; faces cut by
        the edge of the region are left out. None if that would not be faster."""
        ...


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N,) of boxes (N, 4) with one box (4,)."""
    top_left, bottom_right = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return intersection / np.maximum(areas + np.prod(box[2:] - box[:2]) - intersection, 1e-9)


def nms(boxes: np.ndarray) -> list[int]:
    """Return the indices of the boxes (N, 4), sorted by score, that no better box overlaps by more than NMS_THRESH."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    selected: list[int] = []
    rest = np.arange(len(boxes))
    while len(rest):
        best, rest = rest[0], rest[1:]
        selected.append(int(best))
        top_left = np.maximum(boxes[best, :2], boxes[rest, :2])
        bottom_right = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=1)
        rest = rest[intersection <= NMS_THRESH * (areas[best] + areas[rest] - intersection)]
    return selected
