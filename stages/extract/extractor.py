"""Video extraction: decode, detect, track, align and encode, with encoder batches filled across videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.features import FrameStatus, VideoFeatures, VideoIndex, VideoStatus
from ...cache.fingerprint import ExtractionSettings, detection_fingerprint, fingerprint
from ...cache.hdf5 import read_index, read_video
from ..manifest.files import IMAGE_EXTENSIONS
from .detection import Detector
from .encoder_base import Encoder
from .face_crops import crop_face
from .face_tracks import FaceTrackReader, StaleTrackError, VideoJob, detection_code
from .tracking import Face, Start, is_missing
from .video_reader import DecodeError, SystemReadError, decoder_version

OVERFLOW = "overflowed in fp16, so its features are those of fp32"
"""Note of a video whose encoding is more precise than the settings of its cache say."""
BLOCK_BYTES = 4 << 20
"""Size of the blocks that features are collected in."""


class ExtractMonitor:
    """Receives events of an extraction; this one only counts what the encoder took.

    ``encode_seconds``: processor time of this process in the encoder, for ``encoded_crops`` crops, which include the padding of
    batches.
    """

    encode_seconds = 0.0
    encoded_crops = 0

    def begin(self, job: VideoJob) -> None:
        """Called before a video is opened."""

    def frame(self, job: VideoJob) -> None:
        """Called after each processed frame."""

    def end(self, job: VideoJob) -> None:
        """Called when no more frames of the video will be decoded."""

    def encoded(self, seconds: float, crops: int) -> None:
        """Called after every call of the encoder; ``crops``: those of a batch that was started, padding included."""
        self.encode_seconds += seconds
        self.encoded_crops += crops


class CropBatcher:
    """Crops faces and encodes them in full batches, whichever video or track they come from.

    ``monitor`` is told what the encoder takes.
    """

    def __init__(self, encoder: Encoder, settings: ExtractionSettings, monitor: ExtractMonitor | None = None) -> None:
        self._encoder, self._align, self._monitor = encoder, settings.align, monitor or ExtractMonitor()
        self._size = size = settings.crop_size
        self._crops = np.empty((encoder.batch_size, size, size, 3), np.uint8)
        self._outputs: list[list[np.ndarray]] = []
        self._in_flight: tuple[list[list[np.ndarray]], Callable[[], np.ndarray]] | None = None
        self._block = np.empty((0, 0))

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
        started = time.process_time()
        batch = (self._outputs, self._encoder.encode_async(self._crops[: len(self._outputs)]))
        self._monitor.encoded(time.process_time() - started, self._encoder.batch_size)
        self._outputs = []
        self._collect()
        self._in_flight = batch

    def _collect(self) -> None:
        if self._in_flight:
            outputs, fetch = self._in_flight
            started = time.process_time()
            encoded = fetch()
            self._monitor.encoded(time.process_time() - started, 0)
            for output, features in zip(outputs, self._to_block(encoded), strict=True):
                output.append(features)
            self._in_flight = None

    def _to_block(self, encoded: np.ndarray) -> np.ndarray:
        """Return a copy of a batch (N, D) in a large block of memory.

        An array of an encoder lies between those that it freed. Kept, it would hold their memory: 31 KB a frame.
        """
        count = len(encoded)
        if len(self._block) < count:
            rows = max(count, BLOCK_BYTES // encoded[0].nbytes)
            self._block = np.empty((rows, encoded.shape[1]), encoded.dtype)
        kept, self._block = self._block[:count], self._block[count:]
        kept[:] = encoded
        return kept


@dataclass
class _PendingVideo:
    """A video while its frames are in flight; ``source_sha256``: of a video whose face track is known."""

    track: FaceTrackReader
    source_sha256: str = ""
    features: list[np.ndarray] = field(default_factory=list)
    error: str = ""
    is_system_error: bool = False
    ended: bool = False

    @property
    def complete(self) -> bool:
        return self.ended and len(self.features) == len(self.track.faces)


class KnownTracks:
    """Reads face tracks from feature caches of the same videos; each index is read once."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        self._indexes: dict[Path, VideoIndex] = {}

    def find(self, job: VideoJob, source_sha256: str) -> VideoFeatures | None:
        """Return the video of a job in its feature cache; None if it is not there, damaged, or another one by now."""
        path = job.detections
        if path is None or job.detection != detection_fingerprint(
            self._settings, source_sha256, job.rotation, job.region
        ):
            return None
        try:
            if path not in self._indexes:
                self._indexes[path] = read_index(path)
            video = read_video(path, job.id, self._indexes[path])
        except CeflError:
            return None
        return (
            video
            if is_usable_track(video.status, video.detection, job.detection, video.detection_code, video.decoder)
            else None
        )


def is_usable_track(status: str, detection: str, expected: str, code: str, decoder: str) -> bool:
    """Return whether finding the faces again would give the same face track, by what the feature cache says of it."""
    has_track = status in (VideoStatus.OK, VideoStatus.TRUNCATED, VideoStatus.NO_FACE)
    return has_track and detection == expected and code == detection_code() and decoder == decoder_version()


