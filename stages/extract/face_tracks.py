"""Face tracks: the main face of every frame of a video, and what is to be said of it.

What this module imports decides a face track; nothing here depends on the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.code_hash import code_hash
from ...cache.features import FrameStatus, VideoFeatures, VideoStatus, mean_fps
from ...cache.fingerprint import ExtractionSettings
from .detection import Detector
from .orientation import AUTO_ROTATION, describe_tilt, estimate_rotation, find_turned_faces, may_be_turned
from .scene_cuts import mark_scene_cuts
from .timestamps import describe_gaps, repair_times
from .tracking import (
    Face,
    FaceTracker,
    GapInterpolator,
    Start,
    describe_absence,
    describe_changes,
    describe_starts,
    is_missing,
)
from .video_reader import VideoReader, open_video

MAX_MISSING_FRACTION = 0.5
"""Fraction of frames (0..1) without a face above which a video has status no-face."""


def detection_code() -> str:
    """Return the hash of the code that finds faces, as this process has loaded it."""
    return code_hash(
        "stages/extract/face_tracks.py", "stages/extract/insightface_detector.py", "stages/extract/retinaface.py"
    )


detection_code()  # now: a file may be edited while a process that has loaded it runs


@dataclass(frozen=True)
class VideoJob:
    """One video to extract: its id and path, and the manifest's rotation and region.

    ``detections``: feature cache that has its face track, with the fingerprint of ``detection``; None: find the faces.
    """

    id: str
    path: Path
    rotation: str = ""
    region: str = ""
    detections: Path | None = None
    detection: str = ""


@dataclass(frozen=True)
class TrackedFrame:
    """A frame, uint8 RGB (H, W, 3), with its main face, None if none is known, and whether it begins a new scene."""

    image: np.ndarray
    face: Face | None
    is_cut: bool


class StaleTrackError(Exception):
    """A face track from a feature cache is not that of the video as it is now."""


@dataclass
class FaceTrackReader:
    """The face track of a video while it is read, and the reader it comes from.

    ``known``: the same video in another feature cache, whose faces are taken; None: they are detected. ``turned``: what is to be
    said of faces that are not upright.
    """

    job: VideoJob
    settings: ExtractionSettings
    known: VideoFeatures | None = None
    reader: VideoReader | None = None
    tracker: FaceTracker | None = None
    rotation: str = ""
    turned: str = ""
    shape: tuple[int, ...] = (0, 0)
    times: list[float] = field(default_factory=list)
    faces: list[Face | None] = field(default_factory=list)
    cuts: list[bool] = field(default_factory=list)

    def begin(self, detector: Detector | None) -> None:
        """Find the rotation of the video; raises DecodeError."""
        if self.known:
            self.rotation = self.known.rotation
        elif self.job.rotation != AUTO_ROTATION:
            self.rotation = self.job.rotation
        elif detector:
            self.rotation = estimate_rotation(self.job.path, self.job.region, detector)

    def read(self, detector: Detector | None, starts: dict[int, Start]) -> Iterator[TrackedFrame]:
        """Yield every frame with its main face, detected, interpolated, or held from another frame.

        ``starts``: see FaceTracker. Raises DecodeError, and StaleTrackError if the video has not the frames of ``known``.
        """
        self.times, self.faces, self.cuts = [], [], []
        self.tracker = FaceTracker(detector, starts) if detector and not self.known else None
        for frame in self._track(detector):
            self.shape = frame.image.shape
            self.faces.append(frame.face)
            self.cuts.append(frame.is_cut)
            yield frame
        if self.known and len(self.faces) != len(self.known.time):
            raise StaleTrackError

    def better_starts(self) -> dict[int, Start]:
        """Return where a second reading has to begin with another face; see FaceTracker."""
        return self.tracker.better_starts() if self.tracker else {}

    def _images(self) -> Iterator[np.ndarray]:
        self.reader = open_video(self.job.path, self.rotation, self.job.region, self.settings.fps)
        for frame in self.reader.frames():
            self.times.append(frame.time)
            yield frame.image

    def _track(self, detector: Detector | None) -> Iterator[TrackedFrame]:
        if not detector:
            for image in self._images():
                yield TrackedFrame(image, _given_face(image), False)
            return
        interpolator: GapInterpolator[tuple[np.ndarray, bool]] = GapInterpolator()
        for image, face, is_cut in self._detect():
            for (complete, starts_scene), filled in interpolator.push((image, is_cut), face, is_cut):
                yield TrackedFrame(complete, filled, starts_scene)
        for (complete, starts_scene), filled in interpolator.flush():
            yield TrackedFrame(complete, filled, starts_scene)

    def _detect(self) -> Iterator[tuple[np.ndarray, Face | None, bool]]:
        """Yield every frame with its detected face, and whether it begins a new scene."""
        if self.tracker:
            for image, is_cut in mark_scene_cuts(self._images(), lambda image: image):
                yield image, self.tracker(image, is_cut), is_cut
        elif self.known:
            for number, image in enumerate(self._images()):
                if number >= len(self.known.time):
                    raise StaleTrackError
                yield image, _known_face(self.known, number), bool(self.known.scene_start[number])

    def detected(self) -> tuple[list[np.ndarray], list[float]]:
        """Return the landmarks (5, 2) and the score of every detected face."""
        faces = [face for face in self.faces if face and face.status == FrameStatus.DETECTED]
        return [face.landmarks for face in faces], [face.score for face in faces]

    def find_turned(self, detector: Detector | None) -> None:
        """Look for faces in the other rotations if those that were detected may be turned; raises DecodeError."""
        if not detector or self.known or self.job.rotation == AUTO_ROTATION:
            return
        if may_be_turned(*self.detected(), len(self.faces)):
            self.turned = find_turned_faces(self.job.path, self.job.region, self.rotation, detector)

    def status(self, features: Sequence[np.ndarray], error: str) -> tuple[VideoStatus, str]:
        """Return the status of the video and, unless it is ok, the reason; ``error``: of the decoder."""
        count = len(self.faces)
        if error:
            return VideoStatus.UNREADABLE, error
        if not count:
            return VideoStatus.UNREADABLE, "no frame can be decoded"
        if not np.isfinite(np.array(features, np.float32)).all():
            return VideoStatus.UNREADABLE, "the encoder produced NaN or Inf"
        missing = sum(map(is_missing, self.faces))
        if missing > MAX_MISSING_FRACTION * count:
            return VideoStatus.NO_FACE, f"no face in {missing} of {count} frames{self._size_hint()}"
        if self.reader and (truncation := self.reader.truncation()):
            return VideoStatus.TRUNCATED, truncation
        return VideoStatus.OK, ""

    def true_times(self) -> tuple[np.ndarray, float, str]:
        """Return the seconds of the frames, repaired if the container gives nonsense, the mean fps, and what was repaired."""
        fps = self.reader.fps if self.reader else 0.0
        times, repair = repair_times(self.times, fps)
        return times, mean_fps(times, fps), repair

    def remarks(self, times: np.ndarray, status: VideoStatus) -> list[str]:
        """Return what a person should know of the file and of the face; ``times`` in seconds."""
        tracker = self.tracker
        absence = describe_absence([is_missing(face) for face in self.faces], times)
        return [
            describe_gaps(times),
            describe_starts(tracker.starts, times) if tracker else "",
            describe_changes(tracker.changes, times) if tracker else "",
            absence if status != VideoStatus.NO_FACE else "",
            self.turned or describe_tilt(self.detected()[0], self.rotation),
        ]

    def _size_hint(self) -> str:
        """Return what finds smaller faces, '' if the detector searches frames in full size, or has found one, also turned."""
        side, det_size = max(self.shape[:2]), self.settings.det_size
        if side <= det_size or self.turned or not all(map(is_missing, self.faces)):
            return ""
        larger = min(side, 2 * det_size)
        return f"; frames of {side} pixels are searched at {det_size}: for smaller faces give --det-size {larger}"


def _given_face(image: np.ndarray) -> Face:
    """Return the face of an image that is a crop already: all of it."""
    height, width = image.shape[:2]
    landmarks = np.full((5, 2), np.nan, np.float32)
    return Face(np.array([0, 0, width, height], np.float32), landmarks, float("nan"), FrameStatus.GIVEN)


def _known_face(video: VideoFeatures, number: int) -> Face | None:
    """Return the face that was detected in a frame, None if none was: gaps are filled as they were then."""
    if video.frame_status[number] != FrameStatus.DETECTED:
        return None
    score = float(video.score[number])
    return Face(video.box[number], video.landmarks[number], score, FrameStatus.DETECTED)
