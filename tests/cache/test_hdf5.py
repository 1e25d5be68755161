"""The feature cache: what is written is read, and corruption is detected; atomic files, the lock, and fingerprints."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
from helpers.fake_cache import fake_video

from ceflpipe.cache.atomic import (
    atomic_write,
    atomic_write_dir,
    pid_alive,
    remove_stale_tmp,
    resolve_inside,
    safe_name,
    sha256_of,
    write_text,
)
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.fingerprint import ExtractionSettings, describe_diff, fingerprint
from ceflpipe.cache.hdf5 import (
    VideoLocation,
    corrupted_videos,
    pack,
    read_features,
    read_index,
    read_settings,
    write_part,
)
from ceflpipe.cache.lock import writer_lock

SETTINGS = ExtractionSettings(
    "video", "retinaface", "a" * 64, 640, 0.5, "landmarks", 112, "actors", "b" * 64, "imagenet", "bf16"
)


def make_video(video_id: str, length: int, seed: int) -> VideoFeatures:
    rng = np.random.default_rng(seed)
    return fake_video(
        video_id,
        rng.random((length, 512)).astype(np.float16),
        frame_status=rng.integers(0, 3, length).astype(np.uint8),
        score=rng.random(length).astype(np.float32),
        box=rng.random((length, 4)).astype(np.float32),
        landmarks=rng.random((length, 5, 2)).astype(np.float32),
    )


def pack_videos(folder, lengths):
    """Return random videos, and a feature cache packed from their part files."""
    videos = [make_video(f"S{i}/väldi[g] {i}", length, i) for i, length in enumerate(lengths)]
    parts = [folder / "parts" / f"{safe_name(video.id)}.h5" for video in videos]
    for part, video in zip(parts, videos, strict=True):
        write_part(part, video, SETTINGS)
    assert pack(folder / "cache.h5", [VideoLocation(part, 0) for part in parts], SETTINGS) == []
    return videos, folder / "cache.h5"


def locations(path, count):
    return [VideoLocation(path, index) for index in range(count)]


def test_read_features_returns_what_was_written(tmp_path):
    videos, path = pack_videos(tmp_path, [5, 0, 2000, 1])
    table = read_features(path)
    assert table.videos.id == [video.id for video in videos]
    for video in videos:
        rows = table.rows(video.id)
        for name in ("features", "frame_status", "score", "box", "landmarks"):
            np.testing.assert_array_equal(getattr(table, name)[rows], getattr(video, name))
    assert table.settings == read_settings(path) == SETTINGS


def test_plain_h5py_reads_a_cache(tmp_path):
    """The layout that docs/cache.md promises to other tools."""
    videos, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r") as file:
        assert file["features"].shape == (12, 512)
        assert file["features"].dtype == np.float16
        start, length = file["videos/start"][1], file["videos/length"][1]
        np.testing.assert_array_equal(file["features"][start : start + length], videos[1].features)
        assert file["videos/id"].asstr()[1] == videos[1].id


def test_same_content_gives_same_bytes(tmp_path):
    _, first = pack_videos(tmp_path / "first", [5, 0, 9])
    time.sleep(1.1)  # a time stamp in the file would differ
    _, second = pack_videos(tmp_path / "second", [5, 0, 9])
    assert sha256_of(first) == sha256_of(second)
    repacked = tmp_path / "repacked.h5"
    pack(repacked, locations(first, 3), SETTINGS)
    assert sha256_of(repacked) == sha256_of(first)


def test_flipped_bytes_are_detected_and_not_packed(tmp_path):
    videos, path = pack_videos(tmp_path, [50, 60, 70])
    content = bytearray(path.read_bytes())
    content[content.find(videos[1].features.tobytes()[:64]) + 5] ^= 0xFF
    path.write_bytes(content)
    assert corrupted_videos(path) == [videos[1].id]
    with pytest.raises(CeflError, match="1 of 3 videos corrupted, checksum mismatch"):
        read_features(path)
    assert pack(tmp_path / "new.h5", locations(path, 3), SETTINGS) == [videos[1].id]
    assert read_index(tmp_path / "new.h5").id == [videos[0].id, videos[2].id]


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_file_that_is_not_hdf5_is_rejected(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(CeflError, match=r"x\.h5: not a readable HDF5 file .* run ceflpipe extract"):
        read_features(path)


def test_another_hdf5_file_is_rejected(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.zeros((3, 512))
    with pytest.raises(CeflError, match="not a feature cache"):
        read_features(tmp_path / "x.h5")


def test_lengths_that_do_not_add_up_are_rejected(tmp_path):
    _, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        file["videos/length"][1] = 7000
    with pytest.raises(CeflError, match="do not add up to its frames"):
        read_features(path)


@pytest.mark.parametrize("key", ["id", "fps", "fingerprint", "status", "settings"])
def test_a_changed_index_is_rejected(tmp_path, key):
    _, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        if key == "settings":
            file.attrs["settings"] = file.attrs["settings"].replace("1", "2") + " "
        else:
            file[f"videos/{key}"][1] = {"id": b"x", "fps": 13.0, "fingerprint": b"f", "status": b"no"}[key]
    with pytest.raises(CeflError, match="do not match their checksum"):
        read_features(path)


def test_fingerprint_depends_on_everything_that_decides_the_features():
    base = fingerprint(SETTINGS, "0" * 64)
    assert base == fingerprint(replace(SETTINGS), "0" * 64)
    changes = {
        "input": "crops", "detector": "other", "detector_sha256": "c" * 64, "det_size": 320, "det_thresh": 0.6,
        "align": "box", "crop_size": 224, "encoder": "x", "encoder_sha256": "d" * 64, "normalization": "unit",
        "precision": "fp32", "backend": "openvino", "extractor_version": SETTINGS.extractor_version + 1,
    }  # fmt: skip
    assert set(changes) == {field.name for field in fields(SETTINGS)}
    changed = {fingerprint(replace(SETTINGS, **{key: value}), "0" * 64) for key, value in changes.items()}
    changed |= {
        fingerprint(SETTINGS, "1" * 64),
        fingerprint(SETTINGS, "0" * 64, "90"),
        fingerprint(SETTINGS, "0" * 64, "", "0 0 9 9"),
    }
    assert len(changed) == len(changes) + 3
    assert base not in changed


def test_describe_diff_names_settings_and_shortens_hashes():
    new = replace(SETTINGS, encoder="fer", encoder_sha256="b712" + "0" * 60)
    assert describe_diff(SETTINGS, new) == "encoder actors, now fer; encoder_sha256 bbbbbbbb…, now b7120000…"


@pytest.fixture
def dead_pid():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_dir_replaces_all_content(tmp_path):
    for content in ("one", "two"):
        with atomic_write_dir(tmp_path / "run") as folder:
            (folder / content).write_text(content)
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["two"]
    assert len(list(tmp_path.iterdir())) == 1


def test_temporary_files_of_dead_processes_are_removed_and_others_stay(tmp_path, dead_pid):
    (tmp_path / f".x.h5.{dead_pid}.partial").write_text("")
    (tmp_path / f".x.h5.timing.json.{dead_pid}.partial").write_text("")
    (tmp_path / f".x.h5.{dead_pid}.old.partial").mkdir()
    unrelated = sorted([f".x.h5.{os.getpid()}.partial", f".y.h5.{dead_pid}.partial", "x.h5"])
    for name in unrelated:
        (tmp_path / name).write_text("")
    remove_stale_tmp(tmp_path / "x.h5")
    assert sorted(f.name for f in tmp_path.iterdir()) == unrelated


def test_a_zombie_is_not_alive():
    """Until its parent reaps it, a process keeps its entry and can be signaled; killed workers are zombies for a while."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert pid_alive(process.pid)
        process.kill()
        deadline = time.monotonic() + 30
        while pid_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, 0)  # the entry exists: nothing is raised
        assert not pid_alive(process.pid)


