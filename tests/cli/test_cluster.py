"""Executors and shards: a real Dask cluster of two workers, one of which is killed; shards and their merge."""

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
from helpers.run_cli import run_cli, run_cli_in_process
from helpers.video import panning, write_video
from safetensors.torch import load_file

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_index
from ceflpipe.pipeline.executor import dask_executor
from ceflpipe.stages.encoder.weights import write_encoder
from ceflpipe.stages.extract.shards import merge_shards
from ceflpipe.stages.manifest.manifest import read_manifest

pytestmark = pytest.mark.slow
VIDEOS = 30


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs, random_encoder):
    """Thirty videos in a folder, their manifest, and the cache of one undisturbed run."""
    folder = tmp_path_factory.mktemp("cluster")
    rows = []
    for i in range(VIDEOS):
        write_video(
            folder / f"v{i}.mp4", panning(photographs["astronaut"], 12 + i, (192, 192), (90, 10), (120 + i, 30))
        )
        rows.append(f"v{i},v{i}.mp4,fear,S{i % 5}")
    (folder / "broken.mp4").write_bytes(b"no video" * 50)
    rows.insert(7, "broken,broken.mp4,fear,S1")
    (folder / "list.csv").write_text("id,path,label,subject\n" + "\n".join(rows) + "\n")
    result = run_cli_in_process(*extract_command(folder, random_encoder, "reference.h5"), "--workers", 2, cwd=folder)
    assert result.returncode == 1, result.stderr
    return folder


def extract_command(home: Path, encoder: Path, out: str) -> list[str]:
    return ["extract", "--manifest", home / "list.csv", "--encoder", encoder, "--crop-size", "64", "--precision", "fp32",
            "--backend", "torch", "--out", home / out, "--quiet"]  # fmt: skip


