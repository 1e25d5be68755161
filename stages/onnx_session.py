"""ONNX Runtime sessions, on a processor or on a GPU. The only module that imports onnxruntime.

No library of custom operators is ever registered, and a network comes as bytes, so that it can refer to no other file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)

from ..cache.errors import CeflError

SESSION_ERRORS = (
    EPFail, Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException, RuntimeError,
    MemoryError,
)  # fmt: skip
"""What ONNX Runtime raises for a network that it cannot load or run."""
CUDA_PROVIDER = "CUDAExecutionProvider"
GPU_BATCH = 8
"""Rows that a BatchedNetwork computes at a time on a GPU. Fewer are padded to it, so that the digits of a row do not depend on
how many rows come with it: the kernels that cuDNN takes depend on the shape."""


def cuda_provider_available() -> bool:
    """Return whether the installed onnxruntime is one for NVIDIA GPUs."""
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def build_session(
    network: bytes, threads: int, device: str = "cpu", *, alternative: str = "--device cpu"
) -> onnxruntime.InferenceSession:
    """Return a session on ``threads`` processor threads (0: one per core), or on a GPU: ``cuda`` or ``cuda:1``.

    On a GPU fp32 is IEEE arithmetic, with the same algorithm for every convolution. Raises one of SESSION_ERRORS for a network
    it cannot load, and CeflError if ONNX Runtime cannot use the GPU, which ends with the ``alternative``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads that spin take the cores from other work
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    if not cuda_provider_available():
        raise CeflError(
            f"--device {device}: the installed onnxruntime runs on processors only; pip uninstall onnxruntime and "
            f"pip install onnxruntime-gpu, or use {alternative}"
        )
    if preload := getattr(onnxruntime, "preload_dlls", None):  # CUDA and cuDNN of the packages that torch brings
        preload()
    settings: dict[str, Any] = {
        "device_id": int(index or 0),
        "use_tf32": 0,
        "cudnn_conv_algo_search": "DEFAULT",  # the others take the algorithm that was fastest in a measurement
        "arena_extend_strategy": "kSameAsRequested",
    }
    try:
        session = onnxruntime.InferenceSession(
            network, options, providers=[(CUDA_PROVIDER, settings), "CPUExecutionProvider"]
        )
    except SESSION_ERRORS as error:
        if is_out_of_memory(error):
            raise out_of_memory(device, alternative) from None
        raise
    if CUDA_PROVIDER not in session.get_providers():  # it goes on without the GPU and only logs that
        raise CeflError(
            f"--device {device}: ONNX Runtime cannot use this GPU (CUDA and cuDNN of the versions that onnxruntime "
            f"{onnxruntime.__version__} needs must be installed); use {alternative}"
        )
    return session


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of ONNX Runtime or torch says that a GPU has no memory left."""
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text


def out_of_memory(device: str, alternative: str = "--device cpu") -> CeflError:
    """Return what to tell and to type when a GPU has no memory left."""
    return CeflError(
        f"--device {device}: out of GPU memory; end other programs that use this GPU (nvidia-smi lists them), or use "
        f"{alternative}"
    )


class BatchedNetwork:
    """A network with one input, whose first axis is the batch. On a GPU it computes GPU_BATCH rows at a time."""

    def __init__(self, network: bytes, threads: int, device: str = "cpu", *, alternative: str = "--device cpu") -> None:
        self._session = build_session(network, threads, device, alternative=alternative)
        self._input = self._session.get_inputs()[0].name
        self._device, self._alternative = device, alternative
        self._padding = 0 if device == "cpu" else GPU_BATCH

    def run_padded(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of the rows (N, …), and of the zeros after them. Raises CeflError without memory on the GPU."""
        if len(rows) < self._padding:
            rows = np.concatenate([rows, np.zeros((self._padding - len(rows), *rows.shape[1:]), rows.dtype)])
        try:
            outputs: Sequence[Any] = self._session.run(None, {self._input: rows})
        except SESSION_ERRORS as error:
            if is_out_of_memory(error) and self._device != "cpu":
                raise out_of_memory(self._device, self._alternative) from None
            raise
        return [np.asarray(output) for output in outputs]

    def __call__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the outputs (N, …) of at most GPU_BATCH rows (N, …)."""
        return [output[: len(rows)] for output in self.run_padded(rows)]
