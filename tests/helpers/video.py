"""Small test videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, frames: list[np.ndarray], fps: float = 25.0, codec: str = "mp4v") -> Path:
    """Write RGB frames (H, W, 3) with OpenCV and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def panning(
    image: np.ndarray, count: int, size: tuple[int, int], start: tuple[int, int], end: tuple[int, int]
) -> list[np.ndarray]:
    """Return ``count`` windows of (width, height) pixels of an image, whose top left corner moves from start to end."""
    width, height = size
    corners = np.linspace(start, end, count).round().astype(int)
    return [image[y : y + height, x : x + width].copy() for x, y in corners]
