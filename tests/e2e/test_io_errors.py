"""A full disk, a vanished drive, a second writer, broken numbers: one clear line, and nothing finished is lost."""

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
from helpers.cli import run_cli
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.video import panning, write_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import VideoLocation, pack, read_features, read_index
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.heads.cross_validation import CVConfig
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, train_run
from ceflpipe.stages.heads.train_config import TrainConfig
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

VIDEOS = 8
SUBJECT_WISE = CVConfig(fold_scheme="subject", folds=3, seed=1)
RECIPE = TrainConfig(
    head="cefl", num_clips=3, frames_per_clip=2, epochs=60, warmup_epochs=0, learning_rate=0.001, precision="fp32"
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, photographs):
    home = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        write_video(home / f"v{i}.mp4", panning(photographs["astronaut"], 110, (160, 160), (110, 20), (130 + i, 20)))
    rows = "".join(f"v{i},v{i}.mp4,fear,S{i}\n" for i in range(VIDEOS))
    (home / "list.csv").write_text(f"id,path,label,subject\n{rows}")
    return home


def words(videos, encoder, out):
    return ["extract", "--manifest", videos / "list.csv", "--encoder", encoder, "--crop-size", "32", "--precision", "fp32",
            "--out", out, "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def calm(videos, random_encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("calm") / "x.h5"
    assert run_cli(*words(videos, random_encoder, out)).returncode == 0
    return out


def one_line(done, *expected):
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("ceflpipe:")]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in said[0]


@pytest.mark.slow
def test_a_full_disk_stops_with_one_line_and_goes_on_when_there_is_room(videos, random_encoder, calm, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a disk of one megabyte; the test with a limit on files covers the rest")
    try:
        one_line(run_cli(*words(videos, random_encoder, disk / "x.h5")), "the disk is full", "run the same command")
        finished = list((disk / "x.h5.parts").glob("*.h5"))
        assert 0 < len(finished) < VIDEOS
        assert all(len(read_index(part)) == 1 for part in finished)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = run_cli(*words(videos, random_encoder, disk / "x.h5"), "--json")
        assert again.returncode == 0, again.stderr
        assert f'"finished": {VIDEOS - len(finished)}' in again.stdout
        assert sha256_of(disk / "x.h5") == sha256_of(calm)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
def test_a_limit_on_files_stops_with_one_line_and_the_old_cache_still_opens(videos, random_encoder, calm, tmp_path):
    shutil.copy(calm, tmp_path / "x.h5")
    for name in ("list.csv", *(f"v{i}.mp4" for i in range(VIDEOS))):
        shutil.copy(videos / name, tmp_path / name)
    shutil.copy(videos / "v0.mp4", tmp_path / "v7.mp4")  # one video has changed, so everything is packed anew
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000)); " \
              "sys.argv[0] = 'ceflpipe'; runpy.run_module('ceflpipe.pipeline', run_name='__main__')"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, words(tmp_path, random_encoder, tmp_path / "x.h5"))],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    one_line(done, "may not grow beyond the limit")
    assert sha256_of(tmp_path / "x.h5") == sha256_of(calm)
    assert run_cli(*words(tmp_path, random_encoder, tmp_path / "x.h5")).returncode == 0
    assert len(read_features(tmp_path / "x.h5").videos) == VIDEOS


