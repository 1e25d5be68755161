"""Worker tasks of stage one: groups of videos, crash isolation, and a watchdog for stalled decoders."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from ...cache.atomic import TMP_SUFFIX, safe_name
from ...cache.code_hash import code_hash
from ...cache.errors import CeflError
from ...cache.features import VideoStatus
from ...cache.fingerprint import DETECTION_VERSION, ENCODING_VERSION, ExtractionSettings, describe_diff
from ...cache.hdf5 import read_index, write_part
from ..callbacks import Executor
from ..onnx_session import is_out_of_memory, out_of_memory
from .detection import Detector
from .encoder_base import Encoder
from .extract_config import DECODE_TIMEOUT, ExtractConfig, ResolvedConfig, build_detector, build_encoder, resolve_config
from .extractor import ExtractMonitor, extract_videos
from .face_tracks import VideoJob
from .gpu_client import GpuEncoder, connect, gpu_networks
from .gpu_pool import GpuPool
from .video_reader import decoder_version

MAX_VIDEOS_PER_TASK = 8
"""Enough to fill batches across videos, few enough to keep all workers busy."""
MAX_BYTES_PER_TASK = 1 << 30
"""A longer video is a task of its own."""
MAX_ISOLATED_RETRIES = 2
"""Attempts with the video alone: a pool that has just lost a worker may lose the next task too, so one crash does not prove
that the video is at fault."""
_STARTED, _STALLED = ".started", ".stalled"
"""Extensions of the files in the folder of part files that mark running tasks and stalled videos."""
_SAFE_NAME = r"[A-Za-z0-9_-]*-[0-9a-f]{12}"
FileState = tuple[int, int, int] | None


def stage_code() -> str:
    """Return the hash of the code of stage one that this process has loaded."""
    return code_hash("stages/extract/extract.py")


stage_code()  # now: a file may be edited while a process that has loaded it runs


@dataclass(frozen=True)
class ExtractTask:
    """A few videos for one worker, and where their part files go.

    ``settings`` are recorded with the features, so in ``config`` device and precision are resolved, and a worker that would
    compute otherwise refuses the task. ``decode_timeout``: see DECODE_TIMEOUT; 0 turns the watchdog off. ``code_hash``: of the
    process that makes the task. ``gpu``: address of the process of a GPU that encodes (gpu_pool.py), '' if the worker does.
    """

    jobs: tuple[VideoJob, ...]
    config: ExtractConfig
    settings: ExtractionSettings
    parts: Path
    decode_timeout: float = DECODE_TIMEOUT
    code_hash: str = field(default_factory=stage_code)
    gpu: str = ""


@dataclass(frozen=True)
class ResolveTask:
    """A configuration to resolve on a worker, the settings of what is finished, and the hash of the client's code."""

    config: ExtractConfig
    cached: ExtractionSettings | None
    code_hash: str = field(default_factory=stage_code)


def resolve_task(task: ResolveTask) -> ResolvedConfig:
    """Resolve device and precision where the work is done; raises CeflError if that machine has other code."""
    if task.code_hash != stage_code():
        raise CeflError(
            f"worker {_worker_name()}: has other code of stage one, {stage_code()}, here {task.code_hash}; install the same "
            "version on all machines, start the workers again, and run the same command again"
        )
    return resolve_config(task.config, task.cached)


@dataclass(frozen=True)
class VideoResult:
    """Outcome of one video; its features are in its part file if it was ``written``.

    ``encode_seconds``, ``encoded_crops``: see ExtractMonitor; what was encoded since the video before it, 0 if not known.
    """

    id: str
    path: Path
    status: str
    note: str
    num_frames: int
    source_sha256: str
    written: bool
    encode_seconds: float = 0.0
    encoded_crops: int = 0


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

    A marker file exists while it runs: after a crash it distinguishes running tasks from pending ones. Raises CeflError if
    this worker would not compute what the task records.
    """
    try:
        detector, encoder = _build_detector_and_encoder(task)
        check_worker(task, detector, encoder)
        if not task.decode_timeout:
            return _write_parts(task, detector, encoder, ExtractMonitor())
        with Watchdog(task.decode_timeout, partial(_mark_stalled, task.parts)) as watchdog:
            return _write_parts(task, detector, encoder, watchdog)
    except RuntimeError as error:  # of torch, where the worker itself encodes on a GPU
        if task.config.device == "cpu" or not is_out_of_memory(error):
            raise
        raise out_of_memory(task.config.device, "fewer --workers") from None


def _build_detector_and_encoder(task: ExtractTask) -> tuple[Detector | None, Encoder]:
    """Return those of this worker, or those in the process of the task's GPU."""
    settings = task.settings
    try:
        if not task.gpu:
            detector = build_detector(task.config, settings.detector_sha256)
            return detector, build_encoder(task.config, settings.encoder_sha256)
        client = connect(task.gpu)
        description = client.describe()
        networks = gpu_networks(client, description)
        detector = build_detector(task.config, settings.detector_sha256, networks, task.config.detector_device)
    except CeflError as error:
        raise CeflError(f"worker {_worker_name()}: {error}") from None
    if description["code_hash"] != stage_code():
        raise CeflError(
            f"the process of the GPU has other code of stage one, {description['code_hash']}, here {stage_code()}: it was "
            "edited while it ran; run the same command again"
        )
    return detector, GpuEncoder(client, description)


