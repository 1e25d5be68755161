"""ResNet-18 encoder on OpenVINO. The only module that imports openvino (`pip install "ceflpipe[openvino]"`).

The same weights as encode_torch.py, as a network written out for OpenVINO's CPU plugin, which fuses more of it. torch is not
needed, so that a worker begins sooner too. docs/benchmarks.md has both side by side.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import CeflError
from ..device import bf16_allowed
from ..encoder.resnet18 import FusedConv, resnet18
from ..encoder.weights import NORMALIZATIONS, load_numpy, read_encoder_metadata
from .encoder_base import BATCH_SIZE, Encoder, pad_batch

if TYPE_CHECKING:
    from openvino import Node

_DTYPES = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOEncoder(Encoder):
    """ResNet-18 without its classifier on the processor, compiled for batches of crops of one size.

    ``precision``: fp32 or bf16 (auto: see openvino_precision). Raises CeflError without OpenVINO, or for other weights.
    """

    def __init__(self, weights: Path, size: int, precision: str = "auto", batch_size: int = BATCH_SIZE) -> None:
        vino = _openvino()
        self.batch_size = batch_size
        self.precision = openvino_precision(precision)
        mean, std = NORMALIZATIONS[read_encoder_metadata(weights).normalization]
        network = _build_network(
            load_numpy(weights), (batch_size, size, size, 3), np.array(mean) * 255, np.array(std) * 255
        )
        settings = {
            "INFERENCE_PRECISION_HINT": _DTYPES[self.precision],
            "INFERENCE_NUM_THREADS": _num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two workers would both take the first core
        }
        self._lock = threading.Lock()  # a request holds the numbers of one batch; threads of a process may share it
        self._request = vino.Core().compile_model(network, "CPU", settings).create_infer_request()

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder."""
        with self._lock:
            features = self._request.infer({0: pad_batch(crops, self.batch_size)})[0][: len(crops)].astype(np.float16)
        return lambda: features


def openvino_precision(precision: str) -> str:
    """Return fp32 or bf16; 'auto' is bf16 where OpenVINO says that the processor has it (elsewhere it would take fp32 and
    not say so)."""
    if precision not in ("auto", *_DTYPES):
        raise CeflError(f"precision {precision}: the openvino backend computes in fp32 or bf16; use one, or auto")
    has_bf16 = "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") and bf16_allowed()
    if precision == "bf16" and not has_bf16:
        raise CeflError("precision bf16: this processor has none that OpenVINO would use; take fp32, or auto")
    return ("bf16" if has_bf16 else "fp32") if precision == "auto" else precision


def openvino_available(precision: str) -> bool:
    """Tell whether OpenVINO is installed and computes in this precision on this processor."""
    try:
        return bool(openvino_precision(precision))
    except CeflError:
        return False


def _num_threads() -> int:
    """Return this worker's share of the cores, as it is said to all libraries; 0 for all of them."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


@lru_cache(maxsize=1)
def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise CeflError('backend openvino: the package is not here; pip install "ceflpipe[openvino]"') from None
    return openvino


def _build_network(arrays: dict[str, np.ndarray], shape: tuple[int, ...], mean: np.ndarray, std: np.ndarray) -> Any:
    """Write ResNet-18 down: uint8 crops (N, S, S, 3) in, (N, 512) out."""
    vino = _openvino()
    from openvino import opset1 as ops

    def convolve(x: Node, part: FusedConv) -> Node:
        stride, around = [part.stride] * 2, [part.padding] * 2
        y = ops.convolution(x, ops.constant(part.weight), stride, around, around, [1, 1])
        return ops.add(y, ops.constant(part.bias.reshape(1, -1, 1, 1)))

    crops = ops.parameter(list(shape), np.uint8, name="crops")
    x = ops.subtract(ops.convert(crops, "f32"), ops.constant(mean.astype(np.float32)))
    x = ops.divide(x, ops.constant(std.astype(np.float32)))
    x = ops.transpose(x, ops.constant(np.array([0, 3, 1, 2])))
    stem, blocks = resnet18(arrays)
    x = ops.max_pool(ops.relu(convolve(x, stem)), [2, 2], [1, 1], [1, 1], [3, 3])
    for block in blocks:
        y = convolve(ops.relu(convolve(x, block.conv1)), block.conv2)
        x = ops.relu(ops.add(y, x if block.downsample is None else convolve(x, block.downsample)))
    features = ops.reduce_mean(x, ops.constant(np.array([2, 3])), keep_dims=False)
    return vino.Model([features], [crops], "resnet18")
