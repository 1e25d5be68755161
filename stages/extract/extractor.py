"""Video extraction: decode, detect, track, align and encode, with encoder batches filled across videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.features import FEATURE_DIM, FrameStatus, VideoFeatures, VideoStatus, mean_fps
from ...cache.fingerprint import ExtractionSettings, fingerprint
from ..manifest.files import IMAGE_EXTENSIONS
from .detection import Detector
from .encoder_base import Encoder
from .face_crops import crop_face
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
from .video_reader import DecodeError, SystemReadError, VideoReader, open_video

MAX_MISSING_FRACTION = 0.5
"""Fraction of frames (0..1) without a face above which a video has status no-face."""


@dataclass(frozen=True)
class VideoJob:
    """One video to extract: its id and path, and the manifest's rotation and region."""

    id: str
    path: Path
    rotation: str = ""
    region: str = ""


class ExtractMonitor:
    """Receives events of an extraction; this one ignores them."""

    def begin(self, job: VideoJob) -> None:
        """Called before a video is opened."""

    def frame(self, job: VideoJob) -> None:
        """Called after each processed frame."""

    def end(self, job: VideoJob) -> None:
        """Called when no more frames of the video will be decoded."""


class CropBatcher:
    """Crops faces and encodes them in full batches, whichever video or track they come from."""

    def __init__(self, encoder: Encoder, settings: ExtractionSettings) -> None:
        self._encoder, self._align = encoder, settings.align
        self._size = size = settings.crop_size
        self._crops = np.empty((encoder.batch_size, size, size, 3), np.uint8)
        self._outputs: list[list[np.ndarray]] = []
        self._in_flight: tuple[list[list[np.ndarray]], Callable[[], np.ndarray]] | None = None

    def add(self, image: np.ndarray, face: Face | None, output: list[np.ndarray]) -> None:
        """Crop a face; its features (D,) are appended to ``output`` when its batch has been encoded, in order."""
        self._crops[len(self._outputs)] = crop_face(image, face, self._align, self._size)
        self._outputs.append(output)
        if len(self._outputs) == self._encoder.batch_size:
            self._encode()

    def flush(self) -> None:
        """Encode the remaining crops and wait for all features."""
        if self._outputs:
            self._encode()
        self._collect()

    def _encode(self) -> None:
        # on a GPU the previous batch is fetched only now: it was computed while frames were decoded
        batch = (self._outputs, self._encoder.encode_async(self._crops[: len(self._outputs)]))
        self._outputs = []
        self._collect()
        self._in_flight = batch

    def _collect(self) -> None:
        if self._in_flight:
            outputs, fetch = self._in_flight
            for output, features in zip(outputs, fetch(), strict=True):
                output.append(features)
            self._in_flight = None


@dataclass
class _PendingVideo:
    """Per-video buffers while its frames are in flight."""

    job: VideoJob
    reader: VideoReader | None = None
    tracker: FaceTracker | None = None
    rotation: str = ""
    turned: str = ""
    shape: tuple[int, ...] = (0, 0)
    times: list[float] = field(default_factory=list)
    faces: list[Face | None] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    error: str = ""
    is_system_error: bool = False
    ended: bool = False

    @property
    def complete(self) -> bool:
        return self.ended and len(self.features) == len(self.faces)

    def detected(self) -> tuple[list[np.ndarray], list[float]]:
        """Return the landmarks (5, 2) and the score of every detected face."""
        faces = [face for face in self.faces if face and face.status == FrameStatus.DETECTED]
        return [face.landmarks for face in faces], [face.score for face in faces]

    def open(self, fps: float) -> Iterator[np.ndarray]:
        """Yield the images of the video and keep their times; ``fps``: frames per second of an image folder."""
        self.reader = open_video(self.job.path, self.rotation, self.job.region, fps)
        for frame in self.reader.frames():
            self.times.append(frame.time)
            yield frame.image


def extract_videos(
    jobs: Iterable[VideoJob],
    detector: Detector | None,
    encoder: Encoder,
    settings: ExtractionSettings,
    monitor: ExtractMonitor | None = None,
) -> Iterator[VideoFeatures]:
    """Yield the features of every video in the order of the jobs.

    ``detector`` is None for face crops. A video is read a second time if another face than the first one turns out to be the
    main one. A video that cannot be read has no frames and the reason in its note; if the system is at fault, not its
    content, it has no ``source_sha256`` either. Memory holds
    two batches of crops, the frames of one open gap, and a few to find scene cuts, however long the video.
    """
    monitor = monitor or ExtractMonitor()
    pending: list[_PendingVideo] = []
    batcher = CropBatcher(encoder, settings)
    for job in jobs:
        monitor.begin(job)
        video = _PendingVideo(job)
        pending.append(video)
        try:
            if job.rotation != AUTO_ROTATION:
                video.rotation = job.rotation
            elif detector:
                video.rotation = estimate_rotation(job.path, job.region, detector)
            starts: dict[int, Start] = {}
            for is_first_pass in (True, False):
                video.tracker = FaceTracker(detector, starts) if detector else None
                for image, face in _track_main_face(video.open(settings.fps), video.tracker):
                    video.shape = image.shape
                    video.faces.append(face)
                    batcher.add(image, face, video.features)
                    monitor.frame(job)
                starts = video.tracker.better_starts() if video.tracker and is_first_pass else {}
                if not starts:
                    break
                video.times, video.faces, video.features = [], [], []
            if detector and job.rotation != AUTO_ROTATION and may_be_turned(*video.detected(), len(video.faces)):
                video.turned = find_turned_faces(job.path, job.region, video.rotation, detector)
        except DecodeError as error:
            video.error, video.is_system_error = str(error), isinstance(error, SystemReadError)
        video.ended = True
        monitor.end(job)
        while pending and pending[0].complete:
            yield _to_features(pending.pop(0), settings)
    batcher.flush()
    for video in pending:
        yield _to_features(video, settings)


