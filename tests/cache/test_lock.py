"""The lock of a cache file: one writer at a time."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from ceflpipe.cache import lock
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.lock import STALE_SECONDS, writer_lock

LOCK_HOLDER = """
import sys, time
from pathlib import Path
from ceflpipe.cache.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def unlink_as_on_windows(path, missing_ok=False):
    """Remove a file unless any process has it open."""
    if any(is_same(opened, path) for opened in Path("/proc").glob("[0-9]*/fd/*")):
        raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", path)
    with suppress(FileNotFoundError) if missing_ok else nullcontext():
        os.unlink(path)


def is_same(opened, path):
    with suppress(OSError):  # closed by now, or of another user
        return opened.samefile(path)


@pytest.fixture(params=["flock", "no flock", "windows"])
def file_system(request, monkeypatch):
    """A file system with locks of the kernel, one without, as some network file systems are, and Windows."""

    def not_supported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    if request.param == "no flock":
        monkeypatch.setattr(lock.fcntl, "flock", not_supported)
    if request.param == "windows":
        monkeypatch.setattr(lock, "fcntl", None)
        monkeypatch.setattr(Path, "unlink", unlink_as_on_windows)
    return request.param


@pytest.mark.parametrize("size", [0, 20, 100])
def test_a_disk_that_is_full_leaves_no_lock_behind(tmp_path, size):
    """The limit is below the size of a lock file, so that nothing or a part of it is written."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    done = subprocess.run(
        [sys.executable, "-c", limited + LOCK_HOLDER, tmp_path / "x.h5"], capture_output=True, text=True
    )
    assert (done.returncode, "File too large" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", '{"pid": 12'])
def test_a_lock_whose_creator_was_killed_before_it_had_named_itself_ends_soon(tmp_path, content):
    (tmp_path / "x.h5.lock").write_text(content)
    with writer_lock(tmp_path / "x.h5"):
        assert (tmp_path / "x.h5.lock").stat().st_size > 50


@pytest.mark.usefixtures("file_system")
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


def write_lock(path, seconds_ago=0.0, **holder):
    """Leave the lock file of another holder, with its last heartbeat so long ago."""
    file = path.with_name(path.name + ".lock")
    file.write_text(json.dumps(holder) if holder else "")
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds_ago))


@pytest.mark.parametrize(
    "holder", [{"pid": os.getpid(), "host": "other", "boot": "b", "start": "1"}, {}], ids=["host", ""]
)
def test_a_holder_on_another_host_counts_until_its_heartbeat_is_old(holder, tmp_path, file_system):
    """Its process id says nothing here, though a process of this number may run.

    A file without a name may not be written yet, unless the kernel knows that nobody holds it.
    """
    if not holder and file_system == "flock":
        return
    write_lock(tmp_path / "x", STALE_SECONDS - 20, **holder)
    expected = rf"pid {os.getpid()} on other; if it was killed" if holder else "holder unknown; if it was killed"
    with pytest.raises(CeflError, match=expected), writer_lock(tmp_path / "x"):
        pass
    write_lock(tmp_path / "x", STALE_SECONDS + 20, **holder)
    with writer_lock(tmp_path / "x"):
        pass


def test_a_process_id_that_belongs_to_another_process_by_now_does_not_block(tmp_path):
    write_lock(tmp_path / "x", pid=os.getpid(), host=socket.gethostname(), boot=lock.boot_id(), start="1")
    with writer_lock(tmp_path / "x"):
        pass


def test_a_writer_that_was_suspended_for_too_long_notices_that_another_took_over(tmp_path):
    with writer_lock(tmp_path / "x") as held:
        held.check()
        write_lock(tmp_path / "x", pid=7, host="other", boot="b", start="1", token="t")
        with pytest.raises(CeflError, match="pid 7 on other"):
            held.check()
    assert (tmp_path / "x.lock").exists(), "the other's"


def test_a_heartbeat_is_written_while_the_lock_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    touched = threading.Event()
    monkeypatch.setattr(lock.os, "utime", lambda file: touched.set())
    with writer_lock(tmp_path / "x"):
        assert touched.wait(30)


COMPETITOR = """
import sys
from pathlib import Path
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.lock import writer_lock
done = 0
while done < 40:
    try:
        with writer_lock(Path(sys.argv[1])) as lock:
            Path(sys.argv[1]).mkdir()  # fails if it is there: somebody else is inside
            lock.check()
            Path(sys.argv[1]).rmdir()
            done += 1
    except CeflError:
        pass
"""


def test_of_many_writers_one_is_inside_at_a_time(tmp_path):
    write_lock(tmp_path / "x", pid=2**22 - 1, host=socket.gethostname(), boot=lock.boot_id(), start="1")  # dead
    processes = [subprocess.Popen([sys.executable, "-c", COMPETITOR, str(tmp_path / "x")]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_created_for_the_lock_stays_only_if_it_is_used(tmp_path):
    with writer_lock(tmp_path / "a/b/x.h5"):
        assert (tmp_path / "a/b/x.h5.lock").is_file()
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()
    with writer_lock(tmp_path / "empty/x.h5"), writer_lock(tmp_path / "a/b/x.h5"):
        (tmp_path / "a/notes.txt").touch()
    assert (tmp_path / "empty").is_dir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]
