"""The process of a GPU: it holds the encoder and the detector's network, and computes for all workers.

Each worker has a thread that reads its requests and one that writes the answers, and at most MAX_UNANSWERED + 1 requests in
memory. Requests of equal operation and shape are computed together. A worker that dies costs its own requests only. An error
of the GPU ends the process: its state is unknown then, and gpu_pool.py starts another one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from typing import Any, NamedTuple

import numpy as np

from ...cache.code_hash import code_hash
from ...cache.errors import CeflError
from ..onnx_session import GPU_BATCH, is_out_of_memory, out_of_memory
from .encoder_base import Encoder
from .extract_config import ExtractConfig, build_encoder, build_networks
from .gpu_client import (
    DESCRIBE,
    DETECT,
    ENCODE,
    MAX_UNANSWERED,
    endpoint,
    receive_message,
    send_message,
)

WITHOUT_GPU = "fewer GPUs or --device cpu"
Fetch = Callable[[], list[np.ndarray]]


class Peer:
    """A connected worker."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.slots = threading.Semaphore(MAX_UNANSWERED + 1)
        self.answers: queue.SimpleQueue[tuple[dict[str, Any], list[np.ndarray]] | None] = queue.SimpleQueue()
        self.is_gone = False

    def leave(self) -> None:
        self.is_gone = True
        self.answers.put(None)


class Request(NamedTuple):
    """Rows (N, …) of a worker, and what to do with them."""

    peer: Peer
    number: int
    operation: str
    rows: np.ndarray

    @property
    def kind(self) -> tuple[Any, ...]:
        """What requests that are computed together have in common."""
        return self.operation, self.rows.shape[1:], self.rows.dtype


class GpuServer:
    """Computes the requests of all workers, in the order of their arrival as far as they are not computed together."""

    def __init__(self, config: ExtractConfig, encoder_sha256: str, detector_sha256: str, *, detects: bool) -> None:
        self._config = config
        self._encoder = build_encoder(config, encoder_sha256)
        self._fp32_encoder: Encoder | None = None
        self._networks = build_networks(config, detector_sha256) if detects else []
        self._requests: queue.Queue[Request] = queue.Queue(maxsize=64)

    def listen(self, listener: Listener) -> None:
        """Accept workers until the process ends."""
        while True:
            with suppress(OSError, EOFError):
                peer = Peer(listener.accept())
                for role in (self._read, self._write):
                    threading.Thread(target=role, args=(peer,), daemon=True).start()

    def _read(self, peer: Peer) -> None:
        with suppress(OSError, EOFError):
            while True:
                peer.slots.acquire()
                header, (rows,) = receive_message(peer.connection)
                self._requests.put(Request(peer, header["number"], header["operation"], rows))
        peer.leave()

    def _write(self, peer: Peer) -> None:
        with suppress(OSError):
            for header, arrays in iter(peer.answers.get, None):
                send_message(peer.connection, header, arrays)
                peer.slots.release()
        peer.is_gone = True
        peer.connection.close()

    def run(self) -> None:
        """Compute requests. While a batch of crops is computed, the next one is collected and copied to the GPU."""
        pending: deque[Request] = deque()
        running: tuple[list[Request], Fetch] | None = None
        while True:
            if not pending and running is None:
                pending.append(self._requests.get())
            with suppress(queue.Empty):
                while True:
                    pending.append(self._requests.get_nowait())
            started = None
            if batch := self._take(pending):
                fetch = self._guarded(batch, lambda batch=batch: self._start(batch))
                started = (batch, fetch) if fetch else None
            if running:
                self._answer(*running)
            running = started

    def _take(self, pending: deque[Request]) -> list[Request]:
        """Remove and return the first request and those that can be computed with it."""
        batch: list[Request] = []
        rest: list[Request] = []
        size = 0
        while pending:
            request = pending.popleft()
            if request.peer.is_gone:
                continue
            fits = size + len(request.rows) <= self._max_rows(request.operation)
            if not batch or (request.kind == batch[0].kind and fits):
                batch.append(request)
                size += len(request.rows)
            else:
                rest.append(request)
        pending.extend(rest)
        return batch

    def _max_rows(self, operation: str) -> int:
        return GPU_BATCH if operation.startswith(DETECT) else self._encoder.batch_size

    def _start(self, batch: list[Request]) -> Fetch:
        operation = batch[0].operation
        rows = batch[0].rows if len(batch) == 1 else np.concatenate([request.rows for request in batch])
        if operation == DESCRIBE:
            return list
        if operation.startswith(DETECT):
            outputs = self._networks[int(operation.removeprefix(DETECT))](rows)
            return lambda: list(outputs)
        encode = (self._encoder if operation == ENCODE else self._in_fp32()).encode_async(rows)
        return lambda: [encode()]

    def _in_fp32(self) -> Encoder:
        if self._fp32_encoder is None:
            self._fp32_encoder = self._encoder.in_fp32()
        if self._fp32_encoder is None:
            raise CeflError(f"{self._config.encoder}: has no form in fp32")
        return self._fp32_encoder

    def _answer(self, batch: list[Request], fetch: Fetch) -> None:
        outputs = self._guarded(batch, fetch)
        if outputs is None:
            return
        first = 0
        for request in batch:
            last = first + len(request.rows)
            header: dict[str, Any] = {"number": request.number}
            if request.operation == DESCRIBE:
                header["description"] = self._describe()
            request.peer.answers.put((header, [output[first:last] for output in outputs]))
            first = last

    def _guarded(self, batch: list[Request], function: Callable[[], Any]) -> Any:
        """Return what a function returns, or None if it failed: then its workers get the reason. Other errors than a full GPU and
        those with a message end the process."""
        try:
            return function()
        except CeflError as error:
            reason = str(error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(out_of_memory(self._config.device, WITHOUT_GPU))
        for request in batch:
            request.peer.answers.put(({"number": request.number, "error": reason}, []))
        return None

    def _describe(self) -> dict[str, Any]:
        encoder = self._encoder
        names = ("precision", "batch_size", "width", "device_type", "sha256")
        return {name: getattr(encoder, name) for name in names} | {
            "arithmetic": encoder.arithmetic(),
            "num_networks": len(self._networks),
            "code_hash": code_hash("stages/extract/extract.py"),
        }


def main() -> None:
    """Serve as the line on the standard input says, until that is closed: then the process that started this one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    task = json.loads(sys.stdin.readline())
    config = ExtractConfig.model_validate(task["config"])
    try:
        server = GpuServer(config, task["encoder_sha256"], task["detector_sha256"], detects=task["detects"])
        with suppress(FileNotFoundError):  # of a process that died
            os.unlink(task["address"])
        listener = Listener(endpoint(task["address"]), backlog=256)
    except CeflError as error:
        _report({"error": str(error)})
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _report({"error": str(out_of_memory(config.device, WITHOUT_GPU))})
        return
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()
    threading.Thread(target=server.listen, args=(listener,), daemon=True).start()
    _report({"is_ready": True})
    server.run()


def _report(message: dict[str, Any]) -> None:
    """Print a line for the parent; whatever a library prints afterwards goes to the log."""
    print(json.dumps(message), flush=True)
    os.dup2(2, 1)


def _exit_at_end_of_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
