"""The lock of a cache file: one writer at a time."""

import signal
import subprocess
import sys

import pytest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.lock import writer_lock

LOCK_HOLDER = """
import sys, time
from pathlib import Path
from ceflpipe.cache.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


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
