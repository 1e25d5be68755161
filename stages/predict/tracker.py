"""Multi-face tracking by box overlap (IoU); each track is encoded as stage one encodes the main face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...cache.features import FrameStatus, VideoFeatures
from ...cache.fingerprint import ExtractionSettings
from ..extract.detection import Detections, Detector, iou
from ..extract.encoder_base import Encoder
from ..extract.extractor import CropBatcher, ExtractMonitor, VideoJob, build_video_features
from ..extract.tracking import IOU_THRESH, MAX_GAP, Face, GapInterpolator
from ..extract.video_reader import open_video

MIN_HITS = 15
"""Frames in which a face must be detected, one clip. Tracks with fewer are discarded."""


@dataclass(eq=False)
class _Track:
    """One face while in view. ``time_since_update``: frames since it was last detected."""

    first_frame: int
    last_box: np.ndarray
    time_since_update: int = 0
    ended: bool = False
    interpolator: GapInterpolator = field(default_factory=GapInterpolator)
    faces: list[Face] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.ended and len(self.features) == len(self.faces)

    @property
    def hits(self) -> int:
        return sum(face.status == FrameStatus.DETECTED for face in self.faces)

    def update(self, image: np.ndarray, face: Face | None, batcher: CropBatcher) -> None:
        """Take the next frame, in which the face was detected (``face``) or not (None)."""
        self.time_since_update = 0 if face else self.time_since_update + 1
        if self.time_since_update > MAX_GAP:
            self.ended = True
            return
        if face:
            self.last_box = face.box
        for frame, frame_face in self.interpolator.push(image, face):
            if frame_face is None:
                raise ValueError("a track begins with a detection, so every frame of it has a face")
            self.faces.append(frame_face)
            batcher.add(frame, frame_face, self.features)


def track_faces(
    job: VideoJob,
    detector: Detector,
    encoder: Encoder,
    settings: ExtractionSettings,
    monitor: ExtractMonitor | None = None,
) -> Iterator[tuple[int, VideoFeatures]]:
    """Yield (first frame, features) of each face track when it ends; raises DecodeError.

    A face that is lost for more than MAX_GAP frames ends its track; if it comes back later it is a new one. Memory holds
    the tracks in view, two batches of crops, and MAX_GAP frames. ``monitor.frame`` is called for every frame.
    """
    monitor = monitor or ExtractMonitor()
    reader = open_video(job.path, job.rotation, job.region)
    batcher = CropBatcher(encoder, settings)
    tracks: list[_Track] = []
    shape: tuple[int, ...] = (0, 0)
    for number, image in enumerate(reader.frames()):
        shape = image.shape
        detections = detector(image)
        active = [track for track in tracks if not track.ended]
        matches, unmatched = _associate(detections, active)
        for track, index in zip(active, matches, strict=True):
            track.update(image, None if index is None else _face(detections, index), batcher)
        for index in unmatched:
            track = _Track(number, detections.boxes[index])
            tracks.append(track)
            track.update(image, _face(detections, index), batcher)
        for track in tracks:
            if track.complete and track.hits >= MIN_HITS:
                yield track.first_frame, _to_features(job.id, track, reader.fps, shape)
        tracks = [track for track in tracks if not track.complete]
        monitor.frame(job)
    batcher.flush()
    for track in tracks:
        if track.hits >= MIN_HITS:
            yield track.first_frame, _to_features(job.id, track, reader.fps, shape)


def _associate(detections: Detections, tracks: list[_Track]) -> tuple[list[int | None], list[int]]:
    """Return the index of the detection that continues each track, or None, and the indices of unmatched detections.

    Pairs are formed greedily by IoU, the largest first, so that two people next to each other keep their own faces.
    """
    matches: list[int | None] = [None] * len(tracks)
    overlap = np.array([iou(detections.boxes, track.last_box) for track in tracks])
    overlap = overlap.reshape(len(tracks), len(detections))
    while overlap.size and overlap.max() >= IOU_THRESH:
        track, detection = np.unravel_index(overlap.argmax(), overlap.shape)
        matches[track] = int(detection)
        overlap[track, :] = overlap[:, detection] = -1
    return matches, [index for index in range(len(detections)) if index not in matches]


def _face(detections: Detections, index: int) -> Face:
    return Face(
        detections.boxes[index], detections.landmarks[index], float(detections.scores[index]), FrameStatus.DETECTED
    )


def _to_features(video_id: str, track: _Track, fps: float, shape: tuple[int, ...]) -> VideoFeatures:
    return build_video_features(video_id, track.faces, track.features, shape, fps=fps)
