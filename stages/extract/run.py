"""STAGE ONE as a whole: a manifest and encoder weights become a feature cache, resuming where an earlier run stopped."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.errors import CeflError
from ...cache.files import remove_leftovers, safe_name
from ...cache.identity import ExtractionSettings
from ...cache.lock import writer_lock
from ...cache.records import OK
from ...cache.store import pack, read_index, write_part
from ..manifest.table import Manifest
from .plan import Plan, SourceHashes, make_plan, parts_folder
from .tools import Wishes, make_detector, make_encoder, settle
from .video import Job, extract_videos

LARGEST_TASK = 8
"""Videos that one worker takes at a time: enough to fill batches across videos, few enough to keep all workers busy."""


@dataclass(frozen=True)
class Task:
    """A few videos for one worker, everything it needs to know about them, and where their part files go."""

    jobs: tuple[Job, ...]
    wishes: Wishes
    settings: ExtractionSettings
    parts: Path


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


@dataclass
class Extraction:
    """What one run of stage one came to. ``failed`` holds (id, status, note) of every video of the manifest that is
    not ok, also of those that failed in an earlier run and have not changed since."""

    cache: Path
    videos: int
    finished: int = 0
    kept: int = 0
    frames: int = 0
    seconds: float = 0.0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)

    @property
    def failed_share(self) -> float:
        return len(self.failed) / max(1, self.videos)


def extract(
    manifest: Manifest,
    wishes: Wishes,
    cache: Path,
    *,
    mapper: Mapper | None = None,
    on_plan: Callable[[Plan, ExtractionSettings], None] = lambda plan, settings: None,
    on_video: Callable[[Done], None] = lambda done: None,
    workers: int = 1,
    verify: bool = False,
    dry_run: bool = False,
) -> Extraction:
    """Bring ``cache`` up to date with the manifest and return what that took.

    Finished videos whose fingerprint still holds are not touched. Each newly finished video is safe on disk as a part
    file at once; at the end parts and old cache are packed into one file that replaces the old one in one step. Raises
    CeflError when another process writes the same cache, or when the weights cannot be used.
    """
    settings = settle(wishes)
    with writer_lock(cache):
        _tidy(cache)
        plan = make_plan(manifest, cache, settings, verify=verify)
        on_plan(plan, settings)
        result = Extraction(cache, len(manifest.rows), kept=len(manifest.rows) - len(plan.jobs), reasons=plan.reasons)
        result.failed = list(plan.failed)
        if dry_run:
            return result
        started = time.monotonic()
        hashes = SourceHashes(cache)
        for done in _run(plan, wishes, settings, parts_folder(cache), mapper or in_this_process, workers):
            on_video(done)
            result.finished += 1
            result.frames += done.frames
            if done.status != OK:
                result.failed.append((done.id, done.status, done.note))
            if done.source_sha256:
                hashes.remember(done.path, done.source_sha256)
        hashes.save()
        if plan.jobs or plan.loose:
            _pack(manifest, cache, settings)
        shutil.rmtree(parts_folder(cache), ignore_errors=True)
        result.seconds = time.monotonic() - started
    return result


def extract_task(task: Task) -> list[Done]:
    """What a worker does: extract the videos of a task and write a part file for each as soon as it is finished."""
    detector, encoder = make_detector(task.wishes), make_encoder(task.wishes)
    finished = []
    paths = {job.id: job.path for job in task.jobs}
    for video in extract_videos(task.jobs, detector, encoder, task.settings):
        write_part(task.parts / f"{safe_name(video.id)}.h5", video, task.settings.to_json())
        finished.append(
            Done(video.id, paths[video.id], video.status, video.note, len(video.features), video.source_sha256)
        )
    return finished


def in_this_process(function: Callable[[Task], list[Done]], tasks: Sequence[Task]) -> Iterator[list[Done] | Lost]:
    for task in tasks:
        yield function(task)


def _run(
    plan: Plan, wishes: Wishes, settings: ExtractionSettings, parts: Path, mapper: Mapper, workers: int
) -> Iterator[Done]:
    """Yield every job's outcome; the videos of a lost task are tried once more one by one, to find the one at fault."""
    tasks = [Task(jobs, wishes, settings, parts) for jobs in _groups(plan.jobs, workers)]
    lost: list[Lost] = []
    for outcome in mapper(extract_task, tasks):
        if isinstance(outcome, list):
            yield from outcome
        else:
            lost.append(outcome)
    if not lost:
        return
    alone = []
    for task, _ in lost:
        for job in task.jobs:
            part = parts / f"{safe_name(job.id)}.h5"
            if part.exists():  # it was finished before its worker died
                index = read_index(part)
                yield Done(
                    job.id, job.path, index.status[0], index.note[0], int(index.length[0]), index.source_sha256[0]
                )
            else:
                alone.append(Task((job,), wishes, settings, parts))
    for task in alone:
        for outcome in mapper(extract_task, [task]):
            if isinstance(outcome, list):
                yield from outcome
            else:
                yield Done(task.jobs[0].id, task.jobs[0].path, "crashed", outcome[1], 0, "")


def _groups(jobs: Sequence[Job], workers: int) -> list[tuple[Job, ...]]:
    """Cut the jobs into tasks of at most LARGEST_TASK videos, at least four a worker where there are enough."""
    size = max(1, min(LARGEST_TASK, len(jobs) // max(1, 4 * workers)))
    return [tuple(jobs[i : i + size]) for i in range(0, len(jobs), size)]


def _tidy(cache: Path) -> None:
    """Remove what killed runs left half-written; whole part files stay, they are finished work."""
    remove_leftovers(cache)
    parts = parts_folder(cache)
    if parts.is_dir():
        for entry in parts.iterdir():
            if entry.suffix != ".h5" or entry.name.startswith("."):
                entry.unlink(missing_ok=True)


def _pack(manifest: Manifest, cache: Path, settings: ExtractionSettings) -> None:
    """Put everything that is finished into one new cache; videos whose bytes were damaged on disk are said, and redone
    by the next run."""
    plan = make_plan(manifest, cache, settings)
    order = [row.id for row in manifest.rows if row.id in plan.kept]
    order += sorted(set(plan.kept) - set(order))
    if not order:
        return
    damaged = pack(cache, [plan.kept[name] for name in order], settings.to_json())
    if damaged:
        raise CeflError(
            f"{cache}: {len(damaged)} videos had changed on disk since they were written ({', '.join(damaged[:3])}); "
            "they were left out, run the same command again to redo them"
        )
