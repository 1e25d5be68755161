"""Atomic writes of files and folders: after a kill the path has its old content or the new one, never a mixture."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from .errors import CeflError
from .processes import pid_alive

IS_WINDOWS = os.name == "nt"
TMP_SUFFIX = ".partial"
MAX_NAME_BYTES = 200
"""Longest name that a temporary name is built from as it is; file systems have names of up to 255 bytes."""


@contextmanager
def atomic_write(
    path: Path, required_bytes: int = 0, *, before_replace: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed to disk and replaces ``path``.

    On an exception the temporary file is removed and ``path`` is unchanged. Raises OSError before anything is written if
    the disk has less than ``required_bytes`` free. ``before_replace`` is called with the finished temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        if required_bytes:
            _reserve(temporary, required_bytes)
        yield temporary
        _fsync(temporary)
        if before_replace:
            before_replace(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Raise OSError if a file of so many bytes cannot be created; it is removed again."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:  # not on macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    path.unlink()


@contextmanager
def atomic_write_dir(path: Path, keep: Callable[[Path], list[str]] | None = None) -> Iterator[Path]:
    """Yield a new empty folder; on success it replaces ``path``, and the old folder is removed.

    ``keep`` returns the files of the old folder that the new one gets too, unless it has files of these names.
    """
    path = Path(os.path.realpath(path))
    remove_stale_tmp(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        old = _temporary(path, ".old")
        if path.exists():
            for name in keep(path) if keep else ():
                _link(path / name, temporary / name)
            os.replace(path, old)
        os.replace(temporary, path)
        _fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path, suffix: str = "") -> Path:
    """Return the name of the temporary file or folder of a path; that of a long name is shortened."""
    return path.with_name(f".{_short(path.name)}.{os.getpid()}{suffix}{TMP_SUFFIX}")


def _short(name: str) -> str:
    return name if len(os.fsencode(name)) <= MAX_NAME_BYTES else safe_name(name)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links; an existing ``target`` stays."""
    if os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def remove_stale_tmp(path: Path) -> None:
    """Remove temporary files and folders of ``path``, and of names that begin with it (path.json, …), after a kill.

    Those of running processes stay. A folder that was being replaced at the kill is restored.
    """
    if not path.parent.is_dir():
        return
    pattern = re.compile(re.escape(f".{_short(path.name)}.") + r"(?:.+\.)?(\d+)(\.old)?" + re.escape(TMP_SUFFIX))
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not pid_alive(int(match.group(1))):
            if (
                match.group(2)
                and entry.name.startswith(f".{_short(path.name)}.{match.group(1)}.")
                and not path.exists()
            ):
                os.replace(entry, path)  # killed between the two replacements of atomic_write_dir
            elif entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; bytes of a file name that are not UTF-8 become escapes, which JSON readers turn into that name again."""
    remove_stale_tmp(path)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file; raises CeflError with the path and the ``expected`` content, e.g. "the metrics of a run"."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CeflError(f"{path}: no such file; expected {expected}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CeflError(f"{path}: not {expected}: {error}") from None


def sha256_of(path: Path, extensions: tuple[str, ...] = ("",)) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of the files in a folder, as 64 hex digits.

    Of a folder only files with one of the ``extensions`` (lower case) count: others may be large.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(f for f in path.iterdir() if f.name.lower().endswith(extensions) and f.is_file()):
            digest.update(os.fsencode(file.name) + b"\0" + bytes.fromhex(sha256_of(file)))
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_name(identifier: str) -> str:
    """Return a file name for any id: its ASCII letters and digits, then a hash that makes it unique."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", identifier).strip("-")[:80]
    return f"{readable}-{hashlib.sha256(identifier.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def fold_stem(fold: str) -> str:
    """Return the name without extension of a fold's files: fold-NAME, with another NAME where that is none for a file.

    >>> fold_stem("3"), fold_stem("a/b")
    ('fold-3', 'fold-a-b-c14cddc033f6')
    """
    return f"fold-{fold if re.fullmatch(r'[A-Za-z0-9_-]{1,80}', fold) else safe_name(fold)}"


def resolve_inside(root: Path, relative: str, *, allow_external: bool = False) -> Path:
    """Return ``root / relative``; raises CeflError if that leads out of ``root`` ('..', an absolute path, or a link)."""
    path = Path(os.path.normpath(root / relative))
    if allow_external:
        return path
    if "\0" in relative:
        raise CeflError(f"{relative!r}: a path cannot contain a zero byte; remove it")
    if not path.resolve().is_relative_to(root.resolve()):
        raise CeflError(
            f"{relative}: leads out of {root}; move the file there, or, if you trust the list or the link, pass "
            "--allow-external-paths or set allow_external_paths: true in the configuration of the data set"
        )
    return path


def _fsync(path: Path) -> None:
    if IS_WINDOWS and path.is_dir():  # it flushes a folder with its files, and does not open one
        return
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)  # it flushes only what is open for writing
    try:
        # some network file systems cannot flush a folder; its files are flushed by then
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
