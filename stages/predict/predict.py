"""Predict expressions in videos: stage one's extraction, then the heads of a trained run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.features import VideoStatus
from ...cache.fingerprint import ExtractionSettings
from ..callbacks import ProgressCallback
from ..encoder.weights import read_encoder_metadata
from ..extract.detection import Detector
from ..extract.encoder_base import Encoder
from ..extract.extract_config import (
    ExtractConfig,
    build_detector,
    build_encoder,
    is_usable,
    resolve_backend,
    resolve_backend_device,
)
from ..extract.extractor import ExtractMonitor, extract_videos
from ..extract.face_tracks import VideoJob
from ..extract.orientation import AUTO_ROTATION, ROTATIONS, find_turned_faces
from ..extract.timestamps import MAX_FPS
from ..extract.video_reader import DecodeError, open_video
from ..heads.run_io import Run
from ..manifest.manifest import is_region
from .identity import IdentityNetwork
from .inference import Predictor
from .person_names import NO_NAMES, GroupedTrack, PersonNames
from .persons import assign_persons
from .prediction import Prediction
from .tracker import MIN_HITS, track_faces

Input = Literal["video", "crops"]


class FrameCounter(ExtractMonitor):
    """Reports processed frames as progress, out of ``passes`` times the ``num_frames`` that the containers declare.

    The frames of ``redrawn``, which are predicted already, count once.
    """

    def __init__(
        self, videos: list[Path], on_progress: ProgressCallback, passes: int = 1, redrawn: Sequence[Path] = ()
    ) -> None:
        self._frames = {video: declared_frames(video) for video in videos}
        self.num_frames, self._passes = sum(self._frames.values()), passes
        self._completed, self._total = 0, passes * self.num_frames + sum(map(declared_frames, redrawn))
        self._on_progress = on_progress

    def begin(self, job: VideoJob) -> None:
        self._on_progress(self._completed, self._total, job.path.name)

    def frame(self, job: VideoJob) -> None:
        self.advance(job.path.name)

    def finish(self, video: Path) -> None:
        """Count all frames of a video that another process has predicted."""
        self.advance(video.name, self._passes * self._frames[video])

    def advance(self, note: str, frames: int = 1) -> None:
        """Count frames."""
        self._completed += frames
        self._on_progress(self._completed, self._total, note)


@dataclass(frozen=True)
class VideoView:
    """How the videos of a call are read: ``rotation`` and ``region`` as in a manifest, ``fps`` of image folders (0: unknown).

    ``rotation`` may also be auto: so that faces are upright. Raises CeflError for other values.
    """

    rotation: str = ""
    region: str = ""
    fps: float = 0.0

    def __post_init__(self) -> None:
        if self.rotation not in ("0", AUTO_ROTATION, *ROTATIONS):
            raise CeflError(f"rotation {self.rotation!r}: use 0, 90, 180, 270 (degrees clockwise) or {AUTO_ROTATION}")
        if self.region and not is_region(self.region):
            raise CeflError(
                f"region {self.region!r} is not 'x y width height' in pixels; write left, top, width and height of a part "
                "of the frame, e.g. 0 0 640 480"
            )
        if not 0 <= self.fps <= MAX_FPS:
            raise CeflError(f"fps {self.fps}: use frames per second up to {MAX_FPS:g}, or 0 if they are not known")

    def job(self, path: Path) -> VideoJob:
        return VideoJob(str(path), path, self.rotation, self.region)


DEFAULT_VIEW = VideoView()
"""Videos as their files say, image folders without a frame rate."""


@dataclass(frozen=True)
class PersonOptions:
    """How face tracks are told apart and named: ``network``, the file of an identity network, None to join no tracks;
    ``thresh``, the cosine similarity from which tracks are one person (-1..1), None for that of the network; ``names``.

    Raises CeflError for a threshold that is none.
    """

    network: Path | None = None
    thresh: float | None = None
    names: PersonNames = NO_NAMES

    def __post_init__(self) -> None:
        if self.thresh is not None and not -1 <= self.thresh <= 1:
            raise CeflError(f"--person-thresh {self.thresh:g}: a cosine similarity is in -1..1; give one such as 0.4")
        if self.thresh is not None and self.network is None:
            raise CeflError("--person-thresh: needs embeddings to compare; give --identity-network FILE too")

    def fingerprint(self) -> str:
        """Return what decides who is who before names are given, in words."""
        if self.network is None:
            return ""
        return f"{sha256_of(self.network)} {self.thresh}" if self.network.is_file() else str(self.network)

    def named(self, path: Path, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return the predictions of a video with persons as they were grouped and then named; again, after other names, too."""
        tracks = [
            GroupedTrack(each.track or 1, each.grouped_person, each.first_frame, each.first_frame + each.num_frames)
            for each in predictions
        ]
        assigned, problem = self.names.assign(path, tracks)
        return [
            replace(each, person=person, name=name, naming="" if number else problem)
            for number, (each, (person, name)) in enumerate(zip(predictions, assigned, strict=True))
        ]


