"""The feature cache: what goes in comes out, and damage is found."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

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
from ceflpipe.cache.hdf5 import VideoLocation, corrupted_videos, pack, read_features, read_index, write_part
from ceflpipe.cache.lock import writer_lock

SETTINGS = ExtractionSettings(
    "video", "retinaface", "a" * 64, 640, 0.5, "landmarks", 112, "actors", "b" * 64, "imagenet", "bf16"
)


def video(name, length, seed=0):
    rng = np.random.default_rng(seed)
    return VideoFeatures(
        name, rng.random((length, 512)).astype(np.float16), rng.integers(0, 3, length).astype(np.uint8),
        rng.random(length).astype(np.float32), rng.random((length, 4)).astype(np.float32),
        rng.random((length, 5, 2)).astype(np.float32), 25.0, length, 640, 480, "f" * 32, "0" * 64, "ok",
    )  # fmt: skip


SETTINGS_JSON = SETTINGS.to_json()


def packed(folder, lengths, settings=SETTINGS_JSON):
    videos = [video(f"S{i}/väldi[g] {i}", length, i) for i, length in enumerate(lengths)]
    for v in videos:
        write_part(folder / "parts" / f"{safe_name(v.id)}.h5", v, settings)
    entries = [VideoLocation(folder / "parts" / f"{safe_name(v.id)}.h5", 0) for v in videos]
    assert pack(folder / "cache.h5", entries, settings) == []
    return videos, folder / "cache.h5"


def test_what_goes_in_comes_out(tmp_path):
    videos, path = packed(tmp_path, [5, 0, 2000, 1])
    table = read_features(path)
    assert table.videos.id == [v.id for v in videos]
    for v in videos:
        rows = table.rows(v.id)
        for name in ("features", "frame_status", "score", "box", "landmarks"):
            np.testing.assert_array_equal(getattr(table, name)[rows], getattr(v, name))
    assert json.loads(table.settings)["encoder"] == "actors"


def test_plain_h5py_reads_it(tmp_path):
    """The layout that docs/cache-format.md promises to other tools."""
    videos, path = packed(tmp_path, [5, 7])
    with h5py.File(path, "r") as file:
        assert file["features"].shape == (12, 512)
        assert file["features"].dtype == np.float16
        start, length = file["videos/start"][1], file["videos/length"][1]
        np.testing.assert_array_equal(file["features"][start : start + length], videos[1].features)
        assert file["videos/id"].asstr()[1] == videos[1].id


def test_same_content_same_bytes(tmp_path):
    _, one = packed(tmp_path / "one", [5, 0, 9])
    time.sleep(1.1)  # a time stamp in the file would differ
    _, two = packed(tmp_path / "two", [5, 0, 9])
    assert sha256_of(one) == sha256_of(two)
    again = tmp_path / "again.h5"
    pack(again, [VideoLocation(one, row) for row in range(3)], SETTINGS.to_json())
    assert sha256_of(again) == sha256_of(one)


def test_flipped_bytes_are_found_and_left_out(tmp_path):
    videos, path = packed(tmp_path, [50, 60, 70])
    raw = bytearray(path.read_bytes())
    place = raw.find(videos[1].features.tobytes()[:64])
    raw[place + 5] ^= 0xFF
    path.write_bytes(raw)
    assert corrupted_videos(path) == [videos[1].id]
    with pytest.raises(CeflError, match="1 of 3 videos have changed on disk"):
        read_features(path)
    assert pack(tmp_path / "new.h5", [VideoLocation(path, row) for row in range(3)], "{}") == [videos[1].id]
    assert read_index(tmp_path / "new.h5").id == [videos[0].id, videos[2].id]


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_what_is_no_cache_is_said(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(CeflError, match=r"x\.h5"):
        read_features(path)


def test_a_cache_of_another_kind_is_said(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.zeros((3, 512))
    with pytest.raises(CeflError, match="not a feature cache"):
        read_features(tmp_path / "x.h5")


def test_an_index_that_does_not_fill_the_frames_is_said(tmp_path):
    _, path = packed(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        file["videos/length"][1] = 7000
    with pytest.raises(CeflError, match="do not fill the frames"):
        read_features(path)


@pytest.mark.parametrize("what", ["id", "fps", "fingerprint", "status", "settings"])
def test_what_a_cache_says_of_its_videos_cannot_change_unseen(tmp_path, what):
    _, path = packed(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        if what == "settings":
            file.attrs["settings"] = file.attrs["settings"].replace("1", "2") + " "
        else:
            file[f"videos/{what}"][1] = {"id": b"x", "fps": 13.0, "fingerprint": b"f", "status": b"no"}[what]
    with pytest.raises(CeflError, match="has changed since it was written"):
        read_features(path)


def test_fingerprint_follows_everything_that_decides_the_features():
    base = fingerprint(SETTINGS, "0" * 64)
    assert base == fingerprint(replace(SETTINGS), "0" * 64)
    changed = [replace(SETTINGS, **{k: v}) for k, v in {
        "faces": "given", "detector": "other", "detector_sha256": "c" * 64, "detector_side": 320, "minimum_score": 0.6,
        "align": "box", "size": 224, "encoder": "x", "encoder_sha256": "d" * 64, "normalisation": "unit",
        "precision": "fp32", "extraction": SETTINGS.extractor_version + 1,
    }.items()]  # fmt: skip
    others = {fingerprint(s, "0" * 64) for s in changed}
    others |= {
        fingerprint(SETTINGS, "1" * 64),
        fingerprint(SETTINGS, "0" * 64, "90"),
        fingerprint(SETTINGS, "0" * 64, "", "0 0 9 9"),
    }
    assert len(others) == len(changed) + 3
    assert base not in others


def test_a_difference_is_said_in_words():
    new = replace(SETTINGS, encoder="fer", encoder_sha256="b712" + "0" * 60)
    assert describe_diff(SETTINGS.to_json(), new) == "encoder actors, now fer; encoder_sha256 bbbbbbbb…, now b7120000…"


def test_a_failed_write_leaves_the_old_file(tmp_path):
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


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with atomic_write_dir(tmp_path / "run") as folder:
            (folder / content).write_text(content)
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["two"]
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".x.h5.{dead.pid}.partial").write_text("")
    (tmp_path / f".x.h5.timing.json.{dead.pid}.partial").write_text("")
    (tmp_path / f".x.h5.{dead.pid}.old.partial").mkdir()
    for others in (f".x.h5.{os.getpid()}.partial", f".y.h5.{dead.pid}.partial", "x.h5"):
        (tmp_path / others).write_text("")
    remove_stale_tmp(tmp_path / "x.h5")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(
        [f".x.h5.{os.getpid()}.partial", f".y.h5.{dead.pid}.partial", "x.h5"]
    )


def test_a_process_that_nobody_has_asked_for_its_end_does_not_run():
    """Between its end and the question its entry stays, and signals still reach it: what killed workers are for a while."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert pid_alive(process.pid)
        process.kill()
        limit = time.monotonic() + 30
        while pid_alive(process.pid) and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(process.pid, 0)  # the entry is there: nothing is raised
        assert not pid_alive(process.pid)


