"""Benchmark videos: photographs under a moving window, and rendered actors, written as mp4."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import insightface
import numpy as np
import skimage.data

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.video import panning, write_video

from ceflpipe.stages.demo.actor import make_actor
from ceflpipe.stages.demo.demo_config import DemoConfig
from ceflpipe.stages.demo.demo_dataset import VideoSpec, performance_of
from ceflpipe.stages.demo.render import render_frame

SIZES = {"640x480": (640, 480), "1280x720": (1280, 720)}


def write_videos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write four videos of ``count`` frames of (width, height) pixels: an astronaut, six faces, and two actors."""
    videos = {
        "astronaut": _astronaut(size, count),
        "six": _six(size, count),
        "actor1": _actor(1, size, count),
        "actor2": _actor(2, size, count),
    }
    return [write_video(folder / f"{name}.mp4", frames) for name, frames in videos.items()]


def _enlarge(image: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    factor = margin * max(size[0] / image.shape[1], size[1] / image.shape[0])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _astronaut(size: tuple[int, int], count: int) -> list[np.ndarray]:
    image = _enlarge(skimage.data.astronaut(), size, 1.3)
    return panning(image, count, size, (20, 0), (image.shape[1] - size[0] - 10, size[1] // 6))


def _six(size: tuple[int, int], count: int) -> list[np.ndarray]:
    photograph = cv2.imread(str(Path(insightface.__file__).parent / "data/images/t1.jpg"))[:, :, ::-1]
    image = _enlarge(np.ascontiguousarray(photograph), size, 1.2)
    return panning(image, count, size, (0, 0), (image.shape[1] - size[0], image.shape[0] - size[1]))


def _actor(subject: int, size: tuple[int, int], count: int) -> list[np.ndarray]:
    width, height = size
    actor = make_actor(subject)
    config = DemoConfig(size=height, num_frames=(count, count))
    performance = performance_of(VideoSpec(Path(), subject, "surprise", config))
    left = (width - height) // 2
    padding = ((0, 0), (left, width - height - left), (0, 0))
    return [
        np.pad(render_frame(actor, performance.units[i], performance.cameras[i], height)[0], padding, mode="edge")
        for i in range(count)
    ]
