"""Free memory of a device, of a processor also within a container or a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of containers and jobs: version 2 in this folder, version 1 in its folder memory."""


def available_bytes(device: torch.device) -> int:
    """Return the free memory of the device in bytes; of a processor what the machine and the container or job have left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [psutil.virtual_memory().available]
    for limit, used in _cgroup_files():
        with suppress(OSError, ValueError):  # no such limit, or "max"
            free.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(free))


def _cgroup_files() -> Iterator[tuple[Path, Path]]:
    """Yield the files with a limit and with what is used of it, of the groups that this process is in."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory"):
                root = CGROUP / controllers
                names = ("max", "current") if not controllers else ("limit_in_bytes", "usage_in_bytes")
                group = root / name.lstrip("/")
                for folder in (root, *(f for f in (group, *group.parents) if f.is_relative_to(root) and f != root)):
                    yield folder / f"memory.{names[0]}", folder / f"memory.{names[1]}"
