"""Benchmark videos: photographs set in motion and rendered actors, written as mp4."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.video import panning, write_video

SIZES = {"640x480": (640, 480), "1280x720": (1280, 720)}


def films(folder: Path, size: tuple[int, int], frames: int) -> list[Path]:
    """Write four videos of (width, height) pixels: an astronaut, six people, two actors. One person in three of them."""
    made = [
        ("astronaut", _astronaut(size, frames)),
        ("six", _six(size, frames)),
        *((f"actor{subject}", _actor(subject, size, frames)) for subject in (1, 2)),
    ]
    return [write_video(folder / f"{name}.mp4", pictures) for name, pictures in made]


def _enlarged(picture: np.ndarray, size: tuple[int, int], room: float) -> np.ndarray:
    factor = room * max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _astronaut(size: tuple[int, int], frames: int) -> list[np.ndarray]:
    import skimage.data

    picture = _enlarged(skimage.data.astronaut(), size, 1.3)
    return panning(picture, frames, size, (20, 0), (picture.shape[1] - size[0] - 10, size[1] // 6))


def _six(size: tuple[int, int], frames: int) -> list[np.ndarray]:
    import insightface

    photograph = cv2.imread(str(Path(insightface.__file__).parent / "data/images/t1.jpg"))[:, :, ::-1]
    picture = _enlarged(np.ascontiguousarray(photograph), size, 1.2)
    return panning(picture, frames, size, (0, 0), (picture.shape[1] - size[0], picture.shape[0] - size[1]))


def _actor(subject: int, size: tuple[int, int], frames: int) -> list[np.ndarray]:
    from ceflpipe.stages.demo.actors import cast
    from ceflpipe.stages.demo.make import script
    from ceflpipe.stages.demo.render import render

    width, height = size
    act = script(subject, "surprise", (frames, frames), 3456)
    beside = (width - height) // 2
    room = ((0, 0), (beside, width - height - beside), (0, 0))
    return [
        np.pad(render(cast(subject), act.units[i], act.views[i], height)[0], room, mode="edge") for i in range(frames)
    ]
