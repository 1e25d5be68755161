"""Augmentation of face crops: geometry, light, color, blur, noise, resolution, JPEG artifacts."""

from __future__ import annotations

import cv2
import numpy as np

CONTEXT_RATIO = 1.25
"""Width of the image from which a crop is cut, as a multiple of the crop's width: room to shift, rotate and zoom."""

PHOTOGRAPH_SPREAD = 1.6
"""Of random_affine_crop for photographs: their landmarks are less exact than those of rendered faces."""


def random_affine_crop(image: np.ndarray, size: int, rng: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    """Return a uint8 crop (size, size, 3) of an aligned face in an image CONTEXT_RATIO times as wide, randomly augmented.

    It is passed to affine_crop, mirrored with probability 0.5, and passed to photometric_augment.
    """
    crop = affine_crop(image, size, rng, spread)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return photometric_augment(np.ascontiguousarray(crop), rng)


def affine_crop(image: np.ndarray, size: int, rng: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    """Return a uint8 crop (size, size, 3) of an aligned face in an image CONTEXT_RATIO times as wide.

    It is slightly shifted, rotated, zoomed, stretched and sheared: landmarks are never exact, and faces differ in shape.
    ``spread`` multiplies shift, angle and zoom.
    """
    angle, zoom = np.deg2rad(rng.normal(0, 5 * spread)), rng.uniform(1 - 0.1 * spread, 1 + 0.12 * spread)
    stretch, shear = rng.normal(1, 0.05), rng.normal(0, 0.03)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[zoom * stretch, shear], [0, zoom]])
    center, shift = image.shape[0] / 2, rng.normal(0, 0.02 * spread * size, 2)
    matrix = np.column_stack([linear, size / 2 + shift - linear @ [center, center]])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def augment_photograph(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return random_affine_crop of a photograph, sometimes sharpened, tinted like skin, or with a part covered.

    Old photographs are small, gray and soft; videos are sharp and in color.
    """
    crop = random_affine_crop(image, size, rng, PHOTOGRAPH_SPREAD)
    if rng.random() < 0.3:
        amount = rng.uniform(0.3, 1.5)
        crop = cv2.addWeighted(crop, 1 + amount, cv2.GaussianBlur(crop, (0, 0), 1.0), -amount, 0)
    if rng.random() < 0.3:
        crop = (crop * rng.uniform([0.9, 0.7, 0.55], [1.0, 0.95, 0.9])).astype(np.uint8)
    if rng.random() < 0.4:
        (height, width), fill = rng.integers(size // 8, size // 3, 2), rng.integers(0, 256, 3)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        crop = crop.copy()
        crop[top : top + height, left : left + width] = fill
    return crop


def photometric_augment(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the crop with random color, gamma, contrast, light from a side, blur, resolution, noise and JPEG quality."""
    x = crop.astype(np.float32) / 255.0
    if rng.random() < 0.25:
        x = np.repeat(x @ np.array([0.299, 0.587, 0.114], np.float32)[:, None], 3, axis=2)
    if rng.random() < 0.5:
        x = x * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    if rng.random() < 0.7:
        x = np.clip(x, 0, 1) ** rng.uniform(0.6, 1.6)
    if rng.random() < 0.7:
        x = (x - x.mean()) * rng.uniform(0.6, 1.4) + x.mean() + rng.uniform(-0.12, 0.12)
    if rng.random() < 0.4:
        x = x * _side_light(x.shape[0], rng)
    if rng.random() < 0.4:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.8))
    if rng.random() < 0.3:
        side = int(rng.integers(x.shape[0] // 3, x.shape[0]))
        small = cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA)
        x = cv2.resize(small, x.shape[:2], interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        x = x + rng.normal(0, rng.uniform(0.005, 0.05), x.shape).astype(np.float32)
    out = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        jpeg = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])[1]
        out = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return out


def _side_light(side: int, rng: np.random.Generator) -> np.ndarray:
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None].astype(np.float32)