def test_writing_a_file_anew_removes_what_a_killed_writer_left(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".sweep.csv.{dead.pid}.partial").write_text("half")
    write_text(tmp_path / "sweep.csv", "whole")
    assert [f.name for f in tmp_path.iterdir()] == ["sweep.csv"]


LOCKER = """
import sys, time
from pathlib import Path
from ceflpipe.cache.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_with_the_holder_and_a_dead_one_stops_nobody(tmp_path):
    cache = tmp_path / "x.h5"
    holder = subprocess.Popen([sys.executable, "-c", LOCKER, str(cache)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CeflError, match=rf"pid {holder.pid} on "), writer_lock(cache):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with writer_lock(cache):
        assert (tmp_path / "x.h5.lock").exists()
    assert not (tmp_path / "x.h5.lock").exists()


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "link/x", "a\0b"])
def test_paths_cannot_leave_their_root(tmp_path, relative):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(CeflError):
        resolve_inside(root, relative)


def test_paths_inside_are_fine(tmp_path):
    assert resolve_inside(tmp_path, "a/../b.mp4") == tmp_path / "b.mp4"
    assert resolve_inside(tmp_path, "../b.mp4", allow_external=True) == tmp_path.parent / "b.mp4"


def test_safe_names_are_safe_readable_and_distinct():
    ids = ["S1/anger", "S1-anger", "../../etc", "a" * 500, "日本", "", "con", "a b"]
    names = [safe_name(i) for i in ids]
    assert len(set(names)) == len(ids)
    assert all(len(n) < 120 and "/" not in n and not n.startswith(".") for n in names)
    assert safe_name("S1/anger").startswith("S1-anger-")


def test_sha256_of_a_folder_follows_names_and_contents(tmp_path):
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


def test_a_folder_that_was_being_replaced_at_a_kill_is_the_old_one(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".run.{dead.pid}.old.partial", f".run.{dead.pid}.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("old" if "old" in name else "new")).write_text("")
    remove_stale_tmp(tmp_path / "run")
    assert [f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()] == ["run/old"]
