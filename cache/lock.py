"""Single-writer lock of a feature cache or a run folder, which also holds between the hosts of a shared disk.

The lock is a file that is created exclusively, names its holder (host, boot, process) and is touched while it is held. Where
the file system can (flock), the kernel knows best whether the holder lives. Where it cannot, or knows only of its own host,
a holder on this host is dead when its process is, and one on another host when it has not touched the file for two minutes.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CeflError
from .processes import boot_id, pid_alive, process_start

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

HEARTBEAT_SECONDS = 15.0
GRACE_SECONDS = 2.0
"""How long a holder on this host is waited for: workers of a killed command exit shortly after it."""
STALE_SECONDS = 120.0
"""Age of the last heartbeat after which a holder on another host counts as dead; network file systems may show it a minute
late."""

UNNAMED_SECONDS = 1.0
"""Age after which an empty lock file counts as left behind where the kernel has locks: its creator names itself at once."""

_FIRST_BYTES = b'{"pid": '


@dataclass(frozen=True)
class WriterLock:
    """A lock that this process holds."""

    path: Path
    file: Path
    token: str

    def check(self) -> None:
        """Raise CeflError if another writer has taken over: call it before what was computed replaces anything."""
        if _read(self.file).get("token") != self.token:
            raise CeflError(
                f"{self.path}: another process took over while this one was suspended ({_describe(_read(self.file))}); "
                "nothing was replaced; run the same command again when it is done"
            )


@contextmanager
def writer_lock(path: Path) -> Iterator[WriterLock]:
    """Hold ``<path>.lock`` while the block runs; raises CeflError with the holder's pid and host if it is locked.

    The file is removed when the block ends, and so are folders that were created for it if nothing was written into them. After
    a kill the next writer on this host removes it at once, one on another host two minutes later.
    """
    file = path.with_name(path.name + ".lock")
    created = [folder for folder in file.absolute().parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    deadline = time.monotonic() + GRACE_SECONDS
    while (descriptor := _create(file, token)) is None:
        holder = _live_holder(file)
        if holder is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        elif holder is not None:
            raise CeflError(f"{path}: another process is writing it ({holder}); wait for it or stop it")
    stop = threading.Event()
    threading.Thread(target=_touch_until, args=(file, token, stop), daemon=True).start()
    try:
        yield WriterLock(path, file, token)
    finally:
        stop.set()
        os.close(descriptor)
        if _read(file).get("token") == token:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in created:
                folder.rmdir()


def _create(file: Path, token: str) -> int | None:
    """Create the lock file with this process in it and return its descriptor; None if there is one already."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o644)
    except FileExistsError:
        return None
    _flock(descriptor, wait=True)  # somebody may be looking at the file at this moment
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "boot": boot_id(), "start": process_start(os.getpid())}
    rest = memoryview(json.dumps({**holder, "token": token}).encode())
    try:
        while rest:  # a disk that is almost full takes a part
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)  # for other hosts
    except OSError:
        file.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return descriptor


def _live_holder(file: Path) -> str | None:
    """Return who holds a lock file, in words; None if it is gone, or was left by a process that has died, and is removed."""
    _check_is_lock(file)
    try:
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    with _closing_once(descriptor) as close:
        holder = _read(file)
        same_host = (holder.get("host"), holder.get("boot")) == (socket.gethostname(), boot_id())
        runs = same_host and _runs(holder)
        # the lock of a dead process may be held for a moment by another one that removes it
        tries = 1 if runs else 20
        while tries and (flocked := _flock(descriptor)) is False:
            tries -= 1
            time.sleep(0.05 if tries else 0)
        if runs or flocked is False:
            return _describe(_read(file))
        # who does not write its name at once, and does not have the kernel's lock, was killed in between
        limit = STALE_SECONDS if holder or not flocked else UNNAMED_SECONDS
        if not same_host and (age := _age(file)) < limit:
            wait = f"if it was killed, this lock ends in {limit - age:.0f} seconds"
            return f"{_describe(holder)}; {wait}"
        if (
            fcntl is None
        ):  # on Windows no file is removed that anyone has open: neither this process, nor one that lives
            close()
            try:
                file.unlink(missing_ok=True)
            except PermissionError:
                return _describe(_read(file))
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                file.unlink()
        return None


@contextmanager
def _closing_once(descriptor: int) -> Iterator[Callable[[], None]]:
    """Close a descriptor at the end of the block, or when the function that is yielded is called."""
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        yield stack.close


def _check_is_lock(file: Path) -> None:
    """Raise CeflError if a file has the name of a lock, but something else in it; a lock may be empty for a moment."""
    try:
        is_lock = not file.is_symlink() and stat.S_ISREG(file.stat().st_mode)
        with file.open("rb") if is_lock else nullcontext() as stream:
            start = stream.read(len(_FIRST_BYTES)).rstrip(b"\0") if stream else b""
    except FileNotFoundError:
        return
    if not is_lock or not _FIRST_BYTES.startswith(start):
        raise CeflError(f"{file}: has the name of ceflpipe's lock, but is something else; move it away")


def _touch_until(file: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):  # of a disk that is away for a while
            if _read(file).get("token") == token:
                os.utime(file)


def _flock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Return whether this descriptor has the kernel's lock now; None if this file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else None
    return True


def _read(file: Path) -> dict[str, Any]:
    """Return what a lock file says; nothing if it is gone, or not written yet."""
    try:
        holder = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    return f"pid {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "holder unknown"


def _runs(holder: dict[str, Any]) -> bool:
    """Return whether the holder, a process of this host, still runs; its id may belong to another process by now."""
    pid = holder.get("pid")
    return isinstance(pid, int) and pid_alive(pid) and holder.get("start") == process_start(pid)


def _age(file: Path) -> float:
    """Return the seconds since the last heartbeat by the clock of the disk, which is not that of this host."""
    probe = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return STALE_SECONDS
    except OSError:  # no rights to create a file here
        return time.time() - file.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
