"""Processes of this machine, on every system."""

from __future__ import annotations

from pathlib import Path

import psutil


def pid_alive(pid: int) -> bool:
    """Return whether a process with this id runs on this machine, whichever user owns it.

    Zombies count as dead: in containers whose first process reaps no children they stay for good.
    """
    try:
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def process_start(pid: int) -> str:
    """Return what tells a process from an earlier one of the same id: when it was started; '' if there is none."""
    try:  # ticks since the host was started, which do not change when its clock is set
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def boot_id() -> str:
    """Return what is different for every start of every host, since host names need not be unique; '' on other systems than
    Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
