"""Commands of ceflpipe in processes that are forked from one that has imported everything.

A short command spends most of its time with imports; so a round is faster, and a kill hits its work instead of these.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

MODULE = "ceflpipe.pipeline"
IMPORTED = (
    "torch", "torch._dynamo", "torchvision.models", "sklearn.manifold", "sklearn.metrics", "matplotlib.backends.backend_agg",
    "av", "cv2", "h5py", "joblib", "pandas", "ceflpipe.pipeline.cli", "ceflpipe.pipeline.training",
    "ceflpipe.stages.encoder.train_photographs", "ceflpipe.stages.heads.cross_validation", "ceflpipe.stages.report.html",
)  # fmt: skip
"""Nothing that starts threads: ONNX Runtime does."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""So that no library starts a thread: pandas imports pyarrow, whose allocator would."""
TASKS = Path("/proc/self/task")


class ForkServer:
    """Starts ``python -m ceflpipe.pipeline ARGUMENTS`` by a fork. One command runs at a time."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip

    def start(self, arguments: list[str], cwd: Path, max_file_size: int = 0) -> ForkedProcess:
        """Start a command in ``cwd``, as the leader of a session; its files may have ``max_file_size`` bytes (0: no limit)."""
        if self._server.stdin is None or self._server.stdout is None:
            raise TypeError("the server has pipes")
        out, err = _Reader(), _Reader()  # pipes, because a limit on files would hold for the output too
        request = {
            "arguments": arguments, "cwd": str(cwd), "max_file_size": max_file_size, "pipes": [str(out.path), str(err.path)]
        }  # fmt: skip
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        pipe = self._server.stdout.fileno()
        return ForkedProcess(arguments, _read_number(pipe), pipe, out, err)

    def run(self, arguments: list[str], cwd: Path, timeout: float, max_file_size: int = 0) -> ForkedProcess:
        """Do the same and wait until it has ended."""
        running = self.start(arguments, cwd, max_file_size)
        running.wait(timeout)
        return running

    def close(self) -> None:
        self._server.communicate()


class _Reader:
    """Reads a named pipe to its end."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self.path = Path(self._folder.name) / "pipe"
        os.mkfifo(self.path)
        self._content = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return all that was written, when the last writer has ended."""
        self._thread.join(timeout=60)
        return self._content

    def _read(self) -> None:
        self._content = self.path.read_text(errors="replace")
        self._folder.cleanup()


class ForkedProcess:
    """A command that was started; as a subprocess.Popen and, when it has ended, a subprocess.CompletedProcess."""

    def __init__(self, arguments: list[str], pid: int, pipe: int, out: _Reader, err: _Reader) -> None:
        self.pid, self.returncode = pid, None
        self._arguments, self._pipe, self._out, self._err = arguments, pipe, out, err

    def poll(self, timeout: float = 0.0) -> int | None:
        if self.returncode is None and select.select([self._pipe], [], [], timeout)[0]:
            self.returncode = _read_number(self._pipe)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if (code := self.poll(timeout)) is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.returncode = _read_number(self._pipe)
            raise subprocess.TimeoutExpired(self._arguments, timeout)
        return code

    @property
    def stdout(self) -> str:
        return self._out.text()

    @property
    def stderr(self) -> str:
        return self._err.text()


def _read_number(pipe: int) -> int:
    digits = b""
    while (character := os.read(pipe, 1)) != b"\n":
        if not character:
            raise RuntimeError("the fork server has died")
        digits += character
    return int(digits)


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    if threading.active_count() > 1 or (TASKS.is_dir() and len(list(TASKS.iterdir())) > 1):
        raise RuntimeError("an import has started a thread, which a forked process would lack")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(request)
        os.write(1, b"%d\n" % pid)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run(request: dict) -> None:
    """Become the command: it ends with this process, and as one that was started in the usual way."""
    os.setsid()
    os.chdir(request["cwd"])
    streams = [os.open(os.devnull, os.O_RDONLY), *(os.open(pipe, os.O_WRONLY) for pipe in request["pipes"])]
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    if size := request["max_file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    sys.argv = [MODULE, *request["arguments"]]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _serve()
