"""Many machines: a real Dask cluster of two worker processes, one of which is killed; shards of a queue and their merge."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.cli import run_cli
from helpers.video import panning, write_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_index
from ceflpipe.pipeline.executor import dask_executor
from ceflpipe.stages.extract.shards import merge_shards, parse_shard
from ceflpipe.stages.manifest.manifest import read_manifest

pytestmark = pytest.mark.slow
VIDEOS = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory, photographs, random_encoder):
    """Thirty videos in a folder, their manifest, and what one undisturbed run makes of them."""
    home = tmp_path_factory.mktemp("cluster")
    rows = []
    for i in range(VIDEOS):
        write_video(home / f"v{i}.mp4", panning(photographs["astronaut"], 12 + i, (192, 192), (90, 10), (120 + i, 30)))
        rows.append(f"v{i},v{i}.mp4,fear,S{i % 5}")
    (home / "broken.mp4").write_bytes(b"no video" * 50)
    rows.insert(7, "broken,broken.mp4,fear,S1")
    (home / "list.csv").write_text("id,path,label,subject\n" + "\n".join(rows) + "\n")
    done = run_cli(*extract_of(home, random_encoder, "calm.h5"), "--workers", 2)
    assert done.returncode == 1, done.stderr
    return home


def extract_of(home: Path, encoder: Path, out: str) -> list[str]:
    return ["extract", "--manifest", home / "list.csv", "--encoder", encoder, "--crop-size", "64", "--precision", "fp32",
            "--out", home / out, "--quiet"]  # fmt: skip


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers as a user starts them, without nannies: who is killed stays dead."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    log = (tmp_path / "cluster.log").open("w")

    def start(*words):
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)

    running = [start("scheduler", "--host", "127.0.0.1", "--port", place.split(":")[1], "--no-dashboard")]
    for tag in ("FAST=1", "SLOW=1"):
        running.append(start("worker", place, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", tag))
    limit = time.monotonic() + 60
    while (tmp_path / "cluster.log").read_text().count("Registered to") < 2 and time.monotonic() < limit:
        time.sleep(0.2)
    yield f"dask://{place}", running[1:]
    for process in running:
        process.kill()
        process.wait()


def test_a_killed_worker_of_a_cluster_costs_nothing_but_time(world, random_encoder, cluster):
    address, workers = cluster
    running = subprocess.Popen(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, extract_of(world, random_encoder, "dask.h5")), "--cluster", address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    parts = world / "dask.h5.parts"
    while running.poll() is None and len(list(parts.glob("*.h5"))) < 3:
        time.sleep(0.02)
    killed_midway = running.poll() is None
    os.kill(workers[0].pid, signal.SIGKILL)
    output, errors = running.communicate(timeout=300)
    assert killed_midway
    assert running.returncode == 1, errors
    assert re.search(r"1 of 31 videos failed", output)
    assert sha256_of(world / "dask.h5") == sha256_of(world / "calm.h5")
    assert not parts.exists()


def test_only_workers_that_offer_the_resource_are_used(world, random_encoder, cluster):
    address, workers = cluster
    for worker in workers[1:]:
        os.kill(worker.pid, signal.SIGSTOP)  # who waits for this one waits for ever
    done = run_cli(*extract_of(world, random_encoder, "tagged.h5"), "--cluster", address, "--dask-resource", "FAST")
    assert done.returncode == 1, done.stderr
    assert sha256_of(world / "tagged.h5") == sha256_of(world / "calm.h5")
    none = run_cli(*extract_of(world, random_encoder, "other.h5"), "--cluster", address, "--dask-resource", "GPU")
    assert none.returncode == 2
    assert "no worker with --resources GPU=1" in none.stderr


def test_a_cluster_that_is_not_there_is_said_in_one_line(world, random_encoder):
    done = run_cli(*extract_of(world, random_encoder, "none.h5"), "--cluster", "dask://127.0.0.1:9")
    assert done.returncode == 2
    assert "no scheduler answers" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(CeflError, match="not the address of a cluster"):
        dask_executor("here")


def test_shards_merge_into_what_one_run_makes(world, random_encoder):
    listed, cache = read_manifest(world / "list.csv"), world / "s.h5"
    with pytest.raises(CeflError, match="no shards beside it"):
        merge_shards(listed, cache)
    run_cli(*extract_of(world, random_encoder, "s.h5"), "--shard", "1/2")
    with pytest.raises(CeflError, match="--shard 2/2"):
        merge_shards(listed, cache)
    run_cli(*extract_of(world, random_encoder, "s.h5"), "--shard", "2/2")
    done = run_cli("merge-shards", "--manifest", world / "list.csv", "--out", cache)
    assert done.returncode == 1, done.stderr  # the broken video
    assert "broken" in done.stdout
    assert sha256_of(cache) == sha256_of(world / "calm.h5")
    sizes = [len(read_index(world / f"s.shard-{i}-of-2.h5")) for i in (1, 2)]
    assert sum(sizes) == VIDEOS + 1
    assert max(sizes) - min(sizes) <= 1
    shutil.copy(world / "s.shard-1-of-2.h5", world / "s.shard-1-of-3.h5")
    with pytest.raises(CeflError, match="shards of 2 and of 3 lie there"):
        merge_shards(listed, cache)


def test_a_shard_is_written_as_i_of_n():
    assert parse_shard("3/16") == (3, 16)
    for text in ("0/4", "5/4", "1-4", "x", "-1/3", "1/0"):
        with pytest.raises(CeflError, match="write i/N"):
            parse_shard(text)


def test_a_sweep_on_a_cluster_gives_the_same_runs(tmp_path, cluster):
    from helpers.fake_cache import fake_cache, fake_manifest

    from ceflpipe.stages.manifest.manifest import write_manifest

    manifest = fake_manifest(tmp_path)
    write_manifest(tmp_path / "list.csv", manifest.entries)
    fake_cache(tmp_path / "x.h5", manifest)
    words = ["sweep", "--manifest", "list.csv", "--features", "x.h5", "--clips", "1,3", "--frames", "2,3", "--epochs", "2",
             "--folds", "2", "--seeds", "1", "--precision", "fp32", "--quiet"]  # fmt: skip
    here = run_cli(*words, "--out", "here", cwd=tmp_path)
    there = run_cli(*words, "--out", "there", "--cluster", cluster[0], cwd=tmp_path)
    assert here.returncode == there.returncode == 0, there.stderr
    assert (tmp_path / "here/sweep.csv").read_bytes() == (tmp_path / "there/sweep.csv").read_bytes()
    for name in ("weights.safetensors", "metrics.json"):
        files = [sorted((tmp_path / place / "points").glob(f"*/{name}")) for place in ("here", "there")]
        assert len(files[0]) == 4
        assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
