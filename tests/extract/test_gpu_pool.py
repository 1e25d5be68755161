"""Processes of GPUs, tested with two fake devices that are processors: bytes, deaths of workers and processes, back-pressure."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.extract import gpu_pool
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_config
from ceflpipe.stages.extract.gpu_client import ENCODE, MAX_UNANSWERED, GpuClient, GpuEncoder, gpu_networks
from ceflpipe.stages.extract.gpu_pool import GpuPool

TWO = ("cpu", "cpu")


@pytest.fixture(scope="module")
def resolved(random_encoder):
    return resolve_config(ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32", device="cpu"))


@pytest.fixture(scope="module")
def pool(resolved):
    with GpuPool(resolved.config, resolved.settings, TWO, detects=True) as pool:
        yield pool


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(resolved, crops):
    return build_encoder(resolved.config)(crops)


def encoder_of(pool, number):
    client = GpuClient(pool.assign(number))
    return GpuEncoder(client, client.describe())


def test_features_of_every_worker_and_device_are_those_of_this_process(pool, crops, expected):
    """Six workers, three per device, with batches of different sizes; the oracle is the encoder in this process."""
    assert [Path(pool.assign(number)).name for number in range(4)] == ["0", "1", "0", "1"]

    def encode(number):
        encoder = encoder_of(pool, number)
        return [encoder(crops[number:stop]) for stop in (100, 40, 100)]

    with ThreadPoolExecutor(6) as workers:
        for number, results in enumerate(workers.map(encode, range(6))):
            for stop, features in zip((100, 40, 100), results, strict=True):
                np.testing.assert_array_equal(features, expected[number:stop])


def test_detections_of_every_worker_are_those_of_this_process(pool, resolved, photographs):
    """Workers that search equal shapes at the same time are computed together."""
    image = photographs["six"]
    local = build_detector(resolved.config)
    images = [np.ascontiguousarray(np.roll(image, 40 * number, axis=1)) for number in range(4)]

    def detect(number):
        client = GpuClient(pool.assign(0))
        detector = build_detector(resolved.config, networks=gpu_networks(client, client.describe()))
        faces = detector(images[number])
        return faces, detector.detect_roi(images[number], faces.boxes[0])

    with ThreadPoolExecutor(4) as workers:
        for number, (faces, around) in enumerate(workers.map(detect, range(4))):
            reference = local(images[number])
            nearby = local.detect_roi(images[number], reference.boxes[0])
            for part, other in ((faces, reference), (around, nearby)):
                np.testing.assert_array_equal(part.landmarks, other.landmarks)
                np.testing.assert_array_equal(part.scores, other.scores)
            assert len(reference) >= 5


def test_a_worker_that_stops_or_dies_with_open_requests_holds_up_no_other(pool, crops, expected):
    stopped, dead = GpuClient(pool.assign(0)), GpuClient(pool.assign(0))
    for client in (stopped, dead):
        for _ in range(MAX_UNANSWERED):
            client.submit("detect 0", np.zeros((1, 3, 480, 640), np.float32))  # answers larger than a socket's buffer
    dead._connection.close()
    np.testing.assert_array_equal(encoder_of(pool, 0)(crops), expected)


def test_a_worker_waits_with_its_next_request_until_an_earlier_one_is_answered(pool, crops):
    client = GpuClient(pool.assign(1))
    for _ in range(10):
        client.submit(ENCODE, crops[:32])
        assert len(client._unanswered) <= MAX_UNANSWERED
    assert len(client._answers) == 10 - len(client._unanswered)


def test_a_process_that_is_killed_is_started_again_and_no_answer_is_lost(resolved, crops, expected):
    with GpuPool(resolved.config, resolved.settings, ("cpu",), detects=False) as pool:
        encoder = encoder_of(pool, 0)
        fetches = [encoder.encode_async(crops[:32]), encoder.encode_async(crops[32:64])]
        os.kill(pool._processes[0].pid, signal.SIGKILL)
        results = [fetch() for fetch in fetches]
        np.testing.assert_array_equal(np.concatenate(results), expected[:64])
        np.testing.assert_array_equal(encoder(crops), expected)
        processes, folder = list(pool._processes), Path(pool.addresses[0]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert pool.restarts == ["the process of cpu ended (killed by SIGKILL) and was started again; nothing was lost"]
    assert all(process.poll() is not None for process in processes)
    assert not folder.exists()


def test_a_process_that_dies_again_and_again_is_one_line_for_its_workers(resolved, crops, monkeypatch):
    monkeypatch.setattr(gpu_pool, "MAX_RESTARTS", 0)
    with GpuPool(resolved.config, resolved.settings, ("cpu",), detects=False) as pool:
        encoder = encoder_of(pool, 0)
        os.kill(pool._processes[0].pid, signal.SIGKILL)
        with pytest.raises(CeflError, match=r"the process of cpu ended \(killed by SIGKILL\), 1 times .*same command"):
            encoder(crops)


def test_a_process_ends_when_the_one_that_started_it_is_gone(resolved):
    with GpuPool(resolved.config, resolved.settings, ("cpu",), detects=False) as pool:
        pool._ending.set()  # as if this process, which would start it again, were gone as well
        pool._monitor.join()
        pool._processes[0].stdin.close()
        deadline = time.monotonic() + 60
        while pool._processes[0].poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_encoder_that_is_another_one_by_now_is_one_line_and_leaves_no_process(resolved, monkeypatch):
    settings = resolved.settings
    other = type(settings)(**{**settings.__dict__, "encoder_sha256": "0" * 64})
    threads = threading.active_count()
    pool = GpuPool(resolved.config, other, TWO, detects=False)
    with pytest.raises(CeflError, match="not 00000000… as the features on record"), pool:
        pass
    assert all(process.poll() is not None for process in pool._processes)
    assert threading.active_count() == threads
