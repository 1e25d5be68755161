"""Tune glibc malloc so that freed tensors are reused between training steps. The only module that imports ctypes.

A step allocates and frees tensors of 10 MB hundreds of times. By default glibc returns such memory to the system and gets
it back page by page, each filled with zeros: about a tenth of a step's time, and more or less of it from run to run.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# options of glibc's mallopt(3); a block of at least MMAP_THRESHOLD bytes always goes back to the system when it is freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 32 << 20  # the highest value that glibc accepts
TRAIN_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD = 1 << 30, 64 << 20
"""Free bytes at the end of the heap above which they go back to the system: while training, and glibc's own choice."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let this process keep up to 1 GiB of freed memory for its next tensors, and return it to the system at the end.

    Does nothing if the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    library.mallopt(M_TRIM_THRESHOLD, TRAIN_TRIM_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)
