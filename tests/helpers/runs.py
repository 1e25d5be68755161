"""Runs on a small data set in which the brightness of a frame encodes its index."""

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
"""(subject, label) of videos with the features of the next label, so that heads make errors."""
SETTINGS = ExtractionSettings(
    "video", "retinaface", "d" * 64, 640, 0.5, "landmarks", 64, "random", "e" * 64, "unit", "fp32", width=512
)


@dataclass(frozen=True)
class SmallDataset:
    """A data set in the folder ``root``, and its features."""

    manifest: Manifest
    table: FeatureTable
    root: Path


def brightness(frame: int) -> int:
    """Return the gray value of every pixel of a frame: three levels per frame survive the compression."""
    return 20 + 3 * frame


def frame_of(image: np.ndarray, path: Path) -> int:
    """Return the index of the frame of a video that an image was cut from: the one of the closest brightness."""
    height, width = image.shape[:2]
    center = image[height // 3 : -height // 3, width // 3 : -width // 3]
    known = np.array([frame.image.mean() for frame in open_video(path).frames()])
    return int(np.abs(known - center.mean()).argmin())


def make_small_dataset(
    root: Path,
    labels: tuple[str, ...] = ("anger", "fear", "joy"),
    subjects: int = 6,
    *,
    with_videos: bool = True,
    name: str = "small",
    faceless: tuple[str, ...] = (),
) -> SmallDataset:
    """Make a video per subject and label: random features, and around the apex those of the label.

    Videos whose ids end in one of ``faceless`` have status no-face.
    """
    random = np.random.default_rng(7)
    directions = random.normal(size=(len(labels), 512)).astype(np.float32)
    entries, features, lengths = [], [], []
    for subject in range(subjects):
        for code, label in enumerate(labels):
            length = int(random.integers(40, 70))
            apex = int(random.integers(10, length - 10))
            path = f"v{subject}_{code}.mp4"
            strength = np.exp(-(((np.arange(length) - apex) / 4.0) ** 2))[:, None]
            feature_label = (code + 1) % len(labels) if (subject, code) in MISLEADING else code
            features.append(random.normal(0, 0.5, (length, 512)) + 2.0 * strength * directions[feature_label])
            lengths.append(length)
            entries.append(VideoEntry(f"{name}/{path}", path, label, f"S{subject}", apex=str(apex)))
            if with_videos:
                frames = [np.full((HEIGHT, WIDTH, 3), brightness(i), np.uint8) for i in range(length)]
                write_video(root / path, frames, FPS)
    data = SmallDataset(Manifest(name, root, tuple(entries), labels), _table(entries, features, lengths), root)
    for index, entry in enumerate(entries):
        if entry.id.endswith(faceless):
            data.table.videos.status[index] = VideoStatus.NO_FACE
    return data


def train(
    data: SmallDataset,
    head: str = "cefl",
    *,
    out: str = "",
    seeds: tuple[int, ...] = (1,),
    checkpoint: str = "last",
    epochs: int = 12,
) -> Run:
    """Train a head in three subject-wise folds."""
    config = TrainConfig(
        head=head, num_clips=7, frames_per_clip=5, epochs=epochs, warmup_epochs=0, learning_rate=0.001, precision="fp32"
    )
    cv = CVConfig(fold_scheme="subject", folds=3, seed=seeds[0], num_seeds=len(seeds), checkpoint=checkpoint)
    command = f"ceflpipe train-heads --head {head}"
    return cross_validate(data.manifest, data.table, config, cv, data.root / "runs" / (out or head), command=command)


def _table(entries: list[VideoEntry], features: list[np.ndarray], lengths: list[int]) -> FeatureTable:
    count, total = len(entries), sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    videos = VideoIndex(
        id=[entry.id for entry in entries],
        start=starts,
        length=np.array(lengths, np.int64),
        fps=np.full(count, FPS),
        declared_frames=np.array(lengths, np.int64),
        width=np.full(count, WIDTH, np.int32),
        height=np.full(count, HEIGHT, np.int32),
        fingerprint=["f"] * count,
        source_sha256=[f"s{i}" for i in range(count)],
        checksum=[f"c{i}" for i in range(count)],
        status=["ok"] * count,
        note=[""] * count,
        rotation=[""] * count,
        detection=[""] * count,
        code_hash=[""] * count,
        detection_code=[""] * count,
        device=["cpu"] * count,
        decoder=[""] * count,
    )
    status = np.full(total, FrameStatus.DETECTED, np.uint8)
    status[:5], status[5:8] = FrameStatus.MISSING, FrameStatus.INTERPOLATED
    landmarks = np.tile(LANDMARKS, (total, 1, 1))
    box = np.tile(np.array([30, 10, 66, 54], np.float32), (total, 1))
    landmarks[:5], box[:5] = np.nan, np.nan
    score = np.where(status == FrameStatus.DETECTED, 0.9, np.nan).astype(np.float32)
    index_of = {entry.id: i for i, entry in enumerate(entries)}
    values = np.concatenate(features).astype(np.float16)
    time = np.concatenate([np.arange(length) / FPS for length in lengths])
    scene_start = np.zeros(total, np.uint8)
    return FeatureTable(values, time, status, scene_start, score, box, landmarks, videos, SETTINGS, index_of)
