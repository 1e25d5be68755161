"""In-memory records of the feature cache: one video, the index of all videos, and the table of all features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np

from .fingerprint import ExtractionSettings


class FrameStatus(IntEnum):
    """Where the crop of a frame came from."""

    MISSING = 0  # cropped at the nearest known face, or at the center of the image if there is none
    DETECTED = 1
    INTERPOLATED = 2  # landmarks interpolated between two detected frames
    GIVEN = 3  # the input is a face crop; no detection


class VideoStatus(StrEnum):
    """Outcome of stage one for a video. The last four are never written to a cache."""

    OK = "ok"
    TRUNCATED = "truncated"  # packets are missing: the video ends before the container says, or many are damaged
    NO_FACE = "no-face"
    UNREADABLE = "unreadable"
    CRASHED = "crashed"
    STALLED = "stalled"
    MISSING = "missing"  # the file does not exist
    ABSENT = "absent"  # not in the feature cache


TRAINABLE_STATUSES = (VideoStatus.OK, VideoStatus.TRUNCATED)
"""Statuses of videos that stage two trains on; the others count as errors in the metrics."""


ARRAY_FIELDS = ("features", "time", "frame_status", "scene_start", "score", "box", "landmarks")
"""Fields of VideoFeatures and FeatureTable with an entry per frame, in the order of the feature cache."""


class VideoFailure(NamedTuple):
    """A video that is not ok: its status, a VideoStatus, and the reason."""

    id: str
    status: str
    note: str


@dataclass(frozen=True)
class VideoFeatures:
    """One extracted video: the features of every frame, in order, none skipped.

    features (T, D) float16, where D is the encoder's width; time (T,) float64 in seconds from the start of the file,
    increasing; frame_status (T,) uint8 of FrameStatus; scene_start (T,) uint8, 1 for frames that begin a new scene;
    score (T,) float32 in 0..1, NaN unless detected;
    box (T, 4) float32 as x1 y1 x2 y2 and landmarks (T, 5, 2) float32 as x y, both in pixels of the frame after rotation
    and region, NaN if missing. ``declared_frames`` is the frame count in the container's header, -1 if unknown.
    ``fps``: mean frames per second, 0 if the video cannot be opened. ``width``, ``height``: pixels of the frame after rotation
    and region. ``source_sha256``: 64 hex digits, '' if unreadable. ``status``: a VideoStatus; ``note``: its reason, and what
    was assumed of the file or noticed in it. ``rotation``: degrees clockwise by which its frames were turned, '' for none.
    ``fingerprint`` is that of the features, ``detection`` that of the face track alone: see fingerprint.py. What made it, none
    of which is in the fingerprints: ``code_hash`` of stage one's code and ``detection_code`` of the part that finds
    the face (16 hex digits each), ``device`` (cpu or cuda), and ``decoder`` with its version.
    """

    id: str
    features: np.ndarray
    time: np.ndarray
    frame_status: np.ndarray
    scene_start: np.ndarray
    score: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    fps: float
    declared_frames: int
    width: int
    height: int
    fingerprint: str
    source_sha256: str
    status: str
    note: str = ""
    rotation: str = ""
    detection: str = ""
    code_hash: str = ""
    detection_code: str = ""
    device: str = ""
    decoder: str = ""

    @property
    def checksum(self) -> str:
        return checksum(*self.arrays)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays with an entry per frame, in the order of the feature cache."""
        return tuple(getattr(self, name) for name in ARRAY_FIELDS)


@dataclass(frozen=True)
class VideoIndex:
    """The /videos group of a feature cache: arrays with one entry per video, in the order of the file.

    ``start``: first row in the frame arrays; ``length``: frames; ``declared_frames``: -1 if unknown; ``fps`` in mean frames
    per second; ``width``, ``height`` in pixels. All others are texts as in VideoFeatures.
    """

    id: list[str]
    start: np.ndarray
    length: np.ndarray
    fps: np.ndarray
    declared_frames: np.ndarray
    width: np.ndarray
    height: np.ndarray
    fingerprint: list[str]
    source_sha256: list[str]
    checksum: list[str]
    status: list[str]
    note: list[str]
    rotation: list[str]
    detection: list[str]
    code_hash: list[str]
    detection_code: list[str]
    device: list[str]
    decoder: list[str]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class FeatureTable:
    """A feature cache in memory.

    features (N, D) float16, all videos back to back; ``videos.start[v]`` is the first frame of video v. time (N,),
    frame_status (N,), scene_start (N,), score (N,), box (N, 4) and landmarks (N, 5, 2) are as in VideoFeatures;
    ``index_of`` maps ids to v.
    """

    features: np.ndarray
    time: np.ndarray
    frame_status: np.ndarray
    scene_start: np.ndarray
    score: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    videos: VideoIndex
    settings: ExtractionSettings
    index_of: dict[str, int] = field(repr=False)

    def rows(self, video_id: str) -> slice:
        """Return the slice of a video in the frame arrays; raises KeyError for an unknown id."""
        index = self.index_of[video_id]
        start = int(self.videos.start[index])
        return slice(start, start + int(self.videos.length[index]))

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return the features (T, D) of a video."""
        return self.features[self.rows(video_id)]

    @property
    def width(self) -> int:
        """Features per frame, D."""
        return self.features.shape[1]

    @property
    def features_sha256(self) -> str:
        """SHA-256 over the ids and checksums of all videos, independent of their order."""
        lines = sorted(f"{name} {digest}" for name, digest in zip(self.videos.id, self.videos.checksum, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class FoldFeatures(FeatureTable):
    """The same videos with the features of an encoder of each fold: features (K * N, D), those of the first fold first.

    All else is as in FeatureTable: the other arrays have N rows, ``videos`` and ``settings`` are of the first fold, but
    ``settings.encoder_sha256`` is a hash over the encoders of all folds. ``folds``: names of the folds' files without extension
    (see atomic.fold_stem); ``encoders`` and ``hashes``: of each fold the hash of its encoder file, and ``features_sha256``.
    """

    folds: tuple[str, ...]
    encoders: tuple[str, ...]
    hashes: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames N of all videos together."""
        return len(self.time)

    @property
    def features_sha256(self) -> str:
        """SHA-256 over the folds and their features."""
        lines = [f"{fold} {digest}" for fold, digest in sorted(zip(self.folds, self.hashes, strict=True))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def checksum(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of the arrays' bytes in order (see VideoFeatures.arrays)."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()


def mean_fps(time: np.ndarray, default: float) -> float:
    """Return the mean frames per second of frames at ``time`` (T,) in seconds; ``default`` for fewer than two frames.

    >>> mean_fps(np.array([0.0, 0.1, 0.5]), 25.0)
    4.0
    """
    return float((len(time) - 1) / (time[-1] - time[0])) if len(time) > 1 else default


def frame_edges(time: np.ndarray, fps: float) -> np.ndarray:
    """Return the seconds (T + 1,) at which frames begin, and at which the last one ends.

    It lasts as long as the one before it, and at most 1 / ``fps``.

    >>> frame_edges(np.array([0.0, 0.1, 0.5]), 4.0)
    array([0.  , 0.1 , 0.5 , 0.75])
    """
    if not len(time):
        return np.zeros(1)
    last = 1 / fps if len(time) == 1 else min(1 / fps, float(time[-1] - time[-2]))
    return np.append(time, time[-1] + last)