def check_worker(task: ExtractTask, detector: Detector | None, encoder: Encoder) -> None:
    """Raise CeflError, naming both, where what this process computes with is not what the task records."""
    actual = replace(
        task.settings,
        detector=detector.name if detector else "",
        detector_sha256=detector.sha256 if detector else "",
        encoder_sha256=encoder.sha256,
        precision=encoder.arithmetic(),
        backend=task.config.backend,
        width=encoder.width,
        detection_version=DETECTION_VERSION,
        encoding_version=ENCODING_VERSION,
    )
    pairs = [
        ("device", task.config.device.partition(":")[0], encoder.device_type),
        ("device of the detector", task.config.detector_device, detector.device_type if detector else "cpu"),
        ("code of stage one", task.code_hash, stage_code()),
    ]
    differences = [f"{name} {expected}, here {present}" for name, expected, present in pairs if present != expected]
    if actual != task.settings:
        differences.insert(0, describe_diff(task.settings, actual, "here"))
    if differences:
        raise CeflError(
            f"worker {_worker_name()}: would not compute what the feature cache records: {'; '.join(differences)}; give all "
            "workers the same files, packages and kind of device, start them again, and run the same command again"
        )


def _worker_name() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _write_parts(
    task: ExtractTask, detector: Detector | None, encoder: Encoder, monitor: ExtractMonitor
) -> list[VideoResult]:
    marker = _started_marker(task)
    task.parts.mkdir(parents=True, exist_ok=True)
    marker.touch()
    paths = {job.id: job.path for job in task.jobs}
    results = []
    origin = {"code_hash": task.code_hash, "device": encoder.device_type, "decoder": decoder_version()}
    seconds, crops = 0.0, 0
    for video in extract_videos(task.jobs, detector, encoder, task.settings, monitor):
        readable = bool(video.source_sha256)  # if not, the next run may find it so
        if readable:
            write_part(_part(task.parts, video.id), replace(video, **origin), task.settings)
        size = len(video.features)
        results.append(
            VideoResult(
                video.id, paths[video.id], video.status, video.note, size, video.source_sha256, readable,
                monitor.encode_seconds - seconds, monitor.encoded_crops - crops,
            )
        )  # fmt: skip
        seconds, crops = monitor.encode_seconds, monitor.encoded_crops
    marker.unlink(missing_ok=True)
    return results


def run_tasks(tasks: Sequence[ExtractTask], executor: Executor) -> Iterator[VideoResult]:
    """Yield the outcome of every video as it completes.

    If a worker dies, the videos it had finished count, pending tasks are run again, and the rest of the task it was running
    is retried one video at a time to find the one at fault, which is then ``crashed`` or ``stalled``.
    """
    pending = list(tasks)
    # part files of other settings or sources stay until new ones replace them
    old_parts = {job.id: _file_state(_part(task.parts, job.id)) for task in tasks for job in task.jobs}
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
            finished = [result for job in task.jobs if (result := _finished_result(task, job, old_parts[job.id]))]
            yield from finished
            finished_ids = {result.id for result in finished}
            rest = tuple(job for job in task.jobs if job.id not in finished_ids)
            if task not in running and rest:
                pending.append(replace(task, jobs=rest))
            elif task in running:
                for job in rest:
                    yield _retry_isolated(replace(task, jobs=(job,)), executor)


def run_on_gpus(
    tasks: Sequence[ExtractTask], executor: Executor, gpus: tuple[str, ...], restarts: list[str]
) -> Iterator[VideoResult]:
    """Yield as run_tasks does. Each of the ``gpus`` has a process that encodes, and detects if the tasks' configuration says so,
    for all workers; tasks are assigned to them in turn; what is said of one that had to be started again is added to
    ``restarts``. Without ``gpus`` workers do so themselves."""
    if not gpus or not tasks:
        yield from run_tasks(tasks, executor)
        return
    config = tasks[0].config
    with GpuPool(config, tasks[0].settings, gpus, detects=config.detector_device == "cuda") as pool:
        yield from run_tasks([replace(task, gpu=pool.assign(number)) for number, task in enumerate(tasks)], executor)
    restarts += pool.restarts  # after the end, when nothing is added any more


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


def _finished_result(task: ExtractTask, job: VideoJob, old_part: FileState) -> VideoResult | None:
    """Return what a worker finished before it died, from its part file; None if that is still the old one."""
    part = _part(task.parts, job.id)
    if _file_state(part) in (None, old_part):
        return None
    index = read_index(part)
    values = index.status[0], index.note[0], int(index.length[0]), index.source_sha256[0]
    return VideoResult(job.id, job.path, *values, written=True)


def _file_state(path: Path) -> FileState:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


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
        return VideoResult(job.id, job.path, VideoStatus.STALLED, stalled.read_text(encoding="utf-8"), 0, "", False)
    return VideoResult(job.id, job.path, VideoStatus.CRASHED, reason, 0, "", False)


def _mark_stalled(parts: Path, job: VideoJob, reason: str) -> None:
    _stalled_marker(parts, job.id).write_text(reason, encoding="utf-8")


def part_name(video_id: str) -> str:
    """Return the name of a video's part file."""
    return f"{safe_name(video_id)}.h5"


def is_part_name(name: str) -> bool:
    """Return whether a file in the folder of part files may be one by its name."""
    return re.fullmatch(rf"{_SAFE_NAME}\.h5", name) is not None


def is_marker_name(name: str) -> bool:
    """Return whether a file in the folder of part files marks a task or a video, or is a part file that was never finished."""
    return re.fullmatch(rf"{_SAFE_NAME}({_STARTED}|{_STALLED})|\.{_SAFE_NAME}\.h5\.\d+{TMP_SUFFIX}", name) is not None


def _part(parts: Path, video_id: str) -> Path:
    return parts / part_name(video_id)


def _stalled_marker(parts: Path, video_id: str) -> Path:
    return parts / f"{safe_name(video_id)}{_STALLED}"


def _started_marker(task: ExtractTask) -> Path:
    return task.parts / f"{safe_name(task.jobs[0].id)}{_STARTED}"
