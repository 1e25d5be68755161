"""Runs on a small data set in which the brightness of a frame tells its number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers.video import write_video

from ceflpipe.cache.features import FeatureTable, FrameStatus, VideoIndex, VideoStatus
from ceflpipe.cache.fingerprint import ExtractionSettings
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.run_io import Run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

FPS = 20.0
WIDTH, HEIGHT = 96, 64
LANDMARKS = np.array([[40, 26], [56, 26], [48, 34], [42, 42], [54, 42]], np.float32)
MISLEADING = ((0, 0), (3, 1))
"""(subject, label) of videos that look like the next label, so that heads have something to get wrong."""
SETTINGS = ExtractionSettings(
    "video", "retinaface", "d" * 64, 640, 0.5, "landmarks", 64, "random", "e" * 64, "unit", "fp32"
)


@dataclass(frozen=True)
class World:
    """A data set on disk, its features, and where its runs go."""

    manifest: Manifest
    table: FeatureTable
    home: Path


def brightness(frame: int) -> int:
    """Return the grey value of every pixel of a frame: three steps a frame survive the compression."""
    return 20 + 3 * frame


def frame_of(picture: np.ndarray, path: Path) -> int:
    """Return which frame of a video a picture was cut from: the one whose brightness is closest."""
    middle = picture[picture.shape[0] // 3 : -picture.shape[0] // 3, picture.shape[1] // 3 : -picture.shape[1] // 3]
    known = np.array([frame.mean() for frame in open_video(path).frames()])
    return int(np.abs(known - middle.mean()).argmin())


def make_world(
    home: Path,
    labels: tuple[str, ...] = ("anger", "fear", "joy"),
    subjects: int = 6,
    *,
    films: bool = True,
    name: str = "small",
    faceless: tuple[str, ...] = (),
) -> World:
    """Make a video per subject and label: noise, and around the apex the label's own direction in the features.

    In the videos whose ids end in one of ``faceless`` stage one has found no face.
    """
    random = np.random.default_rng(7)
    directions = random.normal(size=(len(labels), 512)).astype(np.float32)
    rows, features, lengths = [], [], []
    for subject in range(subjects):
        for code, label in enumerate(labels):
            length = int(random.integers(40, 70))
            apex = int(random.integers(10, length - 10))
            path = f"v{subject}_{code}.mp4"
            moments = np.exp(-(((np.arange(length) - apex) / 4.0) ** 2))[:, None]
            acted = (code + 1) % len(labels) if (subject, code) in MISLEADING else code
            features.append(random.normal(0, 0.5, (length, 512)) + 2.0 * moments * directions[acted])
            lengths.append(length)
            rows.append(VideoEntry(f"{name}/{path}", path, label, f"S{subject}", apex=str(apex)))
            if films:
                write_video(
                    home / path, [np.full((HEIGHT, WIDTH, 3), brightness(i), np.uint8) for i in range(length)], FPS
                )
    world = World(Manifest(name, home, tuple(rows), labels), _table(rows, features, lengths), home)
    for place, row in enumerate(rows):
        if row.id.endswith(faceless):
            world.table.videos.status[place] = VideoStatus.NO_FACE
    return world


def train(
    world: World,
    head: str = "cefl",
    *,
    out: str = "",
    seeds: tuple[int, ...] = (1,),
    select: str = "last",
    epochs: int = 12,
) -> Run:
    """Train a head on the world's features in three subject-wise folds."""
    recipe = TrainConfig(
        head=head, num_clips=7, frames_per_clip=5, epochs=epochs, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    protocol = CVConfig(fold_scheme="subject", folds=3, seed=seeds[0], num_seeds=len(seeds), checkpoint=select)
    return cross_validate(
        world.manifest,
        world.table,
        recipe,
        protocol,
        world.home / "runs" / (out or head),
        command=f"ceflpipe train-heads --head {head}",
    )


def _table(rows: list[VideoEntry], features: list[np.ndarray], lengths: list[int]) -> FeatureTable:
    count, total = len(rows), sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    index = VideoIndex(
        id=[row.id for row in rows],
        start=starts,
        length=np.array(lengths, np.int64),
        fps=np.full(count, FPS),
        declared_frames=np.array(lengths, np.int64),
        width=np.full(count, WIDTH, np.int32),
        height=np.full(count, HEIGHT, np.int32),
        fingerprint=["f"] * count,
        source_sha256=["s"] * count,
        checksum=[f"c{i}" for i in range(count)],
        status=["ok"] * count,
        note=[""] * count,
    )
    status = np.full(total, FrameStatus.DETECTED, np.uint8)
    status[:5], status[5:8] = FrameStatus.MISSING, FrameStatus.INTERPOLATED
    landmarks = np.tile(LANDMARKS, (total, 1, 1))
    box = np.tile(np.array([30, 10, 66, 54], np.float32), (total, 1))
    landmarks[:5], box[:5] = np.nan, np.nan
    table = np.concatenate(features).astype(np.float16)
    score = np.where(status == FrameStatus.DETECTED, 0.9, np.nan).astype(np.float32)
    return FeatureTable(
        table, status, score, box, landmarks, index, SETTINGS.to_json(), {row.id: i for i, row in enumerate(rows)}
    )
