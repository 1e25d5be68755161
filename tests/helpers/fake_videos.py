"""Videos of rendered actors for look-alike data sets, so that the detector finds faces in them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from helpers.video import write_video

from ceflpipe.stages.demo.actors import cast
from ceflpipe.stages.demo.make import script
from ceflpipe.stages.demo.render import render

SIDE = 160
LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


@lru_cache(maxsize=256)
def performance(subject: int, label: str, count: int = 4, yaw: float | None = None) -> tuple[np.ndarray, ...]:
    """Return frames (160, 160, 3) RGB from the middle of a performance; ``yaw`` in degrees turns the head aside."""
    acted = script(subject, label if label in LABELS else "surprise", (24, 24), 3456)
    first = max(0, min(24 - count, acted.apex - count // 2))
    frames = []
    for place in range(first, first + count):
        view = acted.views[place] if yaw is None else replace(acted.views[place], yaw=yaw)
        frames.append(render(cast(subject), acted.units[place], view, SIDE)[0])
    return tuple(frames)


def film(path: Path, frames: tuple[np.ndarray, ...]) -> Path:
    """Write frames as a video of the kind its name says; a name without an ending gets what an .avi holds."""
    if path.suffix == ".mp4":
        return write_video(path, list(frames))
    whole = path if path.suffix else path.with_name(path.name + ".avi")
    write_video(whole, list(frames), codec="FLV1" if path.suffix == ".flv" else "MJPG")
    return whole.rename(path)


def pictures(folder: Path, frames: tuple[np.ndarray, ...], names: str = "{:03d}.jpg", first: int = 0) -> Path:
    """Write frames as pictures into a folder, named by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        cv2.imwrite(str(folder / names.format(number)), np.ascontiguousarray(frame[:, :, ::-1]))
    return folder


def lying(frames: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return frames as a camera on its side takes them: turned clockwise by 90 degrees they stand upright."""
    return tuple(np.ascontiguousarray(np.rot90(frame)) for frame in frames)


def side_by_side(left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.hstack(pair) for pair in zip(left, right, strict=True))
