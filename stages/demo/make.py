"""How the data set gets on disk: one mp4 per actor and expression, and a table of them."""

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import joblib
import numpy as np

from .actors import cast
from .motion import Performance, perform
from .render import render
from .units import LABELS

# Raised whenever the same settings would give other pictures.
VERSION = 1
MARKER = "demo.json"
TABLE = "videos.csv"
COLUMNS = ("path", "label", "subject", "split", "fold", "apex")


def make(
    root: Path,
    *,
    subjects: int = 24,
    size: int = 256,
    frames: tuple[int, int] = (60, 100),
    fps: int = 25,
    seed: int = 3456,
    workers: int = 2,
    on_video: Callable[[int, int], None] | None = None,
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
    jobs = (joblib.delayed(_film)(root, subject, label, size, frames, fps, seed) for subject, label in missing)
    done = len(names) - len(missing)
    for _ in joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
        done += 1
        if on_video is not None:
            on_video(done, len(names))
    rows = [
        (_path(subject, label).as_posix(), label, f"S{subject:02d}", "", "", script(subject, label, frames, seed).apex)
        for subject, label in names
    ]
    table = root / TABLE
    part = table.with_suffix(".csv.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    os.replace(part, table)
    return table


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
    part = root / (MARKER + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, marker)


def _film(root: Path, subject: int, label: str, size: int, frames: tuple[int, int], fps: int, seed: int) -> None:
    """Render one video."""
    cv2.setNumThreads(1)
    performance = script(subject, label, frames, seed)
    actor = cast(subject)
    target = root / _path(subject, label)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size, size))
    if not writer.isOpened():
        raise OSError(f"cannot write video {part}")
    try:
        for units, view in zip(performance.units, performance.views, strict=True):
            image, _ = render(actor, units, view, size)
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    os.replace(part, target)
