"""Room on disk that an extraction needs, estimated before the first frame is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...cache.hdf5 import frame_bytes
from ...cache.ownership import check_disk_space, free_bytes
from ..callbacks import Executor
from .extractor import VideoJob
from .tasks import job_bytes
from .video_reader import DecodeError, open_video

SMALLEST_FRAME_BYTES = 40
"""Size of a frame in a video file below which hardly a video is on average."""
PART_OVERHEAD = 1 << 15
"""Bytes of a part file besides its frames."""
INDEX_BYTES = 1 << 10
"""Bytes of a video in the index of a feature cache."""
VIDEOS_PER_TASK = 64


def check_extraction_space(
    cache: Path,
    finished: Iterable[Path],
    jobs: Sequence[VideoJob],
    width: int,
    executor: Executor,
    itemsize: int = 2,
    option: str = "--out",
) -> None:
    """Raise CeflError if the disk of ``cache`` has no room for the part files of the pending videos and for the new cache.

    ``width``: features per frame, of ``itemsize`` bytes. ``option``: as in check_disk_space.

    The files of the ``finished`` videos stay until the new cache, which has their frames too, replaces them. Containers are
    opened, by workers, only if files of these sizes could have too many frames: one that breaks the decoder then breaks
    nothing else. Videos that do not say how many frames they have are not counted.
    """
    kept = sum(file.stat().st_size for file in finished)
    at_most = [job_bytes(job) // SMALLEST_FRAME_BYTES for job in jobs]
    if free_bytes(cache.parent) < kept + extraction_bytes(at_most, width, itemsize):
        required = kept + extraction_bytes(_declared_frames(jobs, executor), width, itemsize)
        check_disk_space(cache.parent, option, required)


def extraction_bytes(frames: Sequence[int], width: int, itemsize: int = 2) -> int:
    """Return the size in bytes of part files of videos with so many frames, and of the cache that they are packed into."""
    row = frame_bytes(width, itemsize)
    return 2 * sum(frames) * row + (PART_OVERHEAD + INDEX_BYTES) * len(frames)


def _declared_frames(jobs: Sequence[VideoJob], executor: Executor) -> list[int]:
    """Return the number of frames of each video whose container says it, in any order."""
    paths = [job.path for job in jobs]
    tasks = [paths[first : first + VIDEOS_PER_TASK] for first in range(0, len(paths), VIDEOS_PER_TASK)]
    return [count for counts in executor(count_declared_frames, tasks) if isinstance(counts, list) for count in counts]


def count_declared_frames(paths: Sequence[Path]) -> list[int]:
    """Return the number of frames that each container declares, 0 if it does not or cannot be opened. Runs in a worker."""
    counts = []
    for path in paths:
        try:
            counts.append(max(0, open_video(path).declared_frames))
        except DecodeError:
            counts.append(0)
    return counts
