"""Small test videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import OutputContainer


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


def encode_video(path: Path, frames: list[np.ndarray], **options: Any) -> Path:
    """Write RGB frames (H, W, 3) with PyAV and return the path; ``options`` are those of ``add_track``."""
    with av.open(str(path), "w") as container:
        add_track(container, frames, **options)
    return path


def add_track(
    container: OutputContainer,
    frames: list[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    ticks: list[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    fps: int = 25,
    pixel_aspect: Fraction | None = None,
    rotation: int = 0,
    matrix: list[int] | None = None,
    options: dict[str, str] | None = None,
    interlaced: bool = False,
) -> None:
    """Encode frames as a further video track of a container that nothing has been written to.

    ``ticks``: time of each frame in units of ``time_base``, else frames are at ``fps``.
    """
    stream = container.add_stream(codec, rate=fps, options=options or {})
    context = stream.codec_context
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pix_fmt
    if ticks is not None:
        context.time_base = stream.time_base = time_base
    if pixel_aspect:
        context.sample_aspect_ratio = pixel_aspect
    if interlaced:
        context.flags |= (1 << 18) | (1 << 29)  # interlaced DCT and motion estimation
    if rotation:
        stream.set_display_rotation(rotation)
    if matrix:
        stream.set_display_matrix(matrix)
    for number, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if ticks is not None:
            frame.pts, frame.time_base = ticks[number], time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
