"""A full disk, a drive that is gone, a second writer, NaN: one clear line, and no finished work is lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli
from helpers.runs import SETTINGS
from helpers.video import panning, write_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.hdf5 import VideoLocation, pack, read_features, read_index, write_part
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, train_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

VIDEOS = 8
SUBJECT_WISE = CVConfig(fold_scheme="subject", folds=3, seed=1)
CONFIG = TrainConfig(
    head="cefl", num_clips=3, frames_per_clip=2, epochs=60, warmup_epochs=0, learning_rate=0.001, precision="fp32"
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, photographs):
    home = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        write_video(home / f"v{i}.mp4", panning(photographs["astronaut"], 60, (160, 160), (110, 20), (130 + i, 20)))
    rows = "".join(f"v{i},v{i}.mp4,fear,S{i}\n" for i in range(VIDEOS))
    (home / "list.csv").write_text(f"id,path,label,subject\n{rows}")
    return home


def extract_command(videos, encoder, out):
    return ["extract", "--manifest", videos / "list.csv", "--encoder", encoder, "--crop-size", "32", "--precision", "fp32",
            "--out", out, "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def reference(videos, random_encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "x.h5"
    assert run_cli(*extract_command(videos, random_encoder, out)).returncode == 0
    return out


def assert_one_line(result, *messages):
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("ceflpipe:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in lines[0]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte; one video of the fixture needs a fifth of that, and so much again in the cache."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a disk of half a megabyte; tests with a limit on files cover the rest")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_refused_and_one_that_fills_up_loses_nothing(
    videos, random_encoder, reference, small_disk
):
    done = run_cli(*extract_command(videos, random_encoder, small_disk / "x.h5"))
    assert_one_line(done, "0.5 MB are free, and about", "MB are needed", "make room, or give --out a folder on another")
    assert not list(small_disk.iterdir())
    # other programs fill it after the check
    unchecked = "import runpy, sys; from ceflpipe.cache import ownership; ownership.free_bytes = lambda folder: 1 << 40; " \
                "sys.argv[0] = 'ceflpipe'; runpy.run_module('ceflpipe.pipeline', run_name='__main__')"  # fmt: skip
    command = list(map(str, extract_command(videos, random_encoder, small_disk / "x.h5")))
    done = subprocess.run([sys.executable, "-c", unchecked, *command], capture_output=True, text=True, timeout=300)
    assert_one_line(done, "the disk is full", "run the same command")
    finished = list((small_disk / "x.h5.parts").glob("*.h5"))
    assert 0 < len(finished) < VIDEOS
    assert all(len(read_index(part)) == 1 for part in finished)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = run_cli(*extract_command(videos, random_encoder, small_disk / "x.h5"), "--json")
    assert again.returncode == 0, again.stderr
    assert f'"extracted": {VIDEOS - len(finished)}' in again.stdout
    assert sha256_of(small_disk / "x.h5") == sha256_of(reference)


@pytest.mark.slow
def test_a_file_size_limit_stops_with_one_line_and_keeps_the_old_cache(videos, random_encoder, reference, tmp_path):
    shutil.copy(reference, tmp_path / "x.h5")
    for name in ("list.csv", *(f"v{i}.mp4" for i in range(VIDEOS))):
        shutil.copy(videos / name, tmp_path / name)
    shutil.copy(videos / "v0.mp4", tmp_path / "v7.mp4")  # one video has changed, so all are packed again
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (330_000, 330_000)); " \
              "sys.argv[0] = 'ceflpipe'; runpy.run_module('ceflpipe.pipeline', run_name='__main__')"  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", limited, *map(str, extract_command(tmp_path, random_encoder, tmp_path / "x.h5"))],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert_one_line(result, "would exceed the size limit")
    assert sha256_of(tmp_path / "x.h5") == sha256_of(reference)
    assert run_cli(*extract_command(tmp_path, random_encoder, tmp_path / "x.h5")).returncode == 0
    assert len(read_features(tmp_path / "x.h5").videos) == VIDEOS


@pytest.mark.slow
def test_paths_that_cannot_be_written_are_named(videos, random_encoder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert_one_line(run_cli(*extract_command(videos, random_encoder, tmp_path / "file/x.h5")), "file")
    assert_one_line(run_cli(*extract_command(videos, random_encoder, "/proc/x.h5")), "/proc")


def small(folder, names):
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


def test_features_of_videos_that_are_gone_are_kept(videos, random_encoder, tmp_path):
    names = [f"v{i}" for i in range(3)]
    for name in names:
        shutil.copy(videos / f"{name}.mp4", tmp_path)
    config, cache = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32"), tmp_path / "x.h5"
    extract_features(small(tmp_path, names[:2]), config, cache)
    before = read_features(cache)
    for name in names[:2]:
        (tmp_path / f"{name}.mp4").unlink()
    result = extract_features(small(tmp_path, names), config, cache)
    assert [(i, s) for i, s, _ in result.failed] == [("v0", "missing"), ("v1", "missing")]
    after = read_features(cache)
    assert after.videos.id == names
    for name in names[:2]:
        np.testing.assert_array_equal(after.features[after.rows(name)], before.features[before.rows(name)])


def test_a_corrupted_cache_is_renamed_and_created_again(videos, random_encoder, tmp_path):
    config, cache = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32"), tmp_path / "x.h5"
    shutil.copy(videos / "v0.mp4", tmp_path)
    extract_features(small(tmp_path, ["v0"]), config, cache)
    content = cache.read_bytes()
    cache.write_bytes(content[: len(content) // 2])
    with pytest.raises(CeflError):
        read_features(cache)
    assert extract_features(small(tmp_path, ["v0"]), config, cache).num_extracted == 1
    assert cache.read_bytes() == content
    assert (tmp_path / "x.h5.corrupted-1").stat().st_size == len(content) // 2


@pytest.mark.slow
def test_a_second_writer_is_refused_and_the_first_continues(videos, random_encoder, reference, tmp_path):
    command = [
        sys.executable,
        "-m",
        "ceflpipe.pipeline",
        *map(str, extract_command(videos, random_encoder, tmp_path / "x.h5")),
    ]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "x.h5.parts").glob("*.h5")) and first.poll() is None:
        time.sleep(0.02)
    assert first.poll() is None
    os.kill(first.pid, signal.SIGSTOP)  # it stops, and still holds the lock
    try:
        assert_one_line(
            run_cli(*extract_command(videos, random_encoder, tmp_path / "x.h5")),
            "another process is writing",
            f"pid {first.pid}",
        )
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    assert sha256_of(tmp_path / "x.h5") == sha256_of(reference)


def test_readers_never_open_an_incomplete_file(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "all.h5", manifest)
    entries = [VideoLocation(tmp_path / "all.h5", row) for row in range(len(manifest.entries))]
    cache, stop = tmp_path / "x.h5", threading.Event()
    pack(cache, entries, SETTINGS)

    def write():
        while not stop.is_set():
            pack(cache, entries[:3], SETTINGS)
            pack(cache, entries, SETTINGS)

    writer = threading.Thread(target=write)
    writer.start()
    sizes, both, limit = [], {3, len(manifest.entries)}, time.monotonic() + 60
    try:
        while len(sizes) < 60 or (set(sizes) < both and time.monotonic() < limit):
            sizes.append(len(read_features(cache).videos))
        assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    assert set(sizes) == both


# ---- labels and features of stage two


@pytest.fixture
def trained(tmp_path):
    """Random features in which the label is a strong signal, and a function that trains on them."""
    manifest = fake_manifest(tmp_path, subjects=12)
    fake_cache(tmp_path / "x.h5", manifest, signal=10.0)
    small = CONFIG.model_copy(update={"num_clips": 7, "frames_per_clip": 5})

    def train(manifest, name, cv=SUBJECT_WISE, config=small, epochs=15):
        config = config.model_copy(update={"epochs": epochs})
        return read_run(train_run(RunSpec(manifest, tmp_path / "x.h5", config, cv, tmp_path / name, "cpu")))

    return manifest, train


def war(run):
    table = run.predictions()
    return float((table.label == table.predicted).mean())


@pytest.mark.slow
def test_permuted_labels_give_chance(trained):
    """If the label of a test video leaked into training, it would be predicted although it is random.

    The heads learn the random labels of the training videos by heart, so that a leak would show.
    """
    manifest, train = trained
    assert war(train(manifest, "true")) > 0.8
    rng = np.random.default_rng(0)
    scores = []
    for number in range(2):
        labels = rng.permutation([entry.label for entry in manifest.entries])
        entries = tuple(replace(entry, label=str(label)) for entry, label in zip(manifest.entries, labels, strict=True))
        permuted = Manifest("x", manifest.root, entries, manifest.labels)
        run = train(permuted, f"permuted{number}", epochs=25)
        history = run.history()
        assert history[history.epoch == 25].train_accuracy.mean() > 0.75
        scores.append(war(run))
    n = 2 * len(manifest.entries)
    chance = 1 / len(manifest.labels)
    assert abs(np.mean(scores) - chance) < 4 * np.sqrt(chance * (1 - chance) / n)


def test_the_labels_of_the_test_videos_change_no_weight(trained):
    manifest, train = trained
    split = [replace(entry, split="train" if i % 4 else "val") for i, entry in enumerate(manifest.entries)]
    relabeled = [replace(entry, label=manifest.labels[0]) if entry.split == "val" else entry for entry in split]
    cv = CVConfig(fold_scheme="split", seed=1)
    runs = [
        train(Manifest("x", manifest.root, tuple(entries), manifest.labels), name, cv)
        for entries, name in ((split, "a"), (relabeled, "b"))
    ]
    first, second = ((run.path / "weights.safetensors").read_bytes() for run in runs)
    assert first == second
    assert war(runs[0]) > war(runs[1])


def test_nan_stops_training_and_names_the_video_or_the_fold(trained, tmp_path):
    manifest, train = trained
    table = read_features(tmp_path / "x.h5")
    with pytest.raises(CeflError, match=r"fold 1 seed 1.*NaN or infinite"):
        train(manifest, "diverged", config=CONFIG.model_copy(update={"learning_rate": 1e30}))
    poisoned = manifest.entries[4].id
    rows = table.rows(poisoned)
    features = table.features[rows].copy()
    features[3, 7] = np.nan
    count = len(features)
    video = VideoFeatures(poisoned, features, np.arange(count) / 25, np.ones(count, np.uint8), np.zeros(count, np.uint8), np.ones(count, np.float32),
                          np.zeros((count, 4), np.float32), np.zeros((count, 5, 2), np.float32), 25.0, count, 64, 64,
                          "f" * 32, "0" * 64, "ok")  # fmt: skip
    write_part(tmp_path / "bad.h5", video, SETTINGS)
    locations = [
        VideoLocation(tmp_path / "bad.h5", 0) if name == poisoned else VideoLocation(tmp_path / "x.h5", index)
        for index, name in enumerate(table.videos.id)
    ]
    pack(tmp_path / "y.h5", locations, SETTINGS)
    (tmp_path / "y.h5").replace(tmp_path / "x.h5")
    with pytest.raises(CeflError, match=f"{poisoned}.*(NaN|not finite)"):
        train(manifest, "poisoned")


def test_the_metrics_of_a_run_follow_from_its_tables(trained):
    manifest, train = trained
    run = train(manifest, "run")
    table = pd.concat(
        pd.read_csv(file, dtype={"fold": str}) for file in sorted((run.path / "predictions").glob("*.csv"))
    )
    correct = table.label == table.predicted
    recall = correct.groupby([table.fold, table.label]).mean().groupby("fold").mean()
    assert run.metrics["war"]["mean"] == pytest.approx(correct.groupby(table.fold).mean().mean(), abs=1e-6)
    assert run.metrics["uar"]["mean"] == pytest.approx(recall.mean())
