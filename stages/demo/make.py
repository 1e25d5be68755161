"""How the data set gets on disk: one mp4 per actor and expression, and a table of them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...cache.atomic import write_text
from ...cache.errors import CeflError
from .actors import cast
from .motion import Performance, perform
from .render import render
from .units import LABELS

# Raised whenever the same settings would give other pictures.
VERSION = 2
MARKER = "demo.json"
TABLE = "videos.csv"
COLUMNS = ("path", "label", "subject", "split", "fold", "apex")

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Runs a function over tasks, here or in other processes; a task whose worker died comes back as (task, reason)."""


@dataclass(frozen=True)
class Scene:
    """One video to be rendered."""

    target: Path
    subject: int
    label: str
    size: int
    frames: tuple[int, int]
    fps: int
    seed: int


def make(
    root: Path,
    *,
    subjects: int = 24,
    size: int = 256,
    frames: tuple[int, int] = (60, 100),
    fps: int = 25,
    seed: int = 3456,
    mapper: Mapper = map,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Render the data set into `root` and return the path of its table.

    Writes `root/videos/S01/S01_anger.mp4` and so on, and `root/videos.csv` (path, label, subject, split, fold,
    apex; the path is relative to the table, split and fold stay empty). `frames` is the least and the greatest length.
    Finished videos of an earlier run with the same settings are kept. `on_video(done, total)` is called after every
    rendered video.
    """
    root = Path(root)
    settings = {
        "version": VERSION,
        "subjects": subjects,
        "size": size,
        "frames": list(frames),
        "fps": fps,
        "seed": seed,
    }
    root.mkdir(parents=True, exist_ok=True)
    _prepare(root, settings)
    names = [(subject, label) for subject in range(1, subjects + 1) for label in LABELS]
    missing = [name for name in names if not (root / _path(*name)).exists()]
    scenes = [
        Scene(root / _path(subject, label), subject, label, size, frames, fps, seed) for subject, label in missing
    ]
    done = len(names) - len(missing)
    for lost in mapper(film, scenes):
        if lost is not None:
            raise CeflError(f"{lost[0].target}: {lost[1]}; run the same command to go on")
        done += 1
        on_video(done, len(names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for subject, label in names:
        apex = script(subject, label, frames, seed).apex
        writer.writerow((_path(subject, label).as_posix(), label, f"S{subject:02d}", "", "", apex))
    write_text(root / TABLE, text.getvalue())
    return root / TABLE


def script(subject: int, label: str, frames: tuple[int, int], seed: int) -> Performance:
    """The performance that a video of the data set shows."""
    rng = np.random.default_rng([seed, subject, LABELS.index(label)])
    return perform(label, rng, int(rng.integers(frames[0], frames[1] + 1)))


def _path(subject: int, label: str) -> Path:
    return Path("videos") / f"S{subject:02d}" / f"S{subject:02d}_{label}.mp4"


def _prepare(root: Path, settings: dict[str, object]) -> None:
    """Clear away what other settings made; afterwards every video present belongs to these."""
    marker = root / MARKER
    text = json.dumps(settings, indent=2) + "\n"
    if marker.exists() and marker.read_text(encoding="utf-8") == text:
        return
    marker.unlink(missing_ok=True)
    own = re.compile(rf"\.?S\d+_({'|'.join(LABELS)})(\.part)?\.mp4")
    for video in sorted(root.glob("videos/S*/*.mp4")):
        if own.fullmatch(video.name):
            video.unlink()
    (root / TABLE).unlink(missing_ok=True)
    write_text(marker, text)


def film(scene: Scene) -> None:
    """Render one video."""
    performance = script(scene.subject, scene.label, scene.frames, scene.seed)
    actor, size = cast(scene.subject), scene.size
    scene.target.parent.mkdir(parents=True, exist_ok=True)
    part = scene.target.with_name(f".{scene.target.stem}.part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), scene.fps, (size, size))
    if not writer.isOpened():
        raise CeflError(f"{part}: OpenCV cannot write an mp4 file there; is the folder writable?")
    try:
        for units, view in zip(performance.units, performance.views, strict=True):
            image, _ = render(actor, units, view, size)
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    os.replace(part, scene.target)
