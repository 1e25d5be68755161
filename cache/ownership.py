"""Ownership of outputs: what ceflpipe did not write, or what was edited since, is never replaced unasked.

A folder with outputs has a file .ceflpipe.sha256, in the format of ``sha256sum -c``, of the files that ceflpipe wrote there;
a run has SHA256SUMS. The line of a file is on disk before the file itself, so that a kill leaves no output without one. Feature
caches, encoder files and the JSON beside a cache are recognized by their content, folders of intermediate files by a marker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import TMP_SUFFIX, atomic_write, atomic_write_dir, remove_stale_tmp, sha256_of
from .errors import CeflError, shorten_list

SUMS_FILE = ".ceflpipe.sha256"
WORK_MARKER = ".ceflpipe"
MIN_FREE_BYTES = 1 << 16
"""Room that is asked for where nothing larger is known to be needed."""
SYSTEM_FILES = frozenset({".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that DVC and operating systems put into any folder; they are kept, and do not make it somebody's."""
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"))


@dataclass(frozen=True)
class FolderKind:
    """A folder that is written as a whole: what it is called, the file with its checksums, and a file that all of them list."""

    noun: str
    sums_file: str
    member: str


RUN_FOLDER = FolderKind("run", "SHA256SUMS", "run.json")
REPORT_FOLDER = FolderKind("report", SUMS_FILE, "report.html")


# ---- proof


def is_recorded(path: Path) -> bool:
    """Return whether ceflpipe wrote this file, and its bytes are still the same."""
    return sha256_of(path) in read_sums(path.parent / SUMS_FILE).get(path.name, ())


