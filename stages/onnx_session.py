"""Sessions of ONNX Runtime, on a processor or on a GPU. The only module that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as states

from ..cache.errors import CeflError

ONNX_ERRORS: tuple[type[Exception], ...] = tuple(
    error for error in vars(states).values() if isinstance(error, type) and issubclass(error, Exception)
)
"""What ONNX Runtime raises for a file that it cannot open or run, and for a device that fails; they have no common class."""

GPU_BATCH = 8
"""Rows that a network computes at a time on a GPU. Fewer are padded to it, so that the digits of a row do not depend on how many
rows come with it: the kernels that cuDNN chooses depend on the shape."""
INSTALL_GPU = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def has_cuda_provider() -> bool:
    """Return whether the installed ONNX Runtime was built for CUDA (the package onnxruntime-gpu)."""
    return _CUDA in onnxruntime.get_available_providers()


def open_session(model: bytes | str, device: str = "cpu", threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a network, its bytes or the path of its file, on ``device`` (cpu, cuda, cuda:1 …), with ``threads`` threads (0: all).

    On a GPU fp32 is IEEE arithmetic (no TF32) with one fixed algorithm for convolutions. Raises CeflError if ONNX Runtime
    cannot use the GPU, or does not have enough of its memory; it would silently compute on the processor.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads that spin take the cores from the encoder
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return onnxruntime.InferenceSession(model, options, providers=[_CPU])
    if not has_cuda_provider():
        raise CeflError(
            f"device {device}: the installed onnxruntime runs on processors only; {INSTALL_GPU}, or use --detector-device cpu"
        )
    if preload := getattr(onnxruntime, "preload_dlls", None):  # CUDA and cuDNN that torch or a package of pip brought
        preload()
    settings = {
        "device_id": number or "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "DEFAULT",  # one algorithm; the others are the fastest of a measurement
        "arena_extend_strategy": "kSameAsRequested",
    }
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[(_CUDA, settings), _CPU])
    except ONNX_ERRORS as error:
        raise _describe(error, device) from None
    if session.get_providers()[0] != _CUDA:
        raise CeflError(
            f"device {device}: onnxruntime-gpu is installed but cannot use it (CUDA or cuDNN is missing, or of another "
            "version than it needs); see onnxruntime.ai/docs/execution-providers/CUDA, or use --detector-device cpu"
        )
    return session


class BatchedNetwork:
    """A network with one input, whose first axis is the batch, on one device. On a GPU it computes GPU_BATCH rows at a time."""

    def __init__(self, model: bytes | str, device: str = "cpu", threads: int = 1) -> None:
        self._session = open_session(model, device, threads)
        self._input = self._session.get_inputs()[0].name
        self._device = device
        self._padding = 0 if device == "cpu" else GPU_BATCH

    def __call__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the outputs (N, …) of at most GPU_BATCH rows (N, …). Raises CeflError if the GPU does not have enough memory."""
        count = len(rows)
        if count < self._padding:
            rows = np.concatenate([rows, np.zeros((self._padding - count, *rows.shape[1:]), rows.dtype)])
        try:
            outputs: Sequence[Any] = self._session.run(None, {self._input: rows})
        except ONNX_ERRORS as error:
            if self._device == "cpu":
                raise
            raise _describe(error, self._device) from None
        return [np.asarray(output)[:count] for output in outputs]


def with_batch_axis(model: bytes) -> bytes:
    """Return a network whose first input takes any number of rows, also if it was exported for one."""
    network = onnx.load_from_string(model)
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del network.graph.value_info[:]
    for output in network.graph.output:
        output.type.tensor_type.ClearField("shape")
    return network.SerializeToString()


def _describe(error: Exception, device: str) -> CeflError:
    """Return an error of ONNX Runtime on a GPU in one line; out of memory ends with what to type."""
    text = " ".join(str(error).split())
    if "out of memory" in text.lower() or "failed to allocate" in text.lower():
        return CeflError(f"{device}: out of memory ({text[:120]}); use fewer --workers, or --detector-device cpu")
    return CeflError(f"{device}: {text[:200]}; use --detector-device cpu")