NO_PERSONS = PersonOptions()
"""Every face track is a person of its own, without a name."""


def predict_videos(
    run: Run,
    videos: list[Path],
    config: ExtractConfig,
    *,
    all_faces: bool = False,
    view: VideoView = DEFAULT_VIEW,
    calibration: bool = True,
    persons: PersonOptions = NO_PERSONS,
    monitor: ExtractMonitor | None = None,
    predictor: Predictor | None = None,
) -> Iterator[list[Prediction]]:
    """Yield, per video and in order, the prediction for its main face, or for every face in order of appearance.

    A video without a usable face gives one prediction with the reason in ``failure``. Memory holds the features (1 KB a
    frame) and boxes of one video, never its frames. ``calibration``: take the probabilities of each model at the run's
    temperature, if it has one. ``monitor`` is called for every video and frame. ``predictor``: of the run, if it is loaded.
    """
    if all_faces and config.input == "crops":
        raise CeflError(
            "--all-faces: with --input crops a frame is one face, so none are detected in it; leave out one of the two"
        )
    if persons.network and not all_faces:
        raise CeflError("--identity-network: tells the faces of --all-faces apart; give --all-faces too")
    predictor = predictor or Predictor(run, config.device, run.temperature if calibration else None)
    network = (
        _load_identity_network(persons.network, sha256_of(persons.network), config.device) if persons.network else None
    )
    each = _VideoPredictor(predictor, config, view, persons, network, monitor or ExtractMonitor())
    return each.all_faces(videos) if all_faces else each.main_face(videos)


@lru_cache(maxsize=1)
def _load_identity_network(path: Path, sha256: str, device: str) -> IdentityNetwork:
    """Load an identity network once for all videos of a process; ``sha256``: of the file, so that another one is loaded again."""
    return IdentityNetwork(path, device)


def extract_config_of(
    run: Run, encoder: Path, device: str, input: Input | None = None, det_size: int | None = None
) -> ExtractConfig:
    """Return the configuration that extracts features as those the run was trained on.

    A run that was trained on face crops of its data set gets faces that are detected and aligned as by default, unless
    ``input`` is crops: the videos to predict are such crops, too. ``det_size``: as in ExtractConfig, else that of the run.
    Raises CeflError for another encoder than the run's, and
    for crops to a run that was trained on videos.
    """
    settings = run.extraction_settings
    if input == "crops" and settings.input == "video":
        raise CeflError(
            "--input crops: this run was trained on faces that were detected in videos, and crops of others are cut "
            "differently; leave out --input crops"
        )
    if "folds" in run.config["features"]:
        raise CeflError(
            f"{run.path}: a run with an encoder for each fold ({settings.encoder}), made to compare, not to predict with; give "
            "--run one on the features of one encoder, or train such a one with ceflpipe train-heads"
        )
    metadata = read_encoder_metadata(encoder)
    if metadata.sha256 != settings.encoder_sha256:
        raise CeflError(
            f"{encoder}: not the encoder this run was trained with ({settings.encoder} {settings.encoder_sha256[:8]}…, "
            f"this is {metadata.name} {metadata.sha256[:8]}…); give the right file with --encoder, or train the run again"
        )
    backend = settings.backend
    if not is_usable(backend, settings.precision, device):
        backend = "auto"  # the same features up to the last digits, without OpenVINO or on a GPU
    values = {name: getattr(settings, name) for name in ("crop_size", "precision")} | {"input": input or "video"}
    if settings.input == "video":
        values |= {name: getattr(settings, name) for name in ("detector", "det_size", "det_thresh", "align")}
    if det_size:
        values["det_size"] = det_size
    config = ExtractConfig.model_validate({"encoder": encoder, "backend": backend, "device": device, **values})
    backend = resolve_backend(config)
    return config.model_copy(update={"backend": backend, "device": resolve_backend_device(backend, device)})


