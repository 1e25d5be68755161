"""Atomic writes, temporary files of killed processes, file names, paths and hashes."""

import errno
import hashlib
import os
import subprocess
import sys
import time

import pytest

from ceflpipe.cache.atomic import (
    atomic_write,
    atomic_write_dir,
    read_json,
    remove_stale_tmp,
    resolve_inside,
    safe_name,
    sha256_of,
    write_json,
    write_text,
)
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.processes import pid_alive


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


@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(tmp_path, monkeypatch, system):
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")
    with atomic_write(tmp_path / "x", required_bytes=1 << 16) as temporary:
        assert not temporary.exists()
        temporary.write_text("new")
    with pytest.raises(OSError, match=r"space|large") as full, atomic_write(tmp_path / "x", required_bytes=1 << 60):
        pytest.fail("the block was entered")
    assert full.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"x": "new"}


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


def test_names_that_are_not_utf8_are_hashed_and_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / name).write_bytes(b"abc")
    expected = hashlib.sha256(b"caf\xe9.jpg\0" + hashlib.sha256(b"abc").digest()).hexdigest()
    assert sha256_of(tmp_path / "f") == expected
    write_json(tmp_path / "x.json", {"path": name})
    assert read_json(tmp_path / "x.json", "a path")["path"] == name
    assert (tmp_path / "x.json").read_bytes().isascii()
