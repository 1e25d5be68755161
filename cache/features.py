"""In-memory records of the feature cache: one video, the index of all videos, and the whole table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np

from .fingerprint import ExtractionSettings

FEATURE_DIM = 512
"""Numbers per frame: what global average pooling of ResNet-18 gives."""


class FrameStatus(IntEnum):
    """Where the crop of a frame came from."""

    MISSING = 0  # no face found near; cropped where the face was last seen, or the middle of the picture
    DETECTED = 1
    INTERPOLATED = 2  # landmarks lie between those of two detected neighbours
    GIVEN = 3  # the data set gives crops; nothing was detected


class VideoStatus(StrEnum):
    """Outcome of stage one for a video. The last four are never written to a cache: there is nothing to keep."""

    OK = "ok"
    TRUNCATED = "truncated"  # fewer frames than the container declares
    NO_FACE = "no-face"
    UNREADABLE = "unreadable"
    CRASHED = "crashed"
    STALLED = "stalled"
    MISSING = "missing"  # the file is not there
    ABSENT = "absent"  # not in the cache


TRAINABLE_STATUSES = (VideoStatus.OK, VideoStatus.TRUNCATED)
"""Statuses of videos that stage two trains on; the others count as errors when scored."""


@dataclass(frozen=True)
class VideoFeatures:
    """One finished video: a row of features for every frame of it, in order, none skipped.

    features (T, 512) float16; frame_status (T,) uint8 of FrameStatus; score (T,) in 0..1, NaN where nothing was
    detected; box (T, 4) as x1 y1 x2 y2 and landmarks (T, 5, 2) as x y, both in pixels of the upright, cut-out frame,
    NaN where missing. ``declared`` is the number of frames the container claims, -1 where it claims none.
    """

    id: str
    features: np.ndarray
    frame_status: np.ndarray
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

    @property
    def checksum(self) -> str:
        return checksum(self.features, self.frame_status, self.score, self.box, self.landmarks)


@dataclass(frozen=True)
class VideoIndex:
    """The /videos group of a cache: one entry per video in each array, in the order of the file."""

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

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class FeatureTable:
    """A whole cache in memory: what stage two indexes.

    features (sum T, 512) float16, all videos back to back; ``index.start[v]`` is the first row of video v. The frame
    arrays have the same number of rows. ``settings`` is the JSON of ExtractionSettings.
    """

    features: np.ndarray
    frame_status: np.ndarray
    score: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    videos: VideoIndex
    settings: ExtractionSettings
    index_of: dict[str, int] = field(repr=False)

    def rows(self, video_id: str) -> slice:
        """Return the rows of a video in the frame arrays."""
        index = self.index_of[video_id]
        start = int(self.videos.start[index])
        return slice(start, start + int(self.videos.length[index]))

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return the features (T, 512) of a video."""
        return self.features[self.rows(video_id)]

    @property
    def identity(self) -> str:
        """A hash over the ids and contents of all videos: the same features have the same identity."""
        lines = sorted(f"{i} {c}" for i, c in zip(self.videos.id, self.videos.checksum, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def checksum(*arrays: np.ndarray) -> str:
    """Return the SHA-256 over the arrays' bytes in order (features, frame_status, score, box, landmarks)."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()
