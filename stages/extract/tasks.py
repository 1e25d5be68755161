"""Worker tasks of stage one: groups of videos, crash isolation, and a watchdog for stalled decoders."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from ...cache.atomic import safe_name
from ...cache.features import VideoFeatures, VideoStatus
from ...cache.fingerprint import ExtractionSettings
from ...cache.hdf5 import read_index, write_part
from ..callbacks import Executor
from .extract_config import ExtractConfig, build_detector, build_encoder
from .extractor import ExtractMonitor, VideoJob, extract_videos

DECODE_TIMEOUT = 120.0
"""Seconds without a new frame after which a video counts as stalled."""
MAX_VIDEOS_PER_TASK = 8
"""Enough to fill batches across videos, few enough to keep all workers busy."""
MAX_BYTES_PER_TASK = 1 << 30
"""A longer video is a task of its own."""
MAX_ISOLATED_RETRIES = 2
"""Attempts with the video alone: a pool that has just lost a worker may lose the next task too, so one crash does not prove
that the video is at fault."""
_STARTED, _STALLED = ".started", ".stalled"  # extensions of marker files in the folder of part files


@dataclass(frozen=True)
class ExtractTask:
    """A few videos for one worker, and where their part files go.

    ``decode_timeout``: see DECODE_TIMEOUT; 0 turns the watchdog off.
    """

    jobs: tuple[VideoJob, ...]
    config: ExtractConfig
    settings: ExtractionSettings
    parts: Path
    decode_timeout: float = DECODE_TIMEOUT


@dataclass(frozen=True)
class VideoResult:
    """Outcome of one video; its features are in its part file."""

    id: str
    path: Path
    status: str
    note: str
    num_frames: int
    source_sha256: str


class Watchdog(ExtractMonitor):
    """While entered, calls ``on_timeout(job, reason)`` and exits this process if no frame comes for ``timeout`` seconds.

    A thread cannot stop a library that never returns, so the process has to end; other workers take over its videos.
    """

    def __init__(self, timeout: float, on_timeout: Callable[[VideoJob, str], None]) -> None:
        self._timeout, self._on_timeout = timeout, on_timeout
        self._job: VideoJob | None = None
        self._last_frame = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def begin(self, job: VideoJob) -> None:
        self._job, self._last_frame = job, time.monotonic()

    def frame(self, job: VideoJob) -> None:
        self.begin(job)

    def end(self, job: VideoJob) -> None:
        """Pause: no decoder is running, and hashing a large file may take longer than the timeout."""
        self._job = None

    def _run(self) -> None:
        while not self._stop.wait(min(1.0, self._timeout / 4)):
            job, elapsed = self._job, time.monotonic() - self._last_frame
            if job is not None and elapsed > self._timeout:
                self._on_timeout(job, f"decode timeout: no frame for {self._timeout:g} s")
                os._exit(1)


def extract_task(task: ExtractTask) -> list[VideoResult]:
    """Extract the videos of a task and write a part file for each as soon as it is finished. Runs in a worker.

    A marker file exists while it runs: after a crash it distinguishes running tasks from pending ones.
    """
    detector, encoder = build_detector(task.config), build_encoder(task.config)
    if not task.decode_timeout:
        return _write_parts(task, extract_videos(task.jobs, detector, encoder, task.settings))
    with Watchdog(task.decode_timeout, partial(_mark_stalled, task.parts)) as watchdog:
        return _write_parts(task, extract_videos(task.jobs, detector, encoder, task.settings, watchdog))


def _write_parts(task: ExtractTask, videos: Iterable[VideoFeatures]) -> list[VideoResult]:
    marker = _started_marker(task)
    task.parts.mkdir(parents=True, exist_ok=True)
    marker.touch()
    paths = {job.id: job.path for job in task.jobs}
    results = []
    for video in videos:
        write_part(_part(task.parts, video.id), video, task.settings)
        results.append(
            VideoResult(video.id, paths[video.id], video.status, video.note, len(video.features), video.source_sha256)
        )
    marker.unlink(missing_ok=True)
    return results


def run_tasks(tasks: Sequence[ExtractTask], executor: Executor) -> Iterator[VideoResult]:
    """Yield the outcome of every video as it completes.

    If a worker dies, the videos it had finished count, pending tasks are run again, and the rest of the task it was running
    is retried one video at a time to find the one at fault, which is then ``crashed`` or ``stalled``.
    """
    pending = list(tasks)
    while pending:
        lost = []
        for outcome in executor(extract_task, pending):
            if isinstance(outcome, list):
                yield from outcome
            else:
                lost.append(outcome[0])
        running = [task for task in lost if _started_marker(task).exists()] or lost
        pending = []
        for task in lost:
            yield from (result for job in task.jobs if (result := _finished_result(task, job)))
            rest = tuple(job for job in task.jobs if not _part(task.parts, job.id).exists())
            if task not in running and rest:
                pending.append(replace(task, jobs=rest))
            elif task in running:
                for job in rest:
                    yield _retry_isolated(replace(task, jobs=(job,)), executor)


def remove_stale_parts(jobs: Sequence[VideoJob], parts: Path) -> None:
    """Remove part files of videos that will be redone: they have other settings or another source file."""
    for job in jobs:
        _part(parts, job.id).unlink(missing_ok=True)


def make_tasks(
    jobs: Sequence[VideoJob],
    workers: int,
    config: ExtractConfig,
    settings: ExtractionSettings,
    parts: Path,
    decode_timeout: float = DECODE_TIMEOUT,
) -> list[ExtractTask]:
    """Group the jobs, in their order, into tasks: at least four per worker if there are enough, bounded in videos and bytes."""
    max_videos = max(1, min(MAX_VIDEOS_PER_TASK, len(jobs) // max(1, 4 * workers)))
    groups: list[list[VideoJob]] = []
    remaining = 0
    for job in jobs:
        size = job_bytes(job)
        if not groups or len(groups[-1]) == max_videos or size > remaining:
            groups.append([])
            remaining = MAX_BYTES_PER_TASK
        groups[-1].append(job)
        remaining -= size
    return [ExtractTask(tuple(group), config, settings, parts, decode_timeout) for group in groups]


def job_bytes(job: VideoJob) -> int:
    """Return the size of a video file, or of the images of a folder; 0 if it cannot be read."""
    try:
        if job.path.is_dir():
            with os.scandir(job.path) as entries:
                return sum(entry.stat().st_size for entry in entries if entry.is_file())
        return job.path.stat().st_size
    except OSError:  # the worker will report it as unreadable
        return 0


def _finished_result(task: ExtractTask, job: VideoJob) -> VideoResult | None:
    """Return what a worker finished before it died, from its part file."""
    part = _part(task.parts, job.id)
    if not part.exists():
        return None
    index = read_index(part)
    return VideoResult(job.id, job.path, index.status[0], index.note[0], int(index.length[0]), index.source_sha256[0])


def _retry_isolated(task: ExtractTask, executor: Executor) -> VideoResult:
    """Run a task of one video on its own, unless it has stalled already, and return its outcome."""
    (job,) = task.jobs
    stalled = _stalled_marker(task.parts, job.id)
    reason = ""
    for _ in range(MAX_ISOLATED_RETRIES):
        if stalled.exists():
            break
        (outcome,) = executor(extract_task, [task])  # consumed to its end: an abandoned executor would stop its workers
        if isinstance(outcome, list):
            return outcome[0]
        reason = outcome[1]
    if stalled.exists():
        return VideoResult(job.id, job.path, VideoStatus.STALLED, stalled.read_text(encoding="utf-8"), 0, "")
    return VideoResult(job.id, job.path, VideoStatus.CRASHED, reason, 0, "")


def _mark_stalled(parts: Path, job: VideoJob, reason: str) -> None:
    _stalled_marker(parts, job.id).write_text(reason, encoding="utf-8")


def _part(parts: Path, video_id: str) -> Path:
    return parts / f"{safe_name(video_id)}.h5"


def _stalled_marker(parts: Path, video_id: str) -> Path:
    return parts / f"{safe_name(video_id)}{_STALLED}"


def _started_marker(task: ExtractTask) -> Path:
    return task.parts / f"{safe_name(task.jobs[0].id)}{_STARTED}"