def extract_videos(
    jobs: Iterable[VideoJob],
    detector: Detector | None,
    encoder: Encoder,
    settings: ExtractionSettings,
    monitor: ExtractMonitor | None = None,
) -> Iterator[VideoFeatures]:
    """Yield the features of every video in the order of the jobs.

    ``detector`` is None for face crops. The faces of a job with ``detections`` are taken from there; if these turn out not to be
    those of the video, they are found again. A video is read a second time if another face than the first one turns out to be
    the main one. A video that cannot be read has no frames and the reason in its note; if the system is at fault, not its
    content, it has no ``source_sha256`` either. Memory holds
    two batches of crops, the frames of one open gap, and a few to find scene cuts, however long the video.
    """
    monitor = monitor or ExtractMonitor()
    pending: list[_PendingVideo] = []
    batcher = CropBatcher(encoder, settings, monitor)
    tracks = KnownTracks(settings)
    for job in jobs:
        source = _hash_source(job.path) if job.detections else ""
        known = tracks.find(job, source) if source else None
        monitor.begin(job)
        try:
            video = _read_video(FaceTrackReader(job, settings, known), detector, batcher, monitor, pending)
            video.source_sha256 = source if known else ""
        except StaleTrackError:
            pending.pop()
            _read_video(FaceTrackReader(job, settings), detector, batcher, monitor, pending)
        monitor.end(job)
        while pending and pending[0].complete:
            yield _finish(pending.pop(0), detector, encoder, settings, monitor)
    batcher.flush()
    for video in pending:
        yield _finish(video, detector, encoder, settings, monitor)


def _finish(
    video: _PendingVideo,
    detector: Detector | None,
    encoder: Encoder,
    settings: ExtractionSettings,
    monitor: ExtractMonitor,
) -> VideoFeatures:
    """Return the features of a video that is complete; if they overflow in fp16, it is extracted again in fp32."""
    precise = None if encoder.precision != "fp16" or _is_finite(video) else encoder.in_fp32()
    if precise is None:
        return _to_features(video)
    (features,) = extract_videos([video.track.job], detector, precise, settings, monitor)
    return replace(features, note="; ".join(filter(None, [features.note, OVERFLOW])))


def _is_finite(video: _PendingVideo) -> bool:
    return bool(np.isfinite(np.array(video.features, np.float32)).all())


def _read_video(
    track: FaceTrackReader,
    detector: Detector | None,
    batcher: CropBatcher,
    monitor: ExtractMonitor,
    pending: list[_PendingVideo],
) -> _PendingVideo:
    """Read a video to its end and hand its crops to the encoder; raises StaleTrackError."""
    video = _PendingVideo(track)
    pending.append(video)
    try:
        track.begin(detector)
        starts: dict[int, Start] = {}
        for is_first_pass in (True, False):
            video.features = features = []
            for frame in track.read(detector, starts):
                batcher.add(frame.image, frame.face, features)
                monitor.frame(track.job)
            starts = track.better_starts() if is_first_pass else {}
            if not starts:
                break
        track.find_turned(detector)
    except DecodeError as error:
        video.error, video.is_system_error = str(error), isinstance(error, SystemReadError)
    video.ended = True
    return video


def _to_features(video: _PendingVideo) -> VideoFeatures:
    track, job, settings = video.track, video.track.job, video.track.settings
    faces, features, cuts = track.faces, video.features, track.cuts
    status, reason = track.status([] if settings.is_crops else features, video.error)  # pixels are finite
    times, fps, repair = track.true_times()
    reader_remarks = track.reader.remarks() if track.reader else ""
    notes = [reason, reader_remarks, repair, *track.remarks(times, status)]
    if status == VideoStatus.UNREADABLE:
        faces, features, times, cuts, notes = [], [], [], [], [reason]
        fps = track.reader.fps if track.reader else 0.0
    elif track.known:
        notes = [note for note in track.known.note.split("; ") if note != OVERFLOW]  # of another encoder
    source = "" if video.is_system_error else video.source_sha256 or _hash_source(job.path)
    features_of = build_video_features(
        job.id,
        [None if is_missing(face) else face for face in faces],
        features,
        times,
        track.shape,
        scene_start=cuts,
        width=settings.width,
        dtype=settings.dtype,
        fps=fps,
        declared_frames=track.reader.declared_frames if track.reader else -1,
        fingerprint=fingerprint(settings, source, job.rotation, job.region),
        source_sha256=source,
        status=status,
        note="; ".join(note for note in notes if note),
        rotation=track.rotation,
    )
    return replace(
        features_of,
        detection=detection_fingerprint(settings, source, job.rotation, job.region),
        detection_code=detection_code(),
    )


def build_video_features(
    video_id: str,
    faces: Sequence[Face | None],
    features: Sequence[np.ndarray],
    times: Sequence[float] | np.ndarray,
    shape: tuple[int, ...],
    *,
    width: int,
    dtype: str = "<f2",
    scene_start: Sequence[bool] | None = None,
    fps: float,
    declared_frames: int = -1,
    fingerprint: str = "",
    source_sha256: str = "",
    status: VideoStatus = VideoStatus.OK,
    note: str = "",
    rotation: str = "",
) -> VideoFeatures:
    """Stack the faces and features (D,) of the frames; a frame without a face is missing and its box is NaN.

    ``times`` in seconds; ``shape``: of a frame, (H, W, …); ``width``: D; ``dtype``: of the features; ``scene_start``: None for
    one scene. The others are as in VideoFeatures.
    """
    count = len(faces)
    box = [face.box if face else np.full(4, np.nan) for face in faces]
    landmarks = [face.landmarks if face else np.full((5, 2), np.nan) for face in faces]
    return VideoFeatures(
        id=video_id,
        features=np.array(features, dtype).reshape(count, width),
        time=np.array(times, np.float64).reshape(count),
        frame_status=np.array([face.status if face else FrameStatus.MISSING for face in faces], np.uint8),
        scene_start=np.array(scene_start if scene_start is not None else [False] * count, np.uint8),
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
