"""Find the face of a photograph as stage one finds those of a video."""

from __future__ import annotations

import cv2
import numpy as np

from .extract_config import ExtractConfig, build_detector

MIN_SIDE = 192
"""Longest side in pixels up to which photographs are enlarged before detection: RetinaFace finds no face of a few dozen pixels
that fills its image."""


def find_landmarks(image: np.ndarray) -> np.ndarray | None:
    """Return the landmarks (5, 2) of the largest face in a uint8 RGB photograph (H, W, 3), in its pixels; None without a face.

    The detector is built once per process.
    """
    detector = build_detector(ExtractConfig())
    if detector is None:
        return None
    factor = max(1.0, MIN_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    faces = detector(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if factor > 1 else image)
    if not len(faces):
        return None
    areas = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    scale = np.array([size[0] / image.shape[1], size[1] / image.shape[0]], np.float32)
    return (faces.landmarks[areas.argmax()] + 0.5) / scale - 0.5
