"""A worker that crashes, is killed or stalls costs the video it was at work on, and nobody else's time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_config
from ceflpipe.stages.extract.extractor import VideoJob
from ceflpipe.stages.extract.tasks import (
    MAX_BYTES_PER_TASK,
    MAX_VIDEOS_PER_TASK,
    _mark,
    extract_task,
    job_bytes,
    make_tasks,
    run_tasks,
)
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


@pytest.fixture
def wishes(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32")


@pytest.fixture
def listed(tmp_path, photographs):
    """Two dozen short videos."""
    names = [f"v{i:02d}" for i in range(24)]
    for i, name in enumerate(names):
        frames = panning(photographs["astronaut"], 3, (192, 192), (100, 20), (100 + i % 9, 20))
        write_video(tmp_path / f"{name}.mp4", frames)
    return Manifest("x", tmp_path, tuple(VideoEntry(n, f"{n}.mp4", "fear") for n in names), ("fear",))


def crash_at_v10(task):
    """Work on a task, and crash for good at one video, as a decoder does that meets a file it cannot take."""
    for job in task.jobs:
        if job.id == "v10":
            task.parts.mkdir(parents=True, exist_ok=True)
            _mark(task).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
    return extract_task(task)


@pytest.mark.slow
def test_only_the_crashing_task_is_taken_apart(listed, wishes, tmp_path):
    rounds = []

    def mapper(function, tasks):
        rounds.append([len(task.jobs) for task in tasks])
        return process_executor(2)(crash_at_v10, tasks)

    result = extract_features(listed, wishes, tmp_path / "x.h5", workers=2, executor=mapper)
    assert [(i, s) for i, s, _ in result.failed] == [("v10", "crashed")]
    assert result.num_extracted == 24
    assert len(read_index(tmp_path / "x.h5").id) == 23
    one_by_one = [sizes for sizes in rounds[1:] if sizes == [1]]
    assert len(one_by_one) <= 12  # those in flight, and not those that waited


def test_what_a_dead_worker_had_finished_is_not_done_again(listed, wishes, tmp_path):
    done_twice = []

    def mapper(function, tasks):
        for number, task in enumerate(tasks):
            done = function(task)
            done_twice.extend(d.id for d in done)
            # the result of every second task gets lost on the way, once
            yield (task, "lost") if number % 2 and len(task.jobs) > 1 else done

    result = extract_features(listed, wishes, tmp_path / "x.h5", workers=2, executor=mapper)
    assert not result.failed
    assert result.num_extracted == 24
    assert sorted(done_twice) == sorted(row.id for row in listed.rows)


STALLING = """
import time, cv2
real = cv2.VideoCapture

class Stalls:  # beside the real one and not a subclass: OpenCV's types are not made for that
    def __init__(self, path, *more):
        self.real, self.stalls = real(path, *more), "v07" in path

    def __getattr__(self, name):
        return getattr(self.real, name)

    def read(self, *more):
        if self.stalls:
            time.sleep(3600)
        return self.real.read(*more)

cv2.VideoCapture = Stalls
"""

RUN = """
import json, sys
from pathlib import Path
from ceflpipe.pipeline.executor import processes
from ceflpipe.stages.extract.extract import extract
from ceflpipe.stages.extract.extract_config import Wishes
from ceflpipe.stages.manifest.manifest import Manifest, Row
if __name__ == "__main__":
    folder, weights = map(Path, sys.argv[1:3])
    rows = tuple(Row(f"v{i:02d}", f"v{i:02d}.mp4", "fear") for i in range(12))
    result = extract(Manifest("x", folder, rows, ("fear",)), Wishes(weights, size=64, precision="fp32"), folder / "x.h5",
                     mapper=processes(2), workers=2, patience=8.0)
    print(json.dumps(result.failed))
"""


@pytest.mark.slow
def test_a_decoder_that_never_comes_back_is_given_up_and_named(listed, wishes, tmp_path):
    """Only the decoder is a stand-in: in every process that starts, reading one of the files sleeps for an hour."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STALLING)
    (tmp_path / "run.py").write_text(RUN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(wishes.weights)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[["v07", "stalled", "no frame came for 8 s; the decoder stalls on this file"]]'
    assert len(read_index(tmp_path / "x.h5").id) == 11


def test_tasks_are_bounded_in_videos_and_in_bytes_and_lose_nobody(tmp_path, wishes):
    rng = np.random.default_rng(0)
    settings = resolve_config(wishes)
    for _ in range(30):
        jobs = []
        for i in range(rng.integers(1, 200)):
            path = tmp_path / f"{i}.mp4"
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(int(rng.choice([1 << 10, 1 << 20, 1 << 28, 1 << 31])))  # sparse: no disk is used
            jobs.append(VideoJob(str(i), path))
        workers = int(rng.integers(1, 64))
        tasks = make_tasks(jobs, workers, wishes, settings, tmp_path)
        assert [job for task in tasks for job in task.jobs] == jobs
        for task in tasks:
            assert len(task.jobs) <= MAX_VIDEOS_PER_TASK
            assert len(task.jobs) == 1 or sum(map(job_bytes, task.jobs)) <= MAX_BYTES_PER_TASK
        if len(jobs) >= 4 * workers:
            assert len(tasks) >= 4 * workers


def test_a_task_that_is_lost_for_ever_ends(listed, wishes, tmp_path):
    tasks = make_tasks(
        [VideoJob(r.id, listed.file_of(r)) for r in listed.rows[:5]],
        1,
        wishes,
        resolve_config(wishes),
        tmp_path / "parts",
    )
    outcomes = list(run_tasks(tasks, lambda function, some: [(task, "gone") for task in some]))
    assert [(done.status, done.note) for done in outcomes] == [("crashed", "gone")] * 5


@pytest.mark.slow
def test_the_features_do_not_depend_on_a_crash_nearby(listed, wishes, tmp_path):
    extract_features(listed, wishes, tmp_path / "calm.h5")
    extract_features(
        listed, wishes, tmp_path / "x.h5", workers=2, executor=lambda f, tasks: process_executor(2)(crash_at_v10, tasks)
    )
    calm, crashed = read_features(tmp_path / "calm.h5"), read_features(tmp_path / "x.h5")
    for name in crashed.videos.id:
        np.testing.assert_array_equal(calm.features[calm.rows(name)], crashed.features[crashed.rows(name)])


def test_the_watchdog_rests_while_no_decoder_is_at_work():
    """A large file may be hashed for longer than a frame may take. Were it not to rest, it would end this very process."""
    import time

    from ceflpipe.stages.extract.tasks import Watchdog

    told = []
    with Watchdog(0.2, lambda job, reason: told.append(job)) as watchdog:
        watchdog.heartbeat(VideoJob("a", Path("a.mp4")))
        watchdog.pause()
        time.sleep(0.7)
    assert told == []
