"""A worker that crashes, is killed or stalls costs the video it was decoding and no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.extract.extractor import VideoJob
from ceflpipe.stages.extract.tasks import (
    MAX_BYTES_PER_TASK,
    MAX_VIDEOS_PER_TASK,
    Watchdog,
    _started_marker,
    extract_task,
    job_bytes,
    make_tasks,
    run_tasks,
)
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


@pytest.fixture
def config(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32")


@pytest.fixture
def manifest(tmp_path, photographs):
    """Two dozen short videos."""
    names = [f"v{i:02d}" for i in range(24)]
    for i, name in enumerate(names):
        frames = panning(photographs["astronaut"], 3, (192, 192), (100, 20), (100 + i % 9, 20))
        write_video(tmp_path / f"{name}.mp4", frames)
    return Manifest("x", tmp_path, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


def crash_at_v10(task):
    """Extract a task; one with v10 always crashes, like a decoder on a file it cannot handle."""
    for job in task.jobs:
        if job.id == "v10":
            task.parts.mkdir(parents=True, exist_ok=True)
            _started_marker(task).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
    return extract_task(task)


@pytest.mark.slow
def test_only_the_crashing_task_is_retried_one_by_one(manifest, config, tmp_path):
    rounds = []

    def executor(function, tasks):
        rounds.append([len(task.jobs) for task in tasks])
        return process_executor(2)(crash_at_v10, tasks)

    result = extract_features(manifest, config, tmp_path / "x.h5", workers=2, executor=executor)
    assert [(video_id, status) for video_id, status, _ in result.failed] == [("v10", "crashed")]
    assert result.num_extracted == 24
    assert len(read_index(tmp_path / "x.h5").id) == 23
    isolated = [sizes for sizes in rounds[1:] if sizes == [1]]
    assert len(isolated) <= 12  # tasks that were running, not those that were pending


def test_videos_that_a_dead_worker_had_finished_are_not_extracted_again(manifest, config, tmp_path):
    extracted = []

    def executor(function, tasks):
        for number, task in enumerate(tasks):
            results = function(task)
            extracted.extend(result.id for result in results)
            # the results of every second task are lost once
            yield (task, "lost") if number % 2 and len(task.jobs) > 1 else results

    result = extract_features(manifest, config, tmp_path / "x.h5", workers=2, executor=executor)
    assert not result.failed
    assert result.num_extracted == 24
    assert sorted(extracted) == sorted(entry.id for entry in manifest.entries)


STALLING_DECODER = """
import time, av
open_container = av.open

class StallingContainer:  # a wrapper, since PyAV's types cannot be subclassed
    def __init__(self, container):
        self.container = container

    def __getattr__(self, name):
        return getattr(self.container, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.container.close()

    def demux(self, *streams):
        time.sleep(3600)

def stalling_open(file, *arguments, **options):
    container = open_container(file, *arguments, **options)
    return StallingContainer(container) if "v07" in str(file.raw.name) else container

av.open = stalling_open
"""

RUN = """
import json, sys
from pathlib import Path
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
if __name__ == "__main__":
    folder, encoder = map(Path, sys.argv[1:3])
    entries = tuple(VideoEntry(f"v{i:02d}", f"v{i:02d}.mp4", "fear") for i in range(12))
    config = ExtractConfig(encoder=encoder, crop_size=64, precision="fp32")
    result = extract_features(Manifest("x", folder, entries, ("fear",)), config, folder / "x.h5",
                              executor=process_executor(2), workers=2, decode_timeout=8.0)
    print(json.dumps(result.failed))
"""


@pytest.mark.slow
def test_a_stalled_decoder_is_stopped_and_its_video_reported(manifest, config, tmp_path):
    """Only the decoder is simulated: in every process that starts, reading one of the files sleeps for an hour."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STALLING_DECODER)
    (tmp_path / "run.py").write_text(RUN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(config.encoder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[["v07", "stalled", "decode timeout: no frame for 8 s"]]'
    assert len(read_index(tmp_path / "x.h5").id) == 11


def test_tasks_are_bounded_in_videos_and_bytes_and_contain_every_job(tmp_path, config):
    rng = np.random.default_rng(0)
    settings = resolve_settings(config)
    for _ in range(30):
        jobs = []
        for i in range(rng.integers(1, 200)):
            path = tmp_path / f"{i}.mp4"
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(int(rng.choice([1 << 10, 1 << 20, 1 << 28, 1 << 31])))  # sparse: uses no disk
            jobs.append(VideoJob(str(i), path))
        workers = int(rng.integers(1, 64))
        tasks = make_tasks(jobs, workers, config, settings, tmp_path)
        assert [job for task in tasks for job in task.jobs] == jobs
        for task in tasks:
            assert len(task.jobs) <= MAX_VIDEOS_PER_TASK
            assert len(task.jobs) == 1 or sum(map(job_bytes, task.jobs)) <= MAX_BYTES_PER_TASK
        if len(jobs) >= 4 * workers:
            assert len(tasks) >= 4 * workers


def test_a_task_that_always_crashes_ends(manifest, config, tmp_path):
    jobs = [VideoJob(entry.id, manifest.video_path(entry)) for entry in manifest.entries[:5]]
    tasks = make_tasks(jobs, 1, config, resolve_settings(config), tmp_path / "parts")
    results = list(run_tasks(tasks, lambda function, tasks: [(task, "killed") for task in tasks]))
    assert [(result.status, result.note) for result in results] == [("crashed", "killed")] * 5


@pytest.mark.slow
def test_features_do_not_depend_on_a_crash_of_another_video(manifest, config, tmp_path):
    extract_features(manifest, config, tmp_path / "undisturbed.h5")
    executor = process_executor(2)
    extract_features(
        manifest, config, tmp_path / "x.h5", workers=2, executor=lambda function, tasks: executor(crash_at_v10, tasks)
    )
    undisturbed, crashed = read_features(tmp_path / "undisturbed.h5"), read_features(tmp_path / "x.h5")
    assert len(crashed.videos) == 23
    for video_id in crashed.videos.id:
        np.testing.assert_array_equal(undisturbed[video_id], crashed[video_id])


def test_the_watchdog_pauses_while_no_decoder_is_running():
    """Hashing a large file may take longer than a frame may. Without the pause this process would exit."""
    timeouts = []
    with Watchdog(0.2, lambda job, reason: timeouts.append(job)) as watchdog:
        watchdog.begin(VideoJob("a", Path("a.mp4")))
        watchdog.end(VideoJob("a", Path("a.mp4")))
        time.sleep(0.7)
    assert timeouts == []
