"""Videos of rendered actors for imitations of data sets, in which the detector finds faces."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from helpers.video import write_video

from ceflpipe.stages.demo.actor import make_actor
from ceflpipe.stages.demo.demo_config import DemoConfig
from ceflpipe.stages.demo.demo_dataset import VideoSpec, performance_of
from ceflpipe.stages.demo.render import render_frame

SIDE = 160
CONFIG = DemoConfig(size=SIDE, num_frames=(24, 24))
LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


@lru_cache(maxsize=256)
def performance(subject: int, label: str, count: int = 4, yaw: float | None = None) -> tuple[np.ndarray, ...]:
    """Return frames (160, 160, 3) RGB around the apex of a performance; ``yaw`` (degrees) turns the head aside."""
    expression = performance_of(VideoSpec(Path(), subject, label if label in LABELS else "surprise", CONFIG))
    first = max(0, min(24 - count, expression.apex - count // 2))
    frames = []
    for index in range(first, first + count):
        camera = expression.cameras[index] if yaw is None else replace(expression.cameras[index], yaw=yaw)
        frames.append(render_frame(make_actor(subject), expression.units[index], camera, SIDE)[0])
    return tuple(frames)


def write_clip(path: Path, frames: tuple[np.ndarray, ...]) -> Path:
    """Write frames as a video in the format of its extension; without an extension as an .avi."""
    if path.suffix == ".mp4":
        return write_video(path, list(frames))
    with_suffix = path if path.suffix else path.with_name(path.name + ".avi")
    write_video(with_suffix, list(frames), codec="FLV1" if path.suffix == ".flv" else "MJPG")
    return with_suffix.rename(path)


def write_images(folder: Path, frames: tuple[np.ndarray, ...], names: str = "{:03d}.jpg", first: int = 0) -> Path:
    """Write frames as images into a folder, named by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        cv2.imwrite(str(folder / names.format(number)), np.ascontiguousarray(frame[:, :, ::-1]))
    return folder


def rotate_sideways(frames: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return frames as a camera on its side records them: rotated clockwise by 90 degrees they are upright."""
    return tuple(np.ascontiguousarray(np.rot90(frame)) for frame in frames)


def side_by_side(left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.hstack(pair) for pair in zip(left, right, strict=True))
