"""Features that do not fit into memory: read from the file in batches, one step ahead, with the results of features in memory."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CorruptedError
from ceflpipe.cache.hdf5 import PAGE_BYTES, read_features
from ceflpipe.pipeline.training import run_sweep
from ceflpipe.stages.heads import feature_bank
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.feature_bank import STEPS_AHEAD, iter_ahead, join_features, load_table
from ceflpipe.stages.heads.sweep import RunSpec
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(num_clips=3, frames_per_clip=2, epochs=2, warmup_epochs=1, precision="fp32", batch_size=4)
CV = CVConfig(folds=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mapped")
    manifest = fake_manifest(folder)
    fake_cache(folder / "x.h5", manifest)
    return manifest, folder / "x.h5"


def files_of(run):
    return {
        file.name: file.read_bytes()
        for file in run.path.rglob("*")
        if file.is_file() and file.suffix in (".csv", ".safetensors")
    }


@pytest.mark.parametrize("head", ["cefl", "mean"])
def test_a_run_has_the_same_bytes_as_from_memory(cache, tmp_path, head):
    manifest, path = cache
    config, cv = CONFIG.model_copy(update={"head": head}), CV.model_copy(update={"tune": ("epochs",), "tune_folds": 2})
    in_memory, mapped = read_features(path), read_features(path, mapped=True)
    assert isinstance(mapped.features, np.memmap)
    assert not isinstance(in_memory.features, np.memmap)
    runs = [cross_validate(manifest, t, config, cv, tmp_path / name) for t, name in ((in_memory, "a"), (mapped, "b"))]
    first, second = map(files_of, runs)
    assert len(first) > 4
    assert first == second


def test_features_are_mapped_if_they_take_more_than_half_of_the_free_memory(cache, monkeypatch):
    manifest, path = cache
    size = path.stat().st_size
    for free, is_mapped in ((2 * size, False), (2 * size - 2, True)):
        monkeypatch.setattr(feature_bank, "available_bytes", lambda device, free=free: free)
        table = load_table(path)
        assert isinstance(table.features, np.memmap) == is_mapped
        assert join_features(manifest, table, torch.device("cpu")).bank.is_remote == is_mapped


@pytest.mark.slow
def test_workers_of_a_sweep_read_the_file_themselves(cache, tmp_path, monkeypatch):
    """In place of a copy of the features for each."""
    manifest, path = cache
    specs = [
        RunSpec(manifest, path, CONFIG.model_copy(update={"head": "mean", "num_clips": clips}), CV, Path())
        for clips in (1, 2)
    ]
    expected = run_sweep([replace(spec, out=tmp_path / f"a{n}") for n, spec in enumerate(specs)], workers=1)
    monkeypatch.setattr(feature_bank, "available_bytes", lambda device: 0)
    runs = run_sweep([replace(spec, out=tmp_path / f"b{n}") for n, spec in enumerate(specs)], workers=2)
    assert list(map(files_of, runs)) == list(map(files_of, expected))


def test_batches_are_read_ahead_and_come_in_order():
    loaded, ahead = [], threading.Event()

    def load(item):
        loaded.append(item)
        if len(loaded) > STEPS_AHEAD:
            ahead.set()
        return torch.tensor(item)

    batches = iter_ahead(load, range(10), is_remote=True)
    assert int(next(batches)) == 0
    assert ahead.wait(10), "the next batches are loaded before anybody asks for them"
    assert list(map(int, batches)) == list(range(1, 10))
    assert loaded == list(range(10))
    loaded.clear()
    assert int(next(iter_ahead(load, range(10), is_remote=False))) == 0
    assert loaded == [0]


def test_an_error_while_reading_ahead_is_raised():
    def load(item):
        if item == 2:
            raise OSError("no such luck")
        return torch.tensor(item)

    with pytest.raises(OSError, match="no such luck"):
        list(iter_ahead(load, range(5), is_remote=True))


def test_the_features_of_a_cache_are_in_one_piece_from_the_start_of_a_page(cache):
    with h5py.File(cache[1]) as file:
        offset, size = file["features"].id.get_offset(), file["features"].nbytes
        expected = file["features"][()]
    assert offset % PAGE_BYTES == 0
    content = cache[1].read_bytes()[offset : offset + size]
    assert np.array_equal(np.frombuffer(content, np.float16).reshape(expected.shape), expected)


def test_a_cache_in_chunks_is_read_into_memory(cache, tmp_path):
    """As caches were written before."""
    with h5py.File(cache[1]) as old, h5py.File(tmp_path / "x.h5", "w") as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
        values = new["features"][()]
        del new["features"]
        new.create_dataset("features", data=values, chunks=(64, values.shape[1]))
    table = read_features(tmp_path / "x.h5", mapped=True)
    assert not isinstance(table.features, np.memmap)
    assert np.array_equal(table.features, read_features(cache[1]).features)


def test_a_file_that_was_cut_off_is_refused_and_does_not_kill_the_process(cache, tmp_path):
    content = cache[1].read_bytes()
    for size in (len(content) // 2, len(content) - 1):
        (tmp_path / "x.h5").write_bytes(content[:size])
        with pytest.raises(CorruptedError):
            read_features(tmp_path / "x.h5", mapped=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of a process is read from /proc")
def test_mapped_features_take_no_memory_of_the_process(tmp_path):
    """More than 60 MB of features are read twice, to verify and to look for NaN."""
    manifest = fake_manifest(tmp_path, subjects=10)
    fake_cache(tmp_path / "x.h5", manifest, frames=(2000, 2200))
    code = f"""
import torch
from pathlib import Path
from helpers.fake_cache import fake_manifest
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.heads.feature_bank import join_features

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10

before = own()
table = read_features(Path({str(tmp_path / "x.h5")!r}), mapped=MAPPED)
dataset = join_features(fake_manifest(Path({str(tmp_path)!r}), subjects=10), table, torch.device("cpu"))
print((own() - before) / table.features.nbytes)
"""
    share = {}
    for mapped in (False, True):
        command = [sys.executable, "-c", code.replace("MAPPED", str(mapped))]
        done = subprocess.run(
            command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True, timeout=120
        )
        share[mapped] = float(done.stdout)
    assert share[False] > 0.9
    assert share[True] < 0.2
