"""Prediction of the videos of a command: those that are finished, and the others in this process or in workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import CeflError
from ..stages.extract.extractor import ExtractMonitor
from ..stages.predict.formats.output_formats import Part
from ..stages.predict.outputs import to_dict
from ..stages.predict.predict import FrameCounter, predict_videos
from ..stages.predict.prediction import Prediction
from ..stages.predict.results import PredictOptions, Record, ResultFolder
from ..stages.predict.video_tasks import PredictTask, run_predictions
from .executor import num_cores, process_executor


@dataclass(frozen=True)
class FinishedVideo:
    """The results of a video that an earlier command predicted, and the files that are missing of it."""

    records: list[Record]
    missing: list[Part]


@dataclass(frozen=True)
class VideoOutcome:
    """What became of the video of this number: its results, and why its files could not be written, '' if they were."""

    number: int
    records: list[Record]
    problem: str = ""


def default_workers(num_videos: int, device: str) -> int:
    """Return how many processes predict so many videos: one per core, 0 (this one) for a single video or on a GPU."""
    return min(num_cores(), num_videos) if num_videos > 1 and device == "cpu" else 0


def iter_outcomes(
    videos: Sequence[Path],
    options: PredictOptions,
    folder: ResultFolder | None,
    finished: Mapping[Path, FinishedVideo],
    counter: FrameCounter,
    workers: int,
    decode_timeout: float,
) -> Iterator[VideoOutcome]:
    """Yield the outcome of every video as it completes; with 0 ``workers`` in this process, one after the other.

    The files of a video are written before its outcome comes. With ``workers`` a video that kills its worker, or whose decoder
    gives no frame for ``decode_timeout`` seconds, has the reason in its results.
    """
    if not workers:
        yield from _in_this_process(videos, options, folder, finished, counter)
        return
    for number, video in enumerate(videos):
        if video in finished:
            yield _complete(number, video, folder, finished[video], counter)
    with tempfile.TemporaryDirectory(prefix="ceflpipe-") as markers:
        tasks = [
            PredictTask(number, video, options, folder and folder.for_video(video), Path(markers), decode_timeout)
            for number, video in enumerate(videos)
            if video not in finished
        ]
        for outcome in run_predictions(tasks, process_executor(workers)) if tasks else ():
            counter.finish(videos[outcome.number])
            yield VideoOutcome(outcome.number, outcome.records, outcome.problem)


def predict_together(videos: Sequence[Path], options: PredictOptions, workers: int) -> list[Prediction]:
    """Return the predictions of the videos, in order, from so many processes; 1: this one. No files are written."""
    if workers == 1:
        return [prediction for predictions in _predict(videos, options, None) for prediction in predictions]
    with tempfile.TemporaryDirectory(prefix="ceflpipe-") as markers:
        tasks = [
            PredictTask(number, video, options, None, Path(markers), returns_predictions=True)
            for number, video in enumerate(videos)
        ]
        outcomes = {outcome.number: outcome for outcome in run_predictions(tasks, process_executor(workers))}
    return [prediction for number in range(len(videos)) for prediction in outcomes[number].predictions]


def _predict(
    videos: Sequence[Path], options: PredictOptions, monitor: ExtractMonitor | None
) -> Iterator[list[Prediction]]:
    return predict_videos(
        options.run, list(videos), options.config, all_faces=options.all_faces, view=options.view,
        calibration=options.calibration, persons=options.persons, monitor=monitor,
    )  # fmt: skip


def _in_this_process(
    videos: Sequence[Path],
    options: PredictOptions,
    folder: ResultFolder | None,
    finished: Mapping[Path, FinishedVideo],
    counter: FrameCounter,
) -> Iterator[VideoOutcome]:
    pending = [video for video in videos if video not in finished]
    results = _predict(pending, options, counter) if pending else iter(())
    for number, video in enumerate(videos):
        if video in finished:
            yield _complete(number, video, folder, finished[video], counter)
            continue
        records, problem = [], ""
        try:
            fingerprint = options.fingerprint(video) if folder else ""
            predictions = next(results)
            records = [to_dict(prediction, options.run.labels) for prediction in predictions]
            if folder:
                folder.write(video, predictions, fingerprint, counter)
        except CeflError as error:
            problem = str(error)
        yield VideoOutcome(number, records, problem)


def _complete(
    number: int, video: Path, folder: ResultFolder | None, known: FinishedVideo, counter: FrameCounter
) -> VideoOutcome:
    """Write the missing files of a finished video."""
    problem = ""
    try:
        if folder:
            folder.complete(video, known.records, known.missing, counter)
    except CeflError as error:
        problem = str(error)
    return VideoOutcome(number, known.records, problem)
