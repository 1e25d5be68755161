"""Predict expressions in videos: stage one's extraction, then the heads of a trained run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ...cache.features import VideoFeatures
from ...cache.fingerprint import ExtractionSettings
from ..encoder.weights import describe_encoder
from ..extract.encoder_openvino import works_here
from ..extract.extract_config import Wishes, make_detector, make_encoder, place_of, settle
from ..extract.extractor import Job, extract_videos
from ..extract.video_reader import CannotDecode
from ..heads.run_io import Run
from .inference import Judge, Prediction, failed
from .tracker import FEWEST, follow_everyone

OnFrames = Callable[[int], None]
"""Told how many frames have just been looked at."""


@dataclass(frozen=True)
class Track:
    """Where a person's face was: box (T, 4), landmarks (T, 5, 2), status (T,) of frames from ``first_frame`` on."""

    first_frame: int
    box: np.ndarray
    landmarks: np.ndarray
    frame_status: np.ndarray


Watched = tuple[Prediction, Track]


def predict(run: Run, videos: list[Path], *, weights: Path, device: str = "auto") -> Iterator[Prediction]:
    """Yield a prediction per video, in order, of its main face; the probabilities are the mean over folds and seeds.

    Raises CeflError when the encoder the run was trained with is not at hand.
    """
    for watched in watch(run, videos, wishes_of(run, weights, device)):
        yield watched[0][0]


def watch(
    run: Run, videos: list[Path], wishes: Wishes, *, everyone: bool = False, on_frames: OnFrames = lambda count: None
) -> Iterator[list[Watched]]:
    """Yield, per video and in order, what is said of its main face, or of ``everyone`` in the order of appearance.

    A video that cannot be judged gives one prediction with its failure. Memory holds features (1 KB a frame) and boxes
    of one video, never its pictures."""
    judge = Judge(run, wishes.device)
    if everyone and wishes.faces == "given":
        raise CeflError(
            "--faces all: this run's videos are face crops already, in which nobody is looked for; leave it out"
        )
    return _everyone(judge, videos, wishes, on_frames) if everyone else _main(judge, videos, wishes, on_frames)


def wishes_of(run: Run, weights: Path, device: str) -> Wishes:
    """Return stage one's settings that the run's features were made with."""
    made = ExtractionSettings(**json.loads(run.about["features"]["settings"]))
    encoder = describe_encoder(weights)
    if encoder.sha256 != made.encoder_sha256:
        raise CeflError(
            f"{weights}: not the encoder this run was trained with ({made.encoder} {made.encoder_sha256[:8]}…, this is "
            f"{encoder.name} {encoder.sha256[:8]}…); give the right file with --weights, or train the run again"
        )
    given = made.faces == "given"
    backend = made.backend
    if backend == "openvino" and not works_here(made.precision):
        backend = "torch"  # the same numbers up to the last digits, wherever there is no OpenVINO
    return Wishes(
        weights=weights, faces=made.faces, detector=made.detector or "retinaface", side=made.detector_side or 640,
        minimum_score=made.minimum_score or 0.5, align="landmarks" if given else made.align, size=made.size,
        device=place_of(backend, device), precision=made.precision, backend=backend,
    )  # fmt: skip


def _main(judge: Judge, videos: list[Path], wishes: Wishes, on_frames: OnFrames) -> Iterator[list[Watched]]:
    jobs = (Job(str(path), path) for path in videos if path.exists())
    tell = _frames_of(on_frames)
    features = extract_videos(jobs, make_detector(wishes), make_encoder(wishes), settle(wishes), tell)
    for path in videos:
        if path.exists():
            video = next(features)
            yield [(judge(path, video), _track(video, 0))]
        else:
            yield [(failed(path, "no such file"), _nowhere())]


def _frames_of(on_frames: OnFrames) -> Callable[[Job], None]:
    """Turn stage one's calls (a video begins, a frame is read, …) into counts of frames."""
    begun: set[str] = set()

    def tell(job: Job) -> None:
        if job.id in begun:
            on_frames(1)
        begun.add(job.id)

    return tell


def _everyone(judge: Judge, videos: list[Path], wishes: Wishes, on_frames: OnFrames) -> Iterator[list[Watched]]:
    detector, encoder, settings = make_detector(wishes), make_encoder(wishes), settle(wishes)
    for path in videos:
        found: list[Watched] = []
        reason = "no such file"
        if detector is not None and path.exists():
            reason = f"nobody is seen in {FEWEST} frames or more"
            try:
                for first, video in follow_everyone(path, detector, encoder, settings, lambda: on_frames(1)):
                    found.append((judge(path, video, first), _track(video, first)))
            except CannotDecode as error:
                reason = str(error)
        found.sort(key=lambda watched: (watched[1].first_frame, -_area(watched[1])))
        yield _numbered(found) or [(failed(path, reason), _nowhere())]


def _numbered(found: Iterable[Watched]) -> list[Watched]:
    return [(replace(prediction, person=number), track) for number, (prediction, track) in enumerate(found, start=1)]


def _track(video: VideoFeatures, first: int) -> Track:
    return Track(first, video.box, video.landmarks, video.frame_status)


def _nowhere() -> Track:
    return Track(0, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.uint8))


def _area(track: Track) -> float:
    return float(np.prod(track.box[0, 2:] - track.box[0, :2])) if len(track.box) else 0.0
