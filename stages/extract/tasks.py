"""Worker tasks of stage one: batches of videos, crash isolation, and a watchdog for stalled decoders."""

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
from ...cache.fingerprint import ExtractionSettings
from ...cache.hdf5 import read_index, write_part
from .extract_config import Wishes, make_detector, make_encoder
from .extractor import Job, extract_videos

PATIENCE = 120.0
"""Seconds without a new frame after which a video counts as stalled."""


class Watchdog:
    """While entered, calls ``give_up(job)`` and ends this process when no frame was reported for ``patience`` seconds.

    A thread cannot stop a library that never returns, so the process has to go; the others carry its work on.
    """

    def __init__(self, patience: float, give_up: Callable[[Job, str], None]) -> None:
        self._patience, self._give_up = patience, give_up
        self._job: Job | None = None
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def alive(self, job: Job) -> None:
        """Say that this video is being worked on and has just begun or given a frame."""
        self._job, self._since = job, time.monotonic()

    def rest(self) -> None:
        """Say that no decoder is at work: a large file may be hashed for longer than a frame may take."""
        self._job = None

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._patience / 4)):
            job, silent = self._job, time.monotonic() - self._since
            if job is not None and silent > self._patience:
                self._give_up(job, f"no frame came for {self._patience:g} s; the decoder stalls on this file")
                os._exit(1)


LARGEST_TASK = 8
"""Videos that one worker takes at a time: enough to fill batches across videos, few enough to keep all workers busy."""
LARGEST_BYTES = 1 << 30
"""Bytes of video in one task: a long video is a task of its own."""
TRIES_ALONE = 2
"""A pool that has just lost a worker may lose the next task for the same reason, so one more death is no proof."""
_BEGUN, _STALLED = ".begun", ".stalled"  # endings of marks in the folder of part files


@dataclass(frozen=True)
class Task:
    """A few videos for one worker, everything it needs to know about them, and where their part files go.

    ``patience``: seconds without a frame before the worker gives itself up; 0 where there is no process to spare.
    """

    jobs: tuple[Job, ...]
    wishes: Wishes
    settings: ExtractionSettings
    parts: Path
    patience: float = PATIENCE


@dataclass(frozen=True)
class Done:
    """What a worker says of one video; the features themselves are in its part file."""

    id: str
    path: Path
    status: str
    note: str
    frames: int
    source_sha256: str


Lost = tuple[Task, str]
"""A task whose worker died, and what is known of the death."""
Mapper = Callable[[Callable[[Task], list[Done]], Sequence[Task]], Iterable[list[Done] | Lost]]
"""Runs a function over tasks, in this process, in others or on other machines, and gives results as they come."""


def extract_task(task: Task) -> list[Done]:
    """What a worker does: extract the videos of a task and write a part file for each as soon as it is finished.

    While it works a mark lies beside the part files, which tells after a crash who was at work and who only waited.
    """
    detector, encoder = make_detector(task.wishes), make_encoder(task.wishes)
    if not task.patience:
        return _work(task, partial(extract_videos, task.jobs, detector, encoder, task.settings))
    with Watchdog(task.patience, partial(_note_stall, task.parts)) as watchdog:
        return _work(
            task, partial(extract_videos, task.jobs, detector, encoder, task.settings, watchdog.alive, watchdog.rest)
        )


def _work(task: Task, videos: Callable[[], Iterable]) -> list[Done]:
    mark = _mark(task)
    task.parts.mkdir(parents=True, exist_ok=True)
    mark.touch()
    paths = {job.id: job.path for job in task.jobs}
    finished = []
    for video in videos():
        write_part(_part(task.parts, video.id), video, task.settings.to_json())
        finished.append(
            Done(video.id, paths[video.id], video.status, video.note, len(video.features), video.source_sha256)
        )
    mark.unlink(missing_ok=True)
    return finished


