"""Detection and encoding by the process of a GPU, as a worker sees it: messages, the connection, the detector and the encoder.

A worker decodes, follows and aligns faces on a processor; crops and images go to the process that has the GPU (gpu_server.py),
over a Unix socket or a named pipe. A worker has at most MAX_UNANSWERED requests there. If the process dies, it is started again
(gpu_pool.py), and what was not answered is sent again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import count
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import CeflError
from .encoder_base import Encoder

MAX_UNANSWERED = 3
"""Two batches of crops (one is decoded while the other is computed) and an image to search."""
RESTART_TIMEOUT = 60.0
"""Seconds that a worker waits for a process that died to be there again."""
ENCODE, ENCODE_FP32, DETECT, DESCRIBE = "encode", "encode in fp32", "detect", "describe"


def send_message(connection: Connection, header: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Send a header and arrays, as JSON and as their bytes: nothing that is received is ever unpickled."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    described = [[array.dtype.str, array.shape] for array in arrays]
    connection.send_bytes(json.dumps({**header, "arrays": described}).encode())
    for array in arrays:
        connection.send_bytes(array.reshape(-1).view(np.uint8).data)


def receive_message(connection: Connection) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return a header and read-only arrays; raises EOFError or OSError if the other side is gone."""
    header = json.loads(connection.recv_bytes())
    return header, [
        np.frombuffer(connection.recv_bytes(), dtype).reshape(shape) for dtype, shape in header.pop("arrays")
    ]


def failure_file(address: str) -> Path:
    """Return the file that says why a process is not started again."""
    return Path(f"{address}.failed")


def endpoint(address: str) -> str:
    """Return where the process of a GPU listens: a Unix socket, or on Windows a named pipe."""
    path = Path(address)
    return rf"\\.\pipe\{path.parent.name}-{path.name}" if os.name == "nt" else address


class GpuClient:
    """A connection to the process of a GPU at ``address``, a path. Raises CeflError when that is gone for good."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = count()
        self._unanswered: dict[int, tuple[str, np.ndarray]] = {}
        self._answers: dict[int, list[np.ndarray]] = {}
        self._description: dict[str, Any] = {}
        self._connection = self._connect()

    def submit(self, operation: str, rows: np.ndarray) -> int:
        """Send rows (N, …) and return the number of the request; ``rows`` may be overwritten at once."""
        while len(self._unanswered) >= MAX_UNANSWERED:
            self._receive()
        number = next(self._numbers)
        self._unanswered[number] = operation, rows.copy()
        try:
            self._send(number)
        except OSError:
            self._reconnect()
        return number

    def result(self, number: int) -> list[np.ndarray]:
        """Wait for the outputs of a request."""
        while number not in self._answers:
            self._receive()
        return self._answers.pop(number)

    def describe(self) -> dict[str, Any]:
        """Return what the process computes with at this moment."""
        self.result(self.submit(DESCRIBE, np.zeros(0, np.uint8)))
        return self._description

    def _send(self, number: int) -> None:
        operation, rows = self._unanswered[number]
        send_message(self._connection, {"number": number, "operation": operation}, [rows])

    def _receive(self) -> None:
        try:
            header, arrays = receive_message(self._connection)
        except (EOFError, OSError):
            self._reconnect()
            return
        self._unanswered.pop(header["number"], None)
        if header.get("error"):
            raise CeflError(header["error"])
        self._answers[header["number"]] = arrays
        self._description = header.get("description", self._description)

    def _connect(self) -> Connection:
        deadline = time.monotonic() + RESTART_TIMEOUT
        while True:
            with suppress(OSError):
                return Client(endpoint(self._address))
            with suppress(OSError):
                raise CeflError(failure_file(self._address).read_text(encoding="utf-8"))
            if time.monotonic() > deadline:
                raise CeflError(
                    f"the process of a GPU does not answer for {RESTART_TIMEOUT:g} s; run the same command again: finished "
                    "videos are kept"
                )
            time.sleep(0.1)

    def _reconnect(self) -> None:
        """Connect again and send what was not answered."""
        while True:
            self._connection.close()
            self._connection = self._connect()
            try:
                for number in self._unanswered:
                    self._send(number)
            except OSError:
                continue
            return


@lru_cache(maxsize=16)
def connect(address: str) -> GpuClient:
    """Return the connection of this worker to the process at an address."""
    return GpuClient(address)


class GpuEncoder(Encoder):
    """The encoder in the process of a GPU."""

    def __init__(self, client: GpuClient, description: dict[str, Any], operation: str = ENCODE) -> None:
        self._client, self._description, self._operation = client, description, operation
        self.precision = description["precision"] if operation == ENCODE else "fp32"
        self.batch_size, self.width = description["batch_size"], description["width"]
        self.device_type, self.sha256 = description["device_type"], description["sha256"]

    def arithmetic(self) -> str:
        return self._description["arithmetic"] if self._operation == ENCODE else self.precision

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder."""
        number = self._client.submit(self._operation, crops)
        return lambda: self._client.result(number)[0]

    def in_fp32(self) -> Encoder | None:
        return GpuEncoder(self._client, self._description, ENCODE_FP32) if self.precision == "fp16" else None


def gpu_networks(client: GpuClient, description: dict[str, Any]) -> list[Callable[[np.ndarray], list[np.ndarray]]]:
    """Return the networks of the detector in the process of a GPU; none if workers detect themselves."""
    return [partial(_detect, client, f"{DETECT} {number}") for number in range(description["num_networks"])]


def _detect(client: GpuClient, operation: str, pixels: np.ndarray) -> list[np.ndarray]:
    return client.result(client.submit(operation, pixels))
