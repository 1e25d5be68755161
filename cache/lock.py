"""Single-writer lock of a feature cache (flock)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import CeflError


@contextmanager
def writer_lock(path: Path) -> Iterator[None]:
    """Hold ``<path>.lock`` while the block runs; raises CeflError with the holder's pid and host if it is locked.

    The lock is an flock, so it is released when the process ends, also by a kill. The file is removed when the block ends;
    a process that has just opened the removed file notices and tries again.
    """
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(lock)
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise CeflError(f"{path}: another process is writing it ({holder}); wait for it or stop it") from None
            raise CeflError(
                f"{lock}: this file system cannot lock files ({error.strerror}); put the feature cache on one that can"
            ) from None
        if _same_file(descriptor, lock):
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    try:
        holder = json.loads(lock.read_text())
        return f"pid {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "holder unknown"