@pytest.mark.slow
def test_places_that_cannot_be_written_are_said(videos, random_encoder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    one_line(run_cli(*words(videos, random_encoder, tmp_path / "file/x.h5")), "file")
    one_line(run_cli(*words(videos, random_encoder, "/proc/x.h5")), "/proc")


def small(folder, names):
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


def test_a_drive_that_vanished_takes_no_features_with_it(videos, random_encoder, tmp_path):
    names = [f"v{i}" for i in range(3)]
    for name in names:
        shutil.copy(videos / f"{name}.mp4", tmp_path)
    wishes, cache = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32"), tmp_path / "x.h5"
    extract_features(small(tmp_path, names[:2]), wishes, cache)
    before = read_features(cache)
    for name in names[:2]:
        (tmp_path / f"{name}.mp4").unlink()
    result = extract_features(small(tmp_path, names), wishes, cache)
    assert [(i, s) for i, s, _ in result.failed] == [("v0", "missing"), ("v1", "missing")]
    after = read_features(cache)
    assert after.videos.id == names
    for name in names[:2]:
        np.testing.assert_array_equal(after.features[after.rows(name)], before.features[before.rows(name)])


def test_a_damaged_cache_is_put_aside_and_made_again(videos, random_encoder, tmp_path):
    wishes, cache = ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32"), tmp_path / "x.h5"
    shutil.copy(videos / "v0.mp4", tmp_path)
    extract_features(small(tmp_path, ["v0"]), wishes, cache)
    good = cache.read_bytes()
    cache.write_bytes(good[: len(good) // 2])
    with pytest.raises(CeflError):
        read_features(cache)
    assert extract_features(small(tmp_path, ["v0"]), wishes, cache).num_extracted == 1
    assert cache.read_bytes() == good
    assert (tmp_path / "x.h5.damaged").stat().st_size == len(good) // 2


@pytest.mark.slow
def test_a_second_writer_is_refused_with_the_holder_while_the_first_goes_on(videos, random_encoder, calm, tmp_path):
    command = [sys.executable, "-m", "ceflpipe.pipeline", *map(str, words(videos, random_encoder, tmp_path / "x.h5"))]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "x.h5.parts").glob("*.h5")) and first.poll() is None:
        time.sleep(0.02)
    assert first.poll() is None
    os.kill(first.pid, signal.SIGSTOP)  # it holds still, and the lock
    try:
        one_line(
            run_cli(*words(videos, random_encoder, tmp_path / "x.h5")), "another process is writing", f"pid {first.pid}"
        )
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    assert sha256_of(tmp_path / "x.h5") == sha256_of(calm)


def test_readers_never_see_half_a_file(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "all.h5", manifest)
    entries = [VideoLocation(tmp_path / "all.h5", row) for row in range(len(manifest.entries))]
    cache, over = tmp_path / "x.h5", threading.Event()
    pack(cache, entries, "{}")

    def write():
        while not over.is_set():
            pack(cache, entries[:3], "{}")
            pack(cache, entries, "{}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {len(read_features(cache).videos) for _ in range(60)}
    finally:
        over.set()
        writer.join()
    assert seen <= {3, len(manifest.entries)}


# ---- numbers that cannot lie


@pytest.fixture
def trained(tmp_path):
    """Train on random features in which the label leaves a clear trace; returns a function of the manifest."""
    manifest = fake_manifest(tmp_path, subjects=12)
    fake_cache(tmp_path / "x.h5", manifest, trace=10.0)
    sees_the_trace = replace(RECIPE, clips=7, frames=5, epochs=40)

    def train(manifest, name, protocol=SUBJECT_WISE, recipe=sees_the_trace):
        return read_run(train_run(RunSpec(manifest, tmp_path / "x.h5", recipe, protocol, tmp_path / name, "cpu")))

    return manifest, train


def war(run):
    said = run.predictions()
    return float((said.label == said.predicted).mean())


@pytest.mark.slow
def test_permuted_labels_give_chance(trained):
    """If anything of a test video's label reached training, its own label would be found although it means nothing."""
    manifest, train = trained
    assert war(train(manifest, "true")) > 0.8
    rng = np.random.default_rng(0)
    scores = []
    for number in range(2):
        labels = rng.permutation([row.label for row in manifest.rows])
        rows = tuple(
            VideoEntry(**{**vars(row), "label": str(label)}) for row, label in zip(manifest.rows, labels, strict=True)
        )
        scores.append(war(train(Manifest("x", manifest.root, rows, manifest.labels), f"permuted{number}")))
    n = 2 * len(manifest.rows)
    chance = 1 / len(manifest.labels)
    assert abs(np.mean(scores) - chance) < 4 * np.sqrt(chance * (1 - chance) / n)


def test_the_labels_of_the_test_videos_change_no_weight(trained):
    manifest, train = trained
    split = [
        VideoEntry(**{**vars(row), "split": "val" if i % 4 == 0 else "train"}) for i, row in enumerate(manifest.rows)
    ]
    other = [VideoEntry(**{**vars(row), "label": manifest.labels[0]}) if row.split == "val" else row for row in split]
    runs = [
        train(Manifest("x", manifest.root, tuple(rows), manifest.labels), name, CVConfig(fold_scheme="split", seed=1))
        for rows, name in ((split, "a"), (other, "b"))
    ]
    first, second = ((run.path / "weights.safetensors").read_bytes() for run in runs)
    assert first == second
    assert war(runs[0]) > war(runs[1])


def test_numbers_that_are_none_stop_with_the_video_or_the_fold_named(trained, tmp_path):
    manifest, train = trained
    table = read_features(tmp_path / "x.h5")
    with pytest.raises(CeflError, match=r"the loss of fold 1 seed 1.*no longer a number"):
        train(manifest, "wild", recipe=TrainConfig(**{**vars(RECIPE), "learning_rate": 1e30}))
    poisoned = manifest.rows[4].id
    from ceflpipe.cache.features import VideoFeatures
    from ceflpipe.cache.hdf5 import write_part

    rows = table.rows(poisoned)
    features = table.features[rows].copy()
    features[3, 7] = np.nan
    count = len(features)
    video = VideoFeatures(poisoned, features, np.ones(count, np.uint8), np.ones(count, np.float32),
                          np.zeros((count, 4), np.float32), np.zeros((count, 5, 2), np.float32), 25.0, count, 64, 64,
                          "f" * 32, "0" * 64, "ok")  # fmt: skip
    write_part(tmp_path / "bad.h5", video, "{}")
    entries = [VideoLocation(tmp_path / ("bad.h5" if name == poisoned else "x.h5"), 0 if name == poisoned else place)
               for place, name in enumerate(table.videos.id)]  # fmt: skip
    pack(tmp_path / "y.h5", entries, "{}")
    (tmp_path / "y.h5").replace(tmp_path / "x.h5")
    with pytest.raises(CeflError, match=f"{poisoned}.*not finite"):
        train(manifest, "poisoned")


def test_a_runs_metrics_come_out_of_its_tables_with_pandas_alone(trained):
    manifest, train = trained
    run = train(manifest, "run")
    said = pd.concat(
        pd.read_csv(file, dtype={"fold": str}) for file in sorted((run.path / "predictions").glob("*.csv"))
    )
    right = said.label == said.predicted
    per_fold = right.groupby(said.fold).mean()
    recall = right.groupby([said.fold, said.label]).mean().groupby("fold").mean()
    assert run.metrics["war"]["mean"] == pytest.approx(100 * per_fold.mean(), abs=1e-6) or run.metrics["war"][
        "mean"
    ] == pytest.approx(per_fold.mean(), abs=1e-6)
    assert run.metrics["uar"]["mean"] in (pytest.approx(100 * recall.mean()), pytest.approx(recall.mean()))