def read_sums(path: Path) -> dict[str, set[str]]:
    """Return the hashes that a file of checksums lists for each name; none if it does not exist."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    sums: dict[str, set[str]] = {}
    for line in text.split("\n"):
        digest, _, name = line.partition("  ")
        if digest.startswith("\\"):
            digest, name = digest[1:], _unescape(name)
        if len(digest) == 64:  # a line that was cut short by a kill is not
            sums.setdefault(name, set()).add(digest)
    return sums


def holds_json(path: Path, is_valid: Callable[[Any], bool]) -> bool:
    """Return whether a file is JSON that ``is_valid`` recognizes as ours by its content."""
    try:
        return is_valid(json.loads(path.read_bytes()))
    except (ValueError, TypeError, AttributeError, LookupError):
        return False


def format_sum(digest: str, name: str) -> str:
    """Return a line of a file of checksums, escaped as sha256sum does."""
    escaped = name
    for character, escape in _ESCAPES:
        escaped = escaped.replace(character, escape)
    return f"{chr(92) * (escaped != name)}{digest}  {escaped}\n"


def _unescape(name: str) -> str:
    parts = name.split("\\\\")
    for character, escape in _ESCAPES[1:]:
        parts = [part.replace(escape, character) for part in parts]
    return "\\".join(parts)


def foreign_files(folder: Path, kind: FolderKind) -> list[str]:
    """Return the files in a folder that ceflpipe did not write as part of ``kind``, or that were edited since."""
    sums = read_sums(folder / kind.sums_file)
    if kind.member not in sums:
        sums = {}
    foreign = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            file = Path(parent) / name
            relative = file.relative_to(folder).as_posix()
            if relative == kind.sums_file and sums:
                continue
            listed = relative in sums and file.is_file() and not file.is_symlink()
            if not listed or sha256_of(file) not in sums[relative]:
                foreign.append(relative)
    return sorted(foreign)


# ---- checks before work begins


def check_files(
    paths: Sequence[Path],
    option: str,
    *,
    inputs: Iterable[Path] = (),
    is_ours: Callable[[Path], bool] = is_recorded,
    force: bool | None = False,
    required_bytes: int = 0,
) -> str:
    """Check that files may and can be written; return what ``force`` replaces, in words, '' for nothing.

    ``option``: names the paths; '' if they have one place. Raises CeflError if one of them is one of the ``inputs`` (by any
    name or link), is a folder or a device, exists and is not ours (unless ``force``; None: the command has no such option), or
    cannot be written: rights, the length of its name, ``required_bytes`` of free room in all.
    """
    stats = _stats(inputs)
    foreign = []
    for path in paths:
        _check_name(path, option)
        _check_not_an_input(path, option, stats)
        if os.path.isdir(path):
            raise CeflError(f"{path}: is a folder; {_cure(option, 'the name of a file in it')}")
        if os.path.isfile(path):
            if path.stat().st_size and not is_ours(path):
                foreign.append(path)
        elif os.path.lexists(path):
            raise CeflError(f"{path}: not a regular file; {_cure(option, 'another path')}")
    for folder in dict.fromkeys(path.parent for path in paths):
        _check_writable(folder, option, required_bytes)
        _check_sums(folder / SUMS_FILE)
    if not foreign:
        return ""
    names = shorten_list([str(path) for path in foreign])
    if force:
        return f"replacing {names}, not written by ceflpipe or edited since"
    verb = "exists" if len(foreign) == 1 else "exist"
    hint = "" if force is None else ", or replace it with --force"
    raise CeflError(
        f"{names}: {verb}, and ceflpipe did not write it or it was edited since; {_cure(option, 'another path')}{hint}"
    )


def check_folder(
    path: Path,
    option: str,
    kind: FolderKind,
    *,
    inputs: Iterable[Path] = (),
    force: bool = False,
    required_bytes: int = 0,
) -> str:
    """Check that a folder may and can be written as a whole; return what is in it, in words, if ``force`` writes beside that.

    Raises CeflError if it is one of the ``inputs``, is a file, a mount point or the working folder, holds files that are not
    ours (unless ``force``, which keeps them), or cannot be written.
    """
    real = Path(os.path.realpath(path))
    _check_name(real, option)
    _check_not_an_input(path, option, _stats(inputs))
    if os.path.lexists(real) and not real.is_dir():
        raise CeflError(f"{path}: is a file; give {option} the name of a folder")
    if real.is_dir():
        if Path.cwd().is_relative_to(real):
            raise CeflError(
                f"{path}: is or holds the working folder, which cannot be replaced; give {option} a folder in it"
            )
        if os.path.ismount(real):
            raise CeflError(f"{path}: is a mount point, which cannot be replaced; give {option} a folder in it")
        _check_writable(real, option, required_bytes)
    _check_writable(real.parent, option, required_bytes)
    foreign = (
        [name for name in foreign_files(real, kind) if Path(name).name not in SYSTEM_FILES] if real.is_dir() else []
    )
    if not foreign:
        return ""
    names = shorten_list(foreign)
    if force:
        return f"{path}: keeping {names}, and replacing what has the name of a file of the {kind.noun}"
    raise CeflError(
        f"{path}: holds {names}, which ceflpipe did not write or which was edited since; give {option} another folder, "
        f"or write the {kind.noun} into this one with --force"
    )


def _stats(inputs: Iterable[Path]) -> list[tuple[Path, os.stat_result]]:
    stats = []
    for path in inputs:
        with suppress(OSError):  # what does not exist cannot be replaced
            stats.append((path, path.stat()))
    return stats


def _check_not_an_input(path: Path, option: str, inputs: Sequence[tuple[Path, os.stat_result]]) -> None:
    if not os.path.exists(path):  # Path.exists raises for names that are too long
        return
    stat = path.stat()
    for source, source_stat in inputs:
        if os.path.samestat(stat, source_stat):
            name = "" if source == path else f" {source}"
            raise CeflError(
                f"{path}: is the input{name} of this command, and would be replaced; {_cure(option, 'another path')}"
            )


def _check_writable(folder: Path, option: str, required_bytes: int) -> None:
    """Raise CeflError if no file can be written in a folder that exists, or that would have to be created first."""
    folder = Path(os.path.abspath(folder))
    for each in (folder, *folder.parents):
        _check_name(each, option)
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise CeflError(f"{folder}: is not a folder, so nothing can be written in it; {_cure(option, 'another path')}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CeflError(f"{folder}: cannot be written ({error.strerror}); {_cure(option, 'another path')}") from None
    check_disk_space(folder, option, required_bytes)


def check_disk_space(folder: Path, option: str, required_bytes: int) -> None:
    """Raise CeflError if the disk of a folder, which need not exist yet, has less than ``required_bytes`` free.

    ``option`` names the folder; '' if none does, and it is in the working folder.
    """
    try:
        free = free_bytes(folder)
    except OSError as error:
        raise CeflError(f"{folder}: cannot be written ({error.strerror}); {_cure(option, 'another path')}") from None
    required = max(required_bytes, MIN_FREE_BYTES)
    hint = f"give {option} a folder on another disk" if option else "run this in a folder on another disk"
    if free < required:
        raise CeflError(
            f"{folder}: {free / 1e6:,.1f} MB are free, and about {required / 1e6:,.1f} MB are needed (the disk is full); "
            f"make room, or {hint}"
        )


def free_bytes(folder: Path) -> int:
    """Return the free room in bytes on the disk of a folder, or on that where it would be created."""
    folder = Path(os.path.abspath(folder))
    while not os.path.exists(folder):
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_sums(path: Path) -> None:
    """Raise CeflError if a file of checksums, which lines would be added to, is none."""
    if not os.path.lexists(path):
        return
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b"?"]
    # a kill may have cut a line short
    if not all(re.fullmatch(rb"\\?[0-9a-f]{0,63}|\\?[0-9a-f]{64}( ( .*)?)?", line) for line in lines):
        raise CeflError(f"{path}: has the name of ceflpipe's checksums, but is something else; move it away")


def _cure(option: str, value: str) -> str:
    """Return what to do about a path that cannot be written; without an option it has one place."""
    return f"give {option} {value}" if option else "move it away, or run this in another folder"


def _check_name(path: Path, option: str) -> None:
    if "\0" in str(path):
        raise CeflError(f"{str(path)!r}: a path cannot contain a zero byte; {_cure(option, 'another one')}")
    if len(os.fsencode(path.name)) > 255:
        raise CeflError(f"{path}: the name is longer than 255 bytes; {_cure(option, 'a shorter one')}")


# ---- writing


@contextmanager
def write_owned(path: Path, required_bytes: int = 0) -> Iterator[Path]:
    """``atomic_write`` of a file that ceflpipe may replace later: its hash is recorded just before it appears.

    What an earlier, killed process left of it is removed.
    """
    remove_stale_tmp(path)
    with atomic_write(
        path, required_bytes, before_replace=lambda temporary: record(path, sha256_of(temporary))
    ) as temporary:
        yield temporary


def write_owned_text(path: Path, text: str) -> None:
    """Write UTF-8, as atomic.write_text does."""
    with write_owned(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_owned_json(path: Path, value: Any) -> None:
    write_owned_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def record(path: Path, digest: str) -> None:
    """Append the hash of a file to the checksums of its folder, unless it is there already; it is safe on disk afterwards."""
    sums, line = path.parent / SUMS_FILE, os.fsencode(format_sum(digest, path.name))
    content = sums.read_bytes() if sums.is_file() else b""
    if content.startswith(line) or b"\n" + line in content:
        return
    with sums.open("ab") as file:
        # in one step, so that two processes may write at the same time
        file.write((b"\n" if content and not content.endswith(b"\n") else b"") + line)
        file.flush()
        os.fsync(file.fileno())


def claim_work_folder(folder: Path) -> None:
    """Create a folder for intermediate files, or take the one that an earlier call created, as a marker in it says.

    Raises CeflError if there is something else of this name.
    """
    marker = folder / WORK_MARKER
    if os.path.lexists(folder) and not folder.is_dir():
        raise CeflError(f"{folder}: is a file, and has the name of a folder of intermediate files; move it away")
    if folder.is_dir() and not marker.is_file() and (names := sorted(os.listdir(folder))):
        raise CeflError(
            f"{folder}: has the name of a folder of intermediate files, but holds {shorten_list(names)}, which ceflpipe did not "
            "write; move it away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def remove_work_folder(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove a folder of ``claim_work_folder``, and in it temporary files and those of ``is_ours``; others stay, and it too."""
    if not (folder / WORK_MARKER).is_file():
        return
    for name in os.listdir(folder):
        if is_ours(name) or name.endswith(TMP_SUFFIX):
            (folder / name).unlink()
    if os.listdir(folder) == [WORK_MARKER]:
        (folder / WORK_MARKER).unlink()
        folder.rmdir()


@contextmanager
def write_owned_folder(path: Path, option: str, kind: FolderKind, *, force: bool = False) -> Iterator[Path]:
    """Yield a new empty folder that replaces ``path`` on success; the checksums of its files are added.

    Files that are not ours are checked as by ``check_folder``, and kept. Raises CeflError.
    """
    check_folder(path, option, kind, force=force)
    with atomic_write_dir(path, keep=lambda folder: foreign_files(folder, kind)) as folder:
        yield folder
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        lines = [format_sum(sha256_of(file), file.relative_to(folder).as_posix()) for file in files]
        with suppress(FileNotFoundError):
            (folder / kind.sums_file).unlink()
        (folder / kind.sums_file).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
