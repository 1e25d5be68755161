"""Multi-face tracking by overlap, motion and colors; each track is encoded as stage one encodes the main face.

A scene cut ends all tracks. A face that another one hides is waited for; where it cannot be told whose face it is when they
are apart again, the note of the track says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from ...cache.features import FrameStatus, VideoFeatures, VideoStatus, mean_fps
from ...cache.fingerprint import ExtractionSettings
from ..extract.association import TrackState, associate, color_histogram
from ..extract.detection import Detections, Detector
from ..extract.encoder_base import Encoder
from ..extract.extractor import CropBatcher, ExtractMonitor, build_video_features
from ..extract.face_crops import crop_face
from ..extract.face_tracks import VideoJob
from ..extract.orientation import AUTO_ROTATION, describe_tilt, estimate_rotation
from ..extract.scene_cuts import mark_scene_cuts
from ..extract.timestamps import describe_gaps, repair_times
from ..extract.tracking import MAX_CHANGES, Face, GapInterpolator
from ..extract.video_reader import open_video
from .identity import BestFrames, IdentityNetwork, crop_quality

MIN_HITS = 15
"""Frames in which a face must be detected, one clip. Tracks with fewer are discarded."""


class TrackedFace(NamedTuple):
    """A face track of a video: its first frame in the file, its features, the frames of its best faces (also in the file), and
    their embedding (D,) by an identity network, None without one."""

    first_frame: int
    features: VideoFeatures
    faces: tuple[int, ...]
    embedding: np.ndarray | None


@dataclass(eq=False)
class _Track:
    """One face while in view, from its first to its last detection."""

    first_frame: int
    state: TrackState
    ended: bool = False
    interpolator: GapInterpolator[np.ndarray] = field(default_factory=GapInterpolator)
    faces: list[Face] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    best: BestFrames = field(default_factory=BestFrames)
    embedding: np.ndarray | None = None

    @property
    def complete(self) -> bool:
        return self.ended and len(self.features) == len(self.faces)

    @property
    def hits(self) -> int:
        return sum(face.status == FrameStatus.DETECTED for face in self.faces)

    def update(
        self, image: np.ndarray, face: Face | None, batcher: CropBatcher, network: IdentityNetwork | None = None
    ) -> None:
        """Take the next frame, in which the face was detected (``face``) or not (None)."""
        if face is not None:
            crop = partial(crop_face, image, face, "landmarks", network.crop_size) if network else None
            self.best.offer(self.state.number, crop_quality(face), crop)
        for frame, frame_face in self.interpolator.push(image, face):
            if frame_face is None:
                raise ValueError("a track begins with a detection, so every frame of it has a face")
            self.faces.append(frame_face)
            batcher.add(frame, frame_face, self.features)

    def to_features(
        self,
        video_id: str,
        times: np.ndarray,
        shape: tuple[int, ...],
        fps: float,
        status: VideoStatus,
        note: str,
        rotation: str,
    ) -> VideoFeatures:
        """Return the features from the first to the last detection; ``times`` of all frames of the video in seconds."""
        detected = [index for index, face in enumerate(self.faces) if face.status == FrameStatus.DETECTED]
        count = detected[-1] + 1
        faces = [face if face.status != FrameStatus.MISSING else None for face in self.faces[:count]]
        doubts = ", ".join(f"{times[number]:.2f} s" for number in self.state.doubts[:MAX_CHANGES])
        doubt = f"may be another face from {doubts} on, where faces overlapped" if doubts else ""
        tilt = describe_tilt([self.faces[index].landmarks for index in detected], rotation)
        return build_video_features(
            video_id,
            faces,
            self.features[:count],
            times[self.first_frame : self.first_frame + count],
            shape,
            width=len(self.features[0]),
            fps=fps,
            status=status,
            note="; ".join(text for text in (note, doubt, tilt) if text),
            rotation=rotation,
        )


def track_faces(
    job: VideoJob,
    detector: Detector,
    encoder: Encoder,
    settings: ExtractionSettings,
    monitor: ExtractMonitor | None = None,
    network: IdentityNetwork | None = None,
) -> Iterator[TrackedFace]:
    """Yield each face track at the end of the video; raises DecodeError.

    A face that is lost for more than MAX_GAP frames, or MAX_HIDDEN behind another one, ends its track; if it comes back later
    it is a new one. Memory holds features and boxes, two batches of crops, the best crops of the faces in view for the
    ``network``, and a few frames. ``monitor.frame`` is called for every frame.
    """
    monitor = monitor or ExtractMonitor()
    rotation = estimate_rotation(job.path, job.region, detector) if job.rotation == AUTO_ROTATION else job.rotation
    reader = open_video(job.path, rotation, job.region, settings.fps)
    batcher = CropBatcher(encoder, settings)
    tracks: list[_Track] = []
    finished: list[_Track] = []
    times: list[float] = []
    shape: tuple[int, ...] = (0, 0)
    for number, ((image, time), is_cut) in enumerate(mark_scene_cuts(reader.frames(), lambda frame: frame.image)):
        times.append(time)
        shape = image.shape
        faces = detector(image)
        active = [track for track in tracks if not track.ended]
        for track in active:
            track.ended = is_cut or track.state.is_over(number)
        active = [track for track in active if not track.ended]
        matches, unmatched = associate(number, image, faces, [track.state for track in active])
        for track, index in zip(active, matches, strict=True):
            track.update(image, None if index is None else _face(faces, index), batcher, network)
        for index in unmatched:
            track = _Track(number, TrackState(number, faces.boxes[index], color_histogram(image, faces.boxes[index])))
            tracks.append(track)
            track.update(image, _face(faces, index), batcher, network)
        finished += [_embedded(track, network) for track in tracks if track.complete and track.hits >= MIN_HITS]
        tracks = [track for track in tracks if not track.complete]
        monitor.frame(job)
    batcher.flush()
    seconds, repair = repair_times(times, reader.fps)
    truncation = reader.truncation()
    status = VideoStatus.TRUNCATED if truncation else VideoStatus.OK
    notes = (truncation, reader.remarks(), repair, describe_gaps(seconds))
    fps, note = mean_fps(seconds, reader.fps), "; ".join(text for text in notes if text)
    finished += [_embedded(track, network) for track in tracks if track.hits >= MIN_HITS]
    for track in finished:
        features = track.to_features(job.id, seconds, shape, fps, status, note, rotation)
        yield TrackedFace(track.first_frame, features, track.best.frames, track.embedding)


def _embedded(track: _Track, network: IdentityNetwork | None) -> _Track:
    """Return the track with its embedding; its crops are forgotten."""
    track.embedding = track.best.embedding(network) if network else None
    return track


def _face(detections: Detections, index: int) -> Face:
    return Face(
        detections.boxes[index], detections.landmarks[index], float(detections.scores[index]), FrameStatus.DETECTED
    )
