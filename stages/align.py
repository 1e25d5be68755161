"""Five-point face alignment and square crops."""

from __future__ import annotations

import cv2
import numpy as np

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""The five landmarks (x, y) in a 112 x 112 crop: the ArcFace template of insightface (utils/face_align.py)."""
ARCFACE_SIZE = 112


def estimate_similarity(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the (2, 3) matrix that maps landmarks (5, 2) to the template of a ``size`` x ``size`` crop.

    The least-squares similarity transform (Umeyama 1991) in two dimensions has a closed form over complex numbers: with
    centered landmarks z and template w, rotation and scale are the factor sum(conj(z) w) / sum(|z|^2).
    """
    z = landmarks.astype(np.float64) @ [1, 1j]
    w = (ARCFACE_TEMPLATE * (size / ARCFACE_SIZE)) @ [1, 1j]
    z_mean, w_mean = z.mean(), w.mean()
    variance = np.sum(np.abs(z - z_mean) ** 2)
    covariance = np.sum(np.conj(z - z_mean) * (w - w_mean))
    factor = covariance / variance if variance >= 1e-9 else 1.0 + 0.0j  # all landmarks on one point: translation only
    shift = w_mean - factor * z_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align_crop(image: np.ndarray, landmarks: np.ndarray, size: int, margin: float = 0.0) -> np.ndarray:
    """Return the aligned uint8 crop (S, S, 3), black outside the image; S is ``size`` plus ``margin`` pixels on each side."""
    matrix = estimate_similarity(landmarks, size)
    matrix[:, 2] += margin
    size = round(size + 2 * margin)
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 0.5:  # shrinking by more than half aliases unless the image is averaged first
        image, matrix = _antialias(image, matrix, scale, size)
    if image.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def _antialias(image: np.ndarray, matrix: np.ndarray, scale: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of the image that the crop covers, shrunk by a power of two, and the matrix for it."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], float)
    source = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    first = np.clip(np.floor(source.min(axis=0)) - 2, 0, image.shape[1::-1]).astype(int)
    last = np.clip(np.ceil(source.max(axis=0)) + 2, 0, image.shape[1::-1]).astype(int)
    part = image[first[1] : last[1], first[0] : last[0]]
    step = 2 ** int(np.log2(1 / scale))
    if min(part.shape[:2]) < step:
        return part[:0], matrix
    small = cv2.resize(part, (part.shape[1] // step, part.shape[0] // step), interpolation=cv2.INTER_AREA)
    factor = np.array([part.shape[1] / small.shape[1], part.shape[0] / small.shape[0]])
    # pixel p of the small image is at first + factor * (p + 1/2) - 1/2 in the large one
    shift = matrix[:, :2] @ (first + (factor - 1) / 2) + matrix[:, 2]
    return small, np.column_stack([matrix[:, :2] * factor, shift])


def crop_box(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return the box x1 y1 x2 y2 resized to (size, size, 3), black outside the image; the paper crops like this."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.maximum(np.ceil(box[2:]).astype(int), [x1 + 1, y1 + 1])
    left, top = max(0, -x1), max(0, -y1)
    right, bottom = max(0, x2 - image.shape[1]), max(0, y2 - image.shape[0])
    inner = image[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)]
    if inner.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    if left or top or right or bottom:
        inner = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return resize(inner, size)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the largest centered square, resized to (size, size, 3): the crop of a video without any face."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Return the image as (size, size, 3), averaged if that is smaller; the aspect ratio is not preserved."""
    shrink = max(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
