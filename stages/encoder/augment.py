"""Augmentation of face crops: geometry, light, color, blur, noise, resolution, JPEG artifacts."""

from __future__ import annotations

import cv2
import numpy as np

MARGIN = 1.25
"""How much wider than a crop the picture is that it is cut from, so that it can be moved, turned and zoomed."""


def random_affine_crop(wide: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 (size, size, 3) crop out of an aligned picture that is MARGIN times as wide, changed at random.

    It is moved, turned, zoomed and stretched a little (a detector's landmarks are never exact, and faces differ in
    shape), mirrored half the time, and damaged as ``damaged`` says.
    """
    angle, zoom = np.deg2rad(rng.normal(0, 5)), rng.uniform(0.9, 1.12)
    stretch, shear = rng.normal(1, 0.05), rng.normal(0, 0.03)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[zoom * stretch, shear], [0, zoom]])
    middle, shift = wide.shape[0] / 2, rng.normal(0, 0.02 * size, 2)
    matrix = np.column_stack([linear, size / 2 + shift - linear @ [middle, middle]])
    crop = cv2.warpAffine(wide, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return photometric_augment(np.ascontiguousarray(crop), rng)


def photometric_augment(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the crop as another camera, in another light, might have taken it."""
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
        small = int(rng.integers(x.shape[0] // 3, x.shape[0]))
        x = cv2.resize(
            cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA), x.shape[:2], interpolation=cv2.INTER_LINEAR
        )
    if rng.random() < 0.5:
        x = x + rng.normal(0, rng.uniform(0.005, 0.05), x.shape).astype(np.float32)
    out = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        packed = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])[1]
        out = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return out


def _side_light(side: int, rng: np.random.Generator) -> np.ndarray:
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None].astype(np.float32)
