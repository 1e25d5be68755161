"""Tune glibc malloc so that freed tensors are reused between training steps. The only module that uses ctypes.

A step frees and takes tensors of 10 MB hundreds of times. glibc gives such memory back to the system when it is freed and
gets it again page by page, each filled with zeros: a tenth of a step's time, and more or less of it from run to run.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# numbers of glibc's mallopt(3); from MMAPPED bytes on, a piece of memory is one that is always given back when freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 32 << 20  # the most that glibc takes
TRAIN_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD = 1 << 30, 64 << 20
"""Free bytes at the end of the heap above which they are given back: while training, and what glibc comes to by itself."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let this process keep up to 1 GiB of freed memory for its next tensors, and give it back at the end.

    Does nothing where the C library is not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    library.mallopt(M_TRIM_THRESHOLD, TRAIN_TRIM_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