def test_write_text_removes_temporary_files_of_killed_writers(tmp_path, dead_pid):
    (tmp_path / f".sweep.csv.{dead_pid}.partial").write_text("half")
    write_text(tmp_path / "sweep.csv", "all of it")
    assert [f.name for f in tmp_path.iterdir()] == ["sweep.csv"]


LOCK_HOLDER = """
import sys, time
from pathlib import Path
from ceflpipe.cache.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path):
    cache = tmp_path / "x.h5"
    holder = subprocess.Popen([sys.executable, "-c", LOCK_HOLDER, str(cache)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CeflError, match=rf"pid {holder.pid} on "), writer_lock(cache):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with writer_lock(cache):
        assert (tmp_path / "x.h5.lock").exists()
    assert not (tmp_path / "x.h5.lock").exists()


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "link/x", "a\0b"])
def test_resolve_inside_refuses_paths_out_of_the_root(tmp_path, relative):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(CeflError):
        resolve_inside(root, relative)


def test_resolve_inside_accepts_paths_in_the_root_and_external_ones_if_allowed(tmp_path):
    assert resolve_inside(tmp_path, "a/../b.mp4") == tmp_path / "b.mp4"
    assert resolve_inside(tmp_path, "../b.mp4", allow_external=True) == tmp_path.parent / "b.mp4"


def test_safe_names_are_valid_readable_and_distinct():
    ids = ["S1/anger", "S1-anger", "../../etc", "a" * 500, "日本", "", "con", "a b"]
    names = [safe_name(i) for i in ids]
    assert len(set(names)) == len(ids)
    assert all(len(n) < 120 and "/" not in n and not n.startswith(".") for n in names)
    assert safe_name("S1/anger").startswith("S1-anger-")


def test_sha256_of_a_folder_depends_on_names_and_contents(tmp_path):
    def folder(name, files):
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
        return sha256_of(tmp_path / name)

    base = folder("a", {"1": "x", "2": "y"})
    assert base == folder("b", {"2": "y", "1": "x"})
    assert (
        len({base, folder("c", {"1": "x"}), folder("d", {"1": "y", "2": "x"}), folder("e", {"1": "x", "3": "y"})}) == 4
    )
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_a_folder_that_was_being_replaced_at_a_kill_is_restored(tmp_path, dead_pid):
    for name in (f".run.{dead_pid}.old.partial", f".run.{dead_pid}.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("old" if "old" in name else "new")).write_text("")
    remove_stale_tmp(tmp_path / "run")
    assert [f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()] == ["run/old"]
