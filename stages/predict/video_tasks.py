"""Prediction of many videos by worker processes: one video is a task, so a crash or a stalled decoder costs only that video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.features import VideoStatus
from ..callbacks import Executor
from ..extract.extract_config import DECODE_TIMEOUT
from ..extract.face_tracks import VideoJob
from ..extract.tasks import MAX_ISOLATED_RETRIES, Watchdog
from ..heads.run_io import SUMS_FILE, read_run
from .inference import Predictor
from .outputs import to_dict
from .predict import predict_videos
from .prediction import Prediction
from .results import PredictOptions, Record, ResultFolder


@dataclass(frozen=True)
class PredictTask:
    """A video for a worker, which writes its files to ``folder`` if there is one.

    ``number``: of the task, in the names of the files in the folder ``markers`` that tell which tasks a dead worker was running.
    ``decode_timeout``: seconds without a frame after which the video counts as stalled. ``returns_predictions``: whether the
    outcome has them; their size grows with the length of the video.
    """

    number: int
    video: Path
    options: PredictOptions
    folder: ResultFolder | None
    markers: Path
    decode_timeout: float = DECODE_TIMEOUT
    returns_predictions: bool = False

    @property
    def started(self) -> Path:
        """A file that exists while the task runs."""
        return self.markers / f"{self.number}.started"

    @property
    def stalled(self) -> Path:
        """A file with the reason why the video counts as stalled."""
        return self.markers / f"{self.number}.stalled"


@dataclass(frozen=True)
class PredictOutcome:
    """What became of a video: the results of ``to_dict``, and why its files could not be written, '' if they were."""

    number: int
    records: list[Record]
    problem: str = ""
    predictions: list[Prediction] = field(default_factory=list)


def predict_task(task: PredictTask) -> PredictOutcome:
    """Predict a video and write its files. Runs in a worker, which loads a run once for all of its videos."""
    task.started.touch()
    options = task.options
    fingerprint = options.fingerprint(task.video) if task.folder else ""
    sums = sha256_of(options.run.path / SUMS_FILE)
    predictor = _load_predictor(options.run.path, sums, options.config.device, options.calibration)
    with Watchdog(task.decode_timeout, partial(_mark_stalled, task.stalled)) as watchdog:
        (predictions,) = predict_videos(
            options.run, [task.video], options.config, all_faces=options.all_faces, view=options.view,
            calibration=options.calibration, persons=options.persons, monitor=watchdog, predictor=predictor,
        )  # fmt: skip
    outcome = _to_outcome(task, predictions, fingerprint)
    task.started.unlink(missing_ok=True)
    return outcome


def run_predictions(tasks: Sequence[PredictTask], executor: Executor) -> Iterator[PredictOutcome]:
    """Yield the outcome of every task as it completes.

    If a worker dies, pending tasks are run again, and those that were running are retried one at a time to find the video at
    fault, whose prediction then has the reason.
    """
    pending = list(tasks)
    while pending:
        lost = []
        for outcome in executor(predict_task, pending):
            if isinstance(outcome, PredictOutcome):
                yield outcome
            else:
                lost.append(outcome[0])
        running = [task for task in lost if task.started.exists()] or lost
        numbers = {task.number for task in running}
        pending = [task for task in lost if task.number not in numbers]
        for task in running:
            yield _retry_isolated(task, executor)


def _retry_isolated(task: PredictTask, executor: Executor) -> PredictOutcome:
    """Run a task by itself until it has a result or its fault is certain, and return its outcome."""
    reason = ""
    for _ in range(MAX_ISOLATED_RETRIES):
        if task.stalled.exists():
            break
        (outcome,) = executor(predict_task, [task])  # consumed to its end: an abandoned executor would stop its workers
        if isinstance(outcome, PredictOutcome):
            return outcome
        reason = outcome[1]
    status = VideoStatus.CRASHED
    if task.stalled.exists():
        status, reason = VideoStatus.STALLED, task.stalled.read_text(encoding="utf-8")
    run = task.options.run
    failed = Prediction(task.video, status=status, failure=reason, labels=run.labels, temperature=run.temperature)
    return _to_outcome(task, [failed], task.options.fingerprint(task.video) if task.folder else "")


def _to_outcome(task: PredictTask, predictions: list[Prediction], fingerprint: str) -> PredictOutcome:
    """Write the files of a video and return its outcome."""
    problem = ""
    if task.folder:
        try:
            task.folder.write(task.video, predictions, fingerprint)
        except CeflError as error:
            problem = str(error)
    records = [to_dict(prediction, task.options.run.labels) for prediction in predictions]
    return PredictOutcome(task.number, records, problem, predictions if task.returns_predictions else [])


def _mark_stalled(marker: Path, job: VideoJob, reason: str) -> None:
    marker.write_text(reason, encoding="utf-8")


@lru_cache(maxsize=1)
def _load_predictor(path: Path, sums_sha256: str, device: str, calibration: bool) -> Predictor:
    """Load a run; ``sums_sha256``: of its checksums, so that another run of the same path is loaded again."""
    run = read_run(path)
    return Predictor(run, device, run.temperature if calibration else None)
