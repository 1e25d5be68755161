"""Extraction on GPUs, with two fake devices that are processors: the same bytes as without, also when processes are killed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract import extract_config, gpu_pool, tasks
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.tasks import _started_marker, extract_task
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

NUM_VIDEOS = 8


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, photographs):
    folder = tmp_path_factory.mktemp("videos")
    names = [f"v{i}" for i in range(NUM_VIDEOS)]
    for i, name in enumerate(names):
        frames = panning(photographs["astronaut"], 5 + 7 * i, (192, 192), (100, 20), (100 + i, 24))
        write_video(folder / f"{name}.mp4", frames)
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


@pytest.fixture(scope="module")
def config(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def expected(manifest, config, tmp_path_factory):
    """The cache of one worker without a GPU."""
    cache = tmp_path_factory.mktemp("expected") / "x.h5"
    assert not extract_features(manifest, config, cache).failed
    return cache.read_bytes()


@pytest.fixture
def pools(monkeypatch):
    """The pools that are entered."""
    entered = []

    class RecordedPool(gpu_pool.GpuPool):
        def __enter__(self):
            entered.append(self)
            return super().__enter__()

    monkeypatch.setattr(tasks, "GpuPool", RecordedPool)
    return entered


def die_once(task):
    """Extract a task; the worker that gets the one with v5 is killed the first time, with crops on the GPU."""
    client = tasks.connect(task.gpu)
    marker = task.parts.parent / "died"
    if any(job.id == "v5" for job in task.jobs) and not marker.exists():
        marker.touch()
        task.parts.mkdir(parents=True, exist_ok=True)
        _started_marker(task).touch()
        client.submit("encode", np.zeros((32, 32, 32, 3), np.uint8))
        os.kill(os.getpid(), signal.SIGKILL)
    return extract_task(task)


@pytest.mark.parametrize("detects", [False, True])
def test_two_devices_give_the_bytes_of_none(manifest, config, tmp_path, expected, pools, monkeypatch, detects):
    if detects:  # as on a machine with onnxruntime-gpu
        monkeypatch.setattr(extract_config, "resolve_detector_device", lambda config, device: "cuda")
    cache = tmp_path / "x.h5"
    executor = process_executor(2)
    result = extract_features(manifest, config, cache, executor=executor, workers=2, gpus=("cpu", "cpu"))
    assert not result.failed
    assert result.device == "cpu"
    assert cache.read_bytes() == expected
    assert [len(pool.addresses) for pool in pools] == [2]
    assert not Path(pools[0].addresses[0]).parent.exists()


@pytest.mark.slow
def test_killed_workers_and_processes_of_gpus_lose_no_video(manifest, config, tmp_path, expected, pools):
    cache, killed = tmp_path / "x.h5", []

    def executor(function, pending):
        for outcome in process_executor(2)(die_once, pending):
            if not killed:
                killed.append(pools[0]._processes[0].pid)
                os.kill(killed[0], signal.SIGKILL)
            yield outcome

    result = extract_features(manifest, config, cache, executor=executor, workers=2, gpus=("cpu", "cpu"))
    assert (tmp_path / "died").exists()
    assert killed
    assert len(result.restarts) == 1
    assert not result.failed
    assert cache.read_bytes() == expected


@pytest.mark.slow
def test_a_gpu_whose_process_is_gone_for_good_stops_with_one_line_and_finished_videos_are_kept(
    manifest, config, tmp_path, expected, pools, monkeypatch
):
    monkeypatch.setattr(gpu_pool, "MAX_RESTARTS", 0)
    cache, finished = tmp_path / "x.h5", []

    def executor(function, pending):
        for task in pending:  # one after the other in this process, so that the first is surely finished
            outcome = extract_task(task)
            finished.extend(result.id for result in outcome)
            if len(finished) == 1:
                for process in pools[-1]._processes:
                    process.kill()
            yield outcome

    with pytest.raises(CeflError, match=r"the process of cpu ended \(killed by SIGKILL\)"):
        extract_features(manifest, config, cache, executor=executor, workers=2, gpus=("cpu", "cpu"))
    assert len(finished) == 1
    result = extract_features(manifest, config, cache)
    assert (result.num_cached, result.num_extracted) == (1, NUM_VIDEOS - 1)
    assert len(read_features(cache).videos.id) == NUM_VIDEOS