def run_tasks(tasks: Sequence[Task], mapper: Mapper) -> Iterator[Done]:
    """Yield every video's outcome as it comes.

    When a worker dies, what it had finished counts, what only waited is dealt out again, and the videos it was at work
    on are tried once more one by one, each on its own, to find the one at fault: that one is ``crashed`` or ``stalled``.
    """
    waiting = list(tasks)
    while waiting:
        lost = []
        for outcome in mapper(extract_task, waiting):
            if isinstance(outcome, list):
                yield from outcome
            else:
                lost.append(outcome[0])
        begun = [task for task in lost if _mark(task).exists()] or lost
        waiting = []
        for task in lost:
            yield from (done for job in task.jobs if (done := _finished_before(task, job)))
            rest = tuple(job for job in task.jobs if not _part(task.parts, job.id).exists())
            if task not in begun and rest:
                waiting.append(replace(task, jobs=rest))
            elif task in begun:
                for job in rest:
                    yield _alone(replace(task, jobs=(job,)), mapper)


def forget(jobs: Sequence[Job], parts: Path) -> None:
    """Remove part files of videos that are to be made again: what is there is of other settings, or of another file."""
    for job in jobs:
        _part(parts, job.id).unlink(missing_ok=True)


def in_this_process(function: Callable[[Task], list[Done]], tasks: Sequence[Task]) -> Iterator[list[Done] | Lost]:
    for task in tasks:
        yield function(task)


def deal(jobs: Sequence[Job], workers: int, wishes: Wishes, settings: ExtractionSettings, parts: Path) -> list[Task]:
    """Cut the jobs into tasks: in their order, at least four a worker where there are enough, bounded in videos and bytes."""
    most = max(1, min(LARGEST_TASK, len(jobs) // max(1, 4 * workers)))
    groups: list[list[Job]] = []
    room = 0
    for job in jobs:
        size = job_bytes(job)
        if not groups or len(groups[-1]) == most or size > room:
            groups.append([])
            room = LARGEST_BYTES
        groups[-1].append(job)
        room -= size
    return [Task(tuple(group), wishes, settings, parts) for group in groups]


def job_bytes(job: Job) -> int:
    """Return the size of a video file, or of the pictures of a folder; 0 where it cannot be read now."""
    try:
        if job.path.is_dir():
            with os.scandir(job.path) as listing:
                return sum(entry.stat().st_size for entry in listing if entry.is_file())
        return job.path.stat().st_size
    except OSError:  # it will be listed as unreadable by the worker that tries
        return 0


def _finished_before(task: Task, job: Job) -> Done | None:
    """Return what a worker finished before it died, from the part file that it left."""
    part = _part(task.parts, job.id)
    if not part.exists():
        return None
    index = read_index(part)
    return Done(job.id, job.path, index.status[0], index.note[0], int(index.length[0]), index.source_sha256[0])


def _alone(task: Task, mapper: Mapper) -> Done:
    """Return the outcome of a task of one video, which is not tried again when it has stalled already."""
    (job,) = task.jobs
    stalled = _stalled(task.parts, job.id)
    reason = ""
    for _ in range(TRIES_ALONE):
        if stalled.exists():
            break
        (outcome,) = mapper(extract_task, [task])  # taken to its end: an abandoned mapper would stop its workers
        if isinstance(outcome, list):
            return outcome[0]
        reason = outcome[1]
    if stalled.exists():
        return Done(job.id, job.path, "stalled", stalled.read_text(encoding="utf-8"), 0, "")
    return Done(job.id, job.path, "crashed", reason, 0, "")


def _note_stall(parts: Path, job: Job, reason: str) -> None:
    _stalled(parts, job.id).write_text(reason, encoding="utf-8")


def _part(parts: Path, name: str) -> Path:
    return parts / f"{safe_name(name)}.h5"


def _stalled(parts: Path, name: str) -> Path:
    return parts / f"{safe_name(name)}{_STALLED}"


def _mark(task: Task) -> Path:
    return task.parts / f"{safe_name(task.jobs[0].id)}{_BEGUN}"
