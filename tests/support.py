"""How do tests make videos and run commands?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def write_video(path: Path, frames: list[np.ndarray], fps: float = 25.0, codec: str = "mp4v") -> Path:
    """Write RGB frames with OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def panning(
    picture: np.ndarray, count: int, size: tuple[int, int], begin: tuple[int, int], end: tuple[int, int]
) -> list[np.ndarray]:
    """Cut ``count`` windows of (width, height) out of a picture, gliding from one corner position to another."""
    width, height = size
    places = np.linspace(begin, end, count).round().astype(int)
    return [picture[y : y + height, x : x + width].copy() for x, y in places]


def run_cli(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess:
    """Run ceflpipe as a user does: another process, this Python."""
    return subprocess.run(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, arguments)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=check, timeout=600,
    )  # fmt: skip


def on_path(**variables: str) -> dict[str, str]:
    """Return an environment in which `ceflpipe` and `dvc` are those of this Python."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}


def change(path: Path, pattern: str, text: str) -> None:
    """Replace what a regular expression finds in a file; it must be there."""
    content, count = re.subn(pattern, text, path.read_text())
    assert count, f"{path}: nothing like {pattern}"
    path.write_text(content)


def fake_manifest(root: Path, subjects: int = 6, labels: tuple[str, ...] = ("anger", "fear", "sadness")):
    """Return a manifest of one video per subject and label, with an apex, none of which is on disk."""
    from ceflpipe.stages.manifest.table import Manifest, Row

    rows = [Row(f"S{s}_{x}", f"S{s}_{x}.mp4", x, f"S{s}", apex="30") for s in range(subjects) for x in labels]
    return Manifest("fake", root, tuple(rows), labels)


def fake_cache(path: Path, manifest, seed: int = 0, frames: tuple[int, int] = (40, 80), trace: float = 3.0) -> None:
    """Write a real feature cache of random numbers (0..1) in which each label leaves a trace around the apex."""
    from ceflpipe.cache.files import safe_name
    from ceflpipe.cache.records import VideoFeatures
    from ceflpipe.cache.store import Entry, pack, write_part

    rng, entries = np.random.default_rng(seed), []
    for row in manifest.rows:
        length = int(rng.integers(*frames))
        features = rng.random((length, 512)).astype(np.float16)
        features[25:36, manifest.labels.index(row.label)] += trace
        video = VideoFeatures(
            row.id, features, np.ones(length, np.uint8), np.ones(length, np.float32), np.zeros((length, 4), np.float32),
            np.zeros((length, 5, 2), np.float32), 25.0, length, 64, 64, "f" * 32, "0" * 64, "ok",
        )  # fmt: skip
        part = path.with_name("parts") / f"{safe_name(row.id)}.h5"
        write_part(part, video, "{}")
        entries.append(Entry(part, 0))
    pack(path, entries, "{}")
