"""Predict expressions in videos: stage one's extraction, then the heads of a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ...cache.features import VideoFeatures
from ..callbacks import ProgressCallback
from ..encoder.weights import read_encoder_metadata
from ..extract.encoder_openvino import openvino_available
from ..extract.extract_config import (
    ExtractConfig,
    build_detector,
    build_encoder,
    resolve_backend_device,
)
from ..extract.extractor import ExtractMonitor, VideoJob, extract_videos
from ..extract.video_reader import DecodeError, open_video
from ..heads.run_io import Run
from .inference import Prediction, Predictor
from .tracker import MIN_HITS, track_faces


@dataclass(frozen=True)
class FaceTrack:
    """Box (T, 4), landmarks (T, 5, 2) and status (T,) of a face in T frames from ``first_frame`` on."""

    first_frame: int
    box: np.ndarray
    landmarks: np.ndarray
    frame_status: np.ndarray

    @property
    def area(self) -> float:
        """Area in pixels of the first box."""
        return float(np.prod(self.box[0, 2:] - self.box[0, :2])) if len(self.box) else 0.0


@dataclass(frozen=True)
class TrackedPrediction:
    """What a run predicts for one face track."""

    prediction: Prediction
    track: FaceTrack


class FrameCounter(ExtractMonitor):
    """Reports processed frames as progress, out of ``passes`` times the frames that the containers declare."""

    def __init__(self, videos: list[Path], on_progress: ProgressCallback, passes: int = 1) -> None:
        self._completed, self._total = 0, passes * sum(map(declared_frames, videos))
        self._on_progress = on_progress

    def begin(self, job: VideoJob) -> None:
        self._on_progress(self._completed, self._total, job.path.name)

    def frame(self, job: VideoJob) -> None:
        self.advance(job.path.name)

    def advance(self, note: str) -> None:
        """Count one frame."""
        self._completed += 1
        self._on_progress(self._completed, self._total, note)


@dataclass(frozen=True)
class VideoView:
    """How the videos of a call are read: ``rotation`` and ``region`` as in a manifest, ``fps`` of image folders (0: unknown)."""

    rotation: str = ""
    region: str = ""
    fps: float = 0.0

    def job(self, path: Path) -> VideoJob:
        return VideoJob(str(path), path, self.rotation, self.region)


DEFAULT_VIEW = VideoView()
"""Videos as their files say, image folders without a frame rate."""


def predict(
    run: Run, videos: list[Path], *, encoder: Path, device: str = "auto", view: VideoView = DEFAULT_VIEW
) -> Iterator[Prediction]:
    """Yield a prediction per video, in order, of its main face; probabilities are the mean over folds and seeds.

    ``encoder``: the encoder file the run was trained with; raises CeflError if it is another one.
    """
    for results in predict_videos(run, videos, extract_config_of(run, encoder, device), view=view):
        yield results[0].prediction


def predict_videos(
    run: Run,
    videos: list[Path],
    config: ExtractConfig,
    *,
    all_faces: bool = False,
    view: VideoView = DEFAULT_VIEW,
    monitor: ExtractMonitor | None = None,
) -> Iterator[list[TrackedPrediction]]:
    """Yield, per video and in order, the prediction for its main face, or for every face in order of appearance.

    A video without a usable face gives one prediction with the reason in ``failure``. Memory holds the features (1 KB a
    frame) and boxes of one video, never its frames. ``monitor`` is called for every video and frame.
    """
    if all_faces and config.input == "crops":
        raise CeflError(
            "--all-faces: this run was trained on face crops, so no faces are detected in a frame; leave out --all-faces"
        )
    predictor = Predictor(run, config.device)
    predict_all = _predict_all_faces if all_faces else _predict_main_face
    return predict_all(predictor, videos, config, view, monitor or ExtractMonitor())


def extract_config_of(run: Run, encoder: Path, device: str) -> ExtractConfig:
    """Return the configuration that extracts features as those the run was trained on."""
    settings = run.extraction_settings
    metadata = read_encoder_metadata(encoder)
    if metadata.sha256 != settings.encoder_sha256:
        raise CeflError(
            f"{encoder}: not the encoder this run was trained with ({settings.encoder} {settings.encoder_sha256[:8]}…, "
            f"this is {metadata.name} {metadata.sha256[:8]}…); give the right file with --encoder, or train the run again"
        )
    backend = settings.backend
    if backend == "openvino" and not openvino_available(settings.precision):
        backend = "torch"  # the same features up to the last digits, if there is no OpenVINO
    values = {name: getattr(settings, name) for name in ("input", "crop_size", "precision")}
    if settings.input == "video":
        values |= {name: getattr(settings, name) for name in ("detector", "det_size", "det_thresh", "align")}
    device = resolve_backend_device(backend, device)
    return ExtractConfig.model_validate({"encoder": encoder, "backend": backend, "device": device, **values})


def _predict_main_face(
    predictor: Predictor, videos: list[Path], config: ExtractConfig, view: VideoView, monitor: ExtractMonitor
) -> Iterator[list[TrackedPrediction]]:
    jobs = (view.job(path) for path in videos if path.exists())
    settings = replace(predictor.run.extraction_settings, fps=view.fps)
    features = extract_videos(jobs, build_detector(config), build_encoder(config), settings, monitor)
    for path in videos:
        if path.exists():
            video = next(features)
            yield [TrackedPrediction(predictor(path, video), _to_track(video, 0))]
        else:
            yield [_failed(path, "no such file")]


def _predict_all_faces(
    predictor: Predictor, videos: list[Path], config: ExtractConfig, view: VideoView, monitor: ExtractMonitor
) -> Iterator[list[TrackedPrediction]]:
    settings = replace(predictor.run.extraction_settings, fps=view.fps)
    detector, encoder = build_detector(config), build_encoder(config)
    for path in videos:
        job = view.job(path)
        monitor.begin(job)
        results: list[TrackedPrediction] = []
        reason = "no such file"
        if detector is not None and path.exists():
            reason = f"no face tracked for at least {MIN_HITS} frames"
            try:
                for first, video in track_faces(job, detector, encoder, settings, monitor):
                    results.append(TrackedPrediction(predictor(path, video, first), _to_track(video, first)))
            except DecodeError as error:
                reason = str(error)
        results.sort(key=lambda result: (result.track.first_frame, -result.track.area))
        numbered = [
            TrackedPrediction(replace(result.prediction, track=number), result.track)
            for number, result in enumerate(results, start=1)
        ]
        yield numbered or [_failed(path, reason)]


def declared_frames(path: Path) -> int:
    """Return the number of frames that a container declares, 0 if it cannot be read."""
    try:
        return max(0, open_video(path).declared_frames)
    except DecodeError:
        return 0


def _failed(path: Path, reason: str) -> TrackedPrediction:
    empty = FaceTrack(0, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.uint8))
    return TrackedPrediction(Prediction(path, failure=reason), empty)


def _to_track(video: VideoFeatures, first_frame: int) -> FaceTrack:
    return FaceTrack(first_frame, video.box, video.landmarks, video.frame_status)