def _track_main_face(
    images: Iterable[np.ndarray], tracker: FaceTracker | None
) -> Iterator[tuple[np.ndarray, Face | None]]:
    """Yield every frame with its main face: detected, interpolated, or held from another frame; None if none is known."""
    if tracker is None:
        for image in images:
            yield image, _given_face(image)
        return
    interpolator: GapInterpolator[np.ndarray] = GapInterpolator()
    for image, is_cut in mark_scene_cuts(images, lambda image: image):
        yield from interpolator.push(image, tracker(image, is_cut), is_cut)
    yield from interpolator.flush()


def _given_face(image: np.ndarray) -> Face:
    """Return the face of an image that is a crop already: all of it."""
    height, width = image.shape[:2]
    landmarks = np.full((5, 2), np.nan, np.float32)
    return Face(np.array([0, 0, width, height], np.float32), landmarks, float("nan"), FrameStatus.GIVEN)


def _to_features(video: _PendingVideo, settings: ExtractionSettings) -> VideoFeatures:
    job, reader = video.job, video.reader
    faces, features, times = video.faces, video.features, video.times
    status, reason = _video_status(video, settings)
    notes = [reason]
    fps = reader.fps if reader else 0.0
    if status == VideoStatus.UNREADABLE:
        faces, features, times = [], [], []
    elif reader:
        times, repair = repair_times(times, fps)
        fps = mean_fps(times, fps)
        tracker = video.tracker
        changes = describe_changes(tracker.changes, times) if tracker else ""
        left_out = describe_starts(tracker.starts, times) if tracker else ""
        absence = describe_absence([is_missing(face) for face in faces], times) if status != VideoStatus.NO_FACE else ""
        notes += [reader.remarks(), repair, describe_gaps(times), left_out, changes, absence]
        notes.append(video.turned or describe_tilt(video.detected()[0], video.rotation))
    source = "" if video.is_system_error else _hash_source(job.path)
    return build_video_features(
        job.id,
        [None if is_missing(face) else face for face in faces],
        features,
        times,
        video.shape,
        fps=fps,
        declared_frames=reader.declared_frames if reader else -1,
        fingerprint=fingerprint(settings, source, job.rotation, job.region),
        source_sha256=source,
        status=status,
        note="; ".join(note for note in notes if note),
        rotation=video.rotation,
    )


def build_video_features(
    video_id: str,
    faces: Sequence[Face | None],
    features: Sequence[np.ndarray],
    times: Sequence[float] | np.ndarray,
    shape: tuple[int, ...],
    *,
    fps: float,
    declared_frames: int = -1,
    fingerprint: str = "",
    source_sha256: str = "",
    status: VideoStatus = VideoStatus.OK,
    note: str = "",
    rotation: str = "",
) -> VideoFeatures:
    """Stack the faces and features (D,) of the frames; a frame without a face is missing and its box is NaN.

    ``times`` in seconds; ``shape``: of a frame, (H, W, …). The others are as in VideoFeatures.
    """
    count = len(faces)
    box = [face.box if face else np.full(4, np.nan) for face in faces]
    landmarks = [face.landmarks if face else np.full((5, 2), np.nan) for face in faces]
    return VideoFeatures(
        id=video_id,
        features=np.array(features, np.float16).reshape(count, FEATURE_DIM),
        time=np.array(times, np.float64).reshape(count),
        frame_status=np.array([face.status if face else FrameStatus.MISSING for face in faces], np.uint8),
        score=np.array([face.score if face else np.nan for face in faces], np.float32),
        box=np.array(box, np.float32).reshape(count, 4),
        landmarks=np.array(landmarks, np.float32).reshape(count, 5, 2),
        fps=fps,
        declared_frames=declared_frames,
        width=shape[1],
        height=shape[0],
        fingerprint=fingerprint,
        source_sha256=source_sha256,
        status=status,
        note=note,
        rotation=rotation,
    )


def _hash_source(path: Path) -> str:
    """Return the hash of a source, or '' if it cannot be read, which no later hash will equal."""
    try:
        return sha256_of(path, IMAGE_EXTENSIONS) if path.is_file() or path.is_dir() else ""  # a pipe would block
    except OSError:
        return ""


def _size_hint(video: _PendingVideo, settings: ExtractionSettings) -> str:
    """Return what finds smaller faces, '' if the detector searches frames in full size, or has found one, also turned."""
    side = max(video.shape[:2])
    if side <= settings.det_size or video.turned or not all(map(is_missing, video.faces)):
        return ""
    larger = min(side, 2 * settings.det_size)
    return f"; frames of {side} pixels are searched at {settings.det_size}: for smaller faces give --det-size {larger}"


def _video_status(video: _PendingVideo, settings: ExtractionSettings) -> tuple[VideoStatus, str]:
    """Return the status of a video and, unless it is ok, the reason."""
    count = len(video.faces)
    if video.error:
        return VideoStatus.UNREADABLE, video.error
    if not count:
        return VideoStatus.UNREADABLE, "no frame can be decoded"
    if not np.isfinite(np.array(video.features, np.float32)).all():
        return VideoStatus.UNREADABLE, "the encoder produced NaN or Inf"
    missing = sum(map(is_missing, video.faces))
    if missing > MAX_MISSING_FRACTION * count:
        return VideoStatus.NO_FACE, f"no face in {missing} of {count} frames{_size_hint(video, settings)}"
    if video.reader and (truncation := video.reader.truncation()):
        return VideoStatus.TRUNCATED, truncation
    return VideoStatus.OK, ""