FAULTS = """
from pathlib import Path
from ceflpipe.stages.extract import encoder_torch, tasks
from ceflpipe.stages.heads import sweep

def replace(module, name, fault, faulty):
    original = getattr(module, name)
    present = lambda: Path("fault").is_file() and Path("fault").read_text() == fault
    setattr(module, name, lambda *a, **k: faulty(original, *a, **k) if present() else original(*a, **k))

def another_encoder(original, path):
    return original(path.with_name("another.safetensors"))

replace(encoder_torch, "read_encoder", "encoder", another_encoder)
replace(encoder_torch.TorchEncoder, "arithmetic", "precision", lambda original, encoder: "tf32")
replace(tasks, "stage_code", "code", lambda original: "0" * 16)
replace(sweep, "heads_code", "heads", lambda original: "0" * 16)
"""
"""Loaded by the workers: makes them machines with another encoder, arithmetic or code while the file ``fault`` says so."""


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, without nannies, so that a killed worker is not started again."""
    (tmp_path / "faults.py").write_text(FAULTS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = (tmp_path / "cluster.log").open("w")

    def start(program, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *options]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)

    running = [start("scheduler", "--host", "127.0.0.1", "--port", address.split(":")[1], "--no-dashboard")]
    for resource in ("FAST=1", "SLOW=1"):
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", resource, "--preload", "faults.py")
        running.append(start("worker", address, *options))
    limit = time.monotonic() + 300
    while (tmp_path / "cluster.log").read_text().count("Registered to") < 2 and time.monotonic() < limit:
        time.sleep(0.2)
    yield f"dask://{address}", running[1:]
    for process in running:
        process.kill()
        process.wait()


def test_a_killed_dask_worker_does_not_change_the_cache(home, random_encoder, cluster):
    address, workers = cluster
    running = subprocess.Popen(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, extract_command(home, random_encoder, "dask.h5")), "--cluster", address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    parts = home / "dask.h5.parts"
    while running.poll() is None and len(list(parts.glob("*.h5"))) < 3:
        time.sleep(0.02)
    killed_midway = running.poll() is None
    os.kill(workers[0].pid, signal.SIGKILL)
    output, errors = running.communicate(timeout=300)
    assert killed_midway
    assert running.returncode == 1, errors
    assert re.search(r"1 of 31 videos failed", output)
    assert sha256_of(home / "dask.h5") == sha256_of(home / "reference.h5")
    assert not parts.exists()


def test_only_workers_that_offer_the_resource_are_used(home, random_encoder, cluster):
    address, workers = cluster
    for worker in workers[1:]:
        os.kill(worker.pid, signal.SIGSTOP)  # a task of this worker would never end
    result = run_cli(
        *extract_command(home, random_encoder, "resource.h5"), "--cluster", address, "--dask-resource", "FAST"
    )
    assert result.returncode == 1, result.stderr
    assert sha256_of(home / "resource.h5") == sha256_of(home / "reference.h5")
    refused = run_cli(
        *extract_command(home, random_encoder, "other.h5"), "--cluster", address, "--dask-resource", "GPU"
    )
    assert refused.returncode == 2
    assert "no worker with --resources GPU=1 has joined" in refused.stderr


def test_workers_that_would_compute_something_else_than_is_recorded_refuse(home, tmp_path, random_encoder, cluster):
    """The files of the workers lie in tmp_path; encoder, arithmetic and code of stage one are those of ``fault``."""
    encoder = Path(shutil.copy(random_encoder, tmp_path / "encoder.safetensors"))
    state = {key: value + 1 for key, value in load_file(random_encoder).items()}
    write_encoder(tmp_path / "another.safetensors", state, "random", "imagenet", {"source": "another, for tests"})
    command = (*extract_command(home, encoder, "refused.h5"), "--cluster", cluster[0])
    for fault, words in (
        ("encoder", "encoder.safetensors: its file has the hash"),
        ("precision", "precision fp32, here tf32"),
        ("code", "has other code of stage one, 0000000000000000"),
    ):
        (tmp_path / "fault").write_text(fault)
        result = run_cli(*command)
        assert (result.returncode, words in result.stderr) == (2, True), result.stderr
        assert "worker " in result.stderr
        assert not (home / "refused.h5").exists()
        assert not list(home.glob("refused.h5.parts/*.h5"))
    (tmp_path / "fault").unlink()
    assert run_cli(*command).returncode == 1  # the broken video
    assert sha256_of(home / "refused.h5") == sha256_of(home / "reference.h5")


def test_a_missing_cluster_is_reported_in_one_line(home, random_encoder):
    result = run_cli(*extract_command(home, random_encoder, "none.h5"), "--cluster", "dask://127.0.0.1:9")
    assert result.returncode == 2
    assert "no scheduler answers" in result.stderr
    assert "Traceback" not in result.stderr
    with pytest.raises(CeflError, match="not the address of a cluster"):
        dask_executor("here")


def test_merged_shards_equal_a_single_run(home, random_encoder):
    manifest, cache = read_manifest(home / "list.csv"), home / "s.h5"
    with pytest.raises(CeflError, match="no shards next to it"):
        merge_shards(manifest, cache)
    run_cli_in_process(*extract_command(home, random_encoder, "s.h5"), "--shard", "1/2", cwd=home)
    with pytest.raises(CeflError, match="--shard 2/2"):
        merge_shards(manifest, cache)
    run_cli_in_process(*extract_command(home, random_encoder, "s.h5"), "--shard", "2/2", cwd=home)
    result = run_cli_in_process("merge-shards", "--manifest", home / "list.csv", "--out", cache, cwd=home)
    assert result.returncode == 1, result.stderr  # the broken video
    assert "broken" in result.stdout
    assert sha256_of(cache) == sha256_of(home / "reference.h5")
    sizes = [len(read_index(home / f"s.shard-{i}-of-2.h5")) for i in (1, 2)]
    assert sum(sizes) == VIDEOS + 1
    assert max(sizes) - min(sizes) <= 1
    shutil.copy(home / "s.shard-1-of-2.h5", home / "s.shard-1-of-3.h5")
    with pytest.raises(CeflError, match="shards of 2 and of 3"):
        merge_shards(manifest, cache)


def test_a_sweep_on_a_cluster_gives_the_same_runs(tmp_path, cluster):
    from helpers.fake_cache import fake_cache, fake_manifest

    from ceflpipe.stages.manifest.manifest import write_manifest

    manifest = fake_manifest(tmp_path)
    write_manifest(tmp_path / "list.csv", manifest.entries)
    fake_cache(tmp_path / "x.h5", manifest)
    command = ["sweep", "--manifest", "list.csv", "--features", "x.h5", "--clips", "1,3", "--frames", "2,3", "--epochs", "2",
             "--folds", "2", "--seeds", "1", "--precision", "fp32", "--quiet"]  # fmt: skip
    local = run_cli_in_process(*command, "--out", "local", "--workers", 1, cwd=tmp_path)
    dask = run_cli(*command, "--out", "dask", "--cluster", cluster[0], cwd=tmp_path)
    assert local.returncode == dask.returncode == 0, dask.stderr
    assert (tmp_path / "local/sweep.csv").read_bytes() == (tmp_path / "dask/sweep.csv").read_bytes()
    for name in ("weights.safetensors", "metrics.json"):
        files = [sorted((tmp_path / out / "runs").glob(f"*/{name}")) for out in ("local", "dask")]
        assert len(files[0]) == 4
        assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    (tmp_path / "fault").write_text("heads")
    refused = run_cli(*command, "--out", "refused", "--cluster", cluster[0], cwd=tmp_path)
    assert refused.returncode == 2
    assert "code of the heads" in refused.stderr
    assert not list((tmp_path / "refused").glob("runs/*/run.json"))