def crop_align(config: ExtractConfig) -> str:
    """Return how the crops of a configuration are cut: landmarks, box, or resize for crops that are given."""
    return "resize" if config.input == "crops" else config.align


@dataclass(frozen=True)
class _VideoPredictor:
    """What a call does with every video. ``network``: that of the options for persons, loaded."""

    predictor: Predictor
    config: ExtractConfig
    view: VideoView
    persons: PersonOptions
    network: IdentityNetwork | None
    monitor: ExtractMonitor

    def main_face(self, videos: list[Path]) -> Iterator[list[Prediction]]:
        """Yield the prediction for the main face of every video."""
        jobs = (self.view.job(path) for path in videos if path.exists())
        features = extract_videos(jobs, *self._build_networks(), self._settings(), self.monitor)
        for path in videos:
            if path.exists():
                video = next(features)
                yield self.persons.named(path, [replace(self.predictor(path, video), grouped_person=1)])
            else:
                yield [self._failed(path, VideoStatus.MISSING, "no such file")]

    def all_faces(self, videos: list[Path]) -> Iterator[list[Prediction]]:
        """Yield the predictions for all faces of every video, in order of appearance."""
        settings = self._settings()
        detector, encoder = self._build_networks()
        for path in videos:
            job = self.view.job(path)
            self.monitor.begin(job)
            tracked: list[tuple[Prediction, np.ndarray | None]] = []
            status, reason = VideoStatus.MISSING, "no such file"
            if detector is not None and path.exists():
                status, reason = VideoStatus.NO_FACE, f"no face tracked for at least {MIN_HITS} frames"
                try:
                    for face in track_faces(job, detector, encoder, settings, self.monitor, self.network):
                        prediction = self.predictor(path, face.features, face.first_frame)
                        tracked.append((replace(prediction, faces=face.faces), face.embedding))
                    if not tracked and job.rotation != AUTO_ROTATION:
                        turned = find_turned_faces(path, job.region, job.rotation, detector)
                        reason += f"; {turned}" if turned else ""
                except DecodeError as error:
                    status, reason = VideoStatus.UNREADABLE, str(error)
            yield self.persons.named(path, self._group(tracked)) or [self._failed(path, status, reason)]

    def _group(self, tracked: list[tuple[Prediction, np.ndarray | None]]) -> list[Prediction]:
        """Return the predictions for the face tracks of a video in order of appearance, with the persons they belong to."""
        tracked.sort(key=lambda pair: (pair[0].first_frame, -pair[0].face.area))
        spans = [(result.first_frame, result.first_frame + result.num_frames) for result, _ in tracked]
        thresh = self.persons.thresh
        if thresh is None:
            thresh = self.network.thresh if self.network else 1.0  # without a network there is nothing to compare
        members = assign_persons([embedding for _, embedding in tracked], spans, thresh)
        return [
            replace(
                result, track=number, grouped_person=member.person, similarity=member.similarity, unsure=member.unsure
            )
            for number, ((result, _), member) in enumerate(zip(tracked, members, strict=True), start=1)
        ]

    def _settings(self) -> ExtractionSettings:
        config = self.config
        return replace(
            self.predictor.run.extraction_settings, input=config.input, det_size=config.det_size, align=crop_align(config),
            fps=self.view.fps,
        )  # fmt: skip

    def _build_networks(self) -> tuple[Detector | None, Encoder]:
        """Return the detector and the encoder of the run; raises CeflError if the file of one has other content by now.

        The detector of a run that was trained on given crops may be any.
        """
        settings = self.predictor.run.extraction_settings
        return build_detector(self.config, settings.detector_sha256), build_encoder(
            self.config, settings.encoder_sha256
        )

    def _failed(self, path: Path, status: VideoStatus, reason: str) -> Prediction:
        predictor = self.predictor
        return Prediction(
            path, status=status, failure=reason, labels=predictor.labels, temperature=predictor.temperature
        )


def declared_frames(path: Path) -> int:
    """Return the number of frames that a container declares, 0 if it cannot be read."""
    try:
        return max(0, open_video(path).declared_frames)
    except DecodeError:
        return 0
