"""The processes of the GPUs of this machine: started before the workers, started again if one dies, ended after them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from ...cache.errors import CeflError
from ...cache.fingerprint import ExtractionSettings
from . import gpu_server
from .extract_config import ExtractConfig
from .gpu_client import failure_file

MAX_RESTARTS = 2
"""Times that the process of a GPU is started again in one run."""
KEPT = "finished videos are kept; run the same command to go on"


class GpuPool:
    """While entered, one process per device that detects and encodes for all workers; ``addresses``: of these processes.

    ``detects``: faces are detected there as well, not only encoded. ``restarts``: what is said of each process that had to be
    started again. Raises CeflError on entering if one cannot start.
    """

    def __init__(
        self, config: ExtractConfig, settings: ExtractionSettings, devices: tuple[str, ...], *, detects: bool
    ) -> None:
        self._devices = devices
        self._tasks = [
            {
                "config": config.model_copy(update={"device": device}).model_dump(mode="json"),
                "encoder_sha256": settings.encoder_sha256,
                "detector_sha256": settings.detector_sha256,
                "detects": detects,
            }
            for device in devices
        ]
        self._processes: list[subprocess.Popen[str]] = []
        self._num_restarts = [0] * len(devices)
        self.restarts: list[str] = []
        self._ending = threading.Event()
        self._monitor = threading.Thread(target=self._restart_dead, daemon=True)

    def __enter__(self) -> GpuPool:
        self._folder = Path(tempfile.mkdtemp(prefix="ceflpipe-"))  # only this user may enter it
        self.addresses = [str(self._folder / str(number)) for number in range(len(self._devices))]
        with ExitStack() as on_failure:
            on_failure.callback(self._end)
            self._processes = [self._start(number) for number in range(len(self._devices))]
            for number in range(len(self._devices)):
                if reason := self._wait_until_ready(number):
                    raise CeflError(reason)
            on_failure.pop_all()
        self._monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._monitor.join()
        self._end()

    def assign(self, number: int) -> str:
        """Return the address of the process for a task: each in turn."""
        return self.addresses[number % len(self.addresses)]

    def _start(self, number: int) -> subprocess.Popen[str]:
        # the path of this process, and nothing of the working folder before it
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        with open(self._log(number), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", gpu_server.__name__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
            )  # fmt: skip
        if process.stdin:
            with suppress(OSError):  # it has died; waiting for it tells why
                process.stdin.write(json.dumps(self._tasks[number] | {"address": self.addresses[number]}) + "\n")
                process.stdin.flush()
        return process

    def _wait_until_ready(self, number: int) -> str:
        """Return '' when a process is ready, else why it is not."""
        process = self._processes[number]
        for line in process.stdout or ():
            with suppress(ValueError):  # something that a library printed
                message = json.loads(line)
                if isinstance(message, dict) and ("is_ready" in message or "error" in message):
                    return message.get("error", "")
        return f"{self._describe_end(number)}; {KEPT}"

    def _describe_end(self, number: int) -> str:
        code = self._processes[number].wait()
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self._log(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the process of {self._devices[number]} ended ({cause}{f': {lines[-1][:200]}' if lines else ''})"

    def _restart_dead(self) -> None:
        """Start each process again that has died, up to MAX_RESTARTS times; then tell its workers why there is none."""
        while not self._ending.wait(0.2):
            for number, process in enumerate(self._processes):
                if process.poll() is None or failure_file(self.addresses[number]).exists():
                    continue
                end = self._describe_end(number)
                reason = f"{end}, {MAX_RESTARTS + 1} times in this run; {KEPT}"
                if self._num_restarts[number] < MAX_RESTARTS:
                    self._num_restarts[number] += 1
                    self._processes[number] = self._start(number)
                    reason = self._wait_until_ready(number)
                    if not reason:
                        self.restarts.append(f"{end} and was started again; nothing was lost")
                if reason:
                    failure_file(self.addresses[number]).write_text(reason, encoding="utf-8")

    def _log(self, number: int) -> Path:
        return self._folder / f"{number}.log"

    def _end(self) -> None:
        for process in self._processes:
            if process.stdin:
                with suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
