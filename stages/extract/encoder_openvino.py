"""Encoders on OpenVINO. The only module that imports openvino (`pip install "ceflpipe[openvino]"`).

ResNet-18 is the network of encoder_torch.py, built for OpenVINO's CPU plugin, which fuses more of it. It does not need torch,
so workers also start faster. docs/benchmarks.md compares both. ONNX networks are read as they are.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import CeflError, first_line
from ..device import bf16_allowed, num_threads
from ..encoder.onnx_network import input_shape, read_network
from ..encoder.resnet18 import FusedConv, fused_resnet18
from ..encoder.weights import read_encoder
from .encoder_base import BATCH_SIZE, Encoder, pad_batch
from .encoder_onnx import check_crop_size, to_features

if TYPE_CHECKING:
    from openvino import Node

_DTYPES = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOEncoder(Encoder):
    """ResNet-18 without its classifier on the CPU, compiled for batches of crops (crop_size, crop_size, 3).

    ``precision``: fp32, bf16 or auto (see openvino_precision). Raises CeflError without OpenVINO, or if the weights are
    not those of ResNet-18.
    """

    def __init__(self, weights: Path, crop_size: int, precision: str = "auto", batch_size: int = BATCH_SIZE) -> None:
        _import_openvino()
        self.batch_size = batch_size
        self.precision = openvino_precision(precision)
        file, arrays = read_encoder(weights)
        self.sha256, self.width, self.device_type = file.sha256, file.width, "cpu"
        shape = (batch_size, crop_size, crop_size, 3)
        network = _build_network(arrays, shape, np.array(file.mean) * 255, np.array(file.std) * 255)
        self._lock = threading.Lock()  # threads may share the encoder, but a request holds one batch
        self._request = _compile(network, self.precision)

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder."""
        with self._lock:
            features = self._request.infer({0: pad_batch(crops, self.batch_size)})[0][: len(crops)].astype(np.float16)
        return lambda: features


class OpenVINOOnnxEncoder(Encoder):
    """The network of an ONNX encoder file on the CPU, compiled for its batch size.

    ``precision``: fp32, bf16 or auto (see openvino_precision). Raises CeflError as OnnxNetwork, and if OpenVINO cannot read the
    network.
    """

    def __init__(self, weights: Path, precision: str = "auto") -> None:
        openvino = _import_openvino()
        self.precision, self.device_type = openvino_precision(precision), "cpu"
        self._path = weights
        self._card, content, self.sha256 = read_network(weights)
        self.batch_size, self.width = self._card.batch_size, self._card.width
        try:
            network = openvino.Core().read_model(content)
            network.reshape({self._card.input_name: list(input_shape(self._card))})
            self._dtype = network.input(self._card.input_name).get_element_type().to_dtype()
            self._request = _compile(network, self.precision)
        except RuntimeError as error:
            raise CeflError(
                f"{weights}: OpenVINO cannot read it: {first_line(error)[:300]}; use --backend onnxruntime"
            ) from None
        self._lock = threading.Lock()

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder."""
        check_crop_size(crops, self._card)
        images = self._card.normalize(pad_batch(crops, self.batch_size), self._dtype)
        with self._lock:
            output = np.array(self._request.infer({self._card.input_name: images})[0])
        features = to_features(self._card.pool_output(output), self._card, self._path)[: len(crops)]
        return lambda: features


def _compile(network: Any, precision: str) -> Any:
    """Return an inference request of a network on the CPU."""
    settings = {
        "INFERENCE_PRECISION_HINT": _DTYPES[precision],
        "INFERENCE_NUM_THREADS": num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two workers would both be pinned to the first core
    }
    return _import_openvino().Core().compile_model(network, "CPU", settings).create_infer_request()


def openvino_precision(precision: str) -> str:
    """Return fp32 or bf16; 'auto' is bf16 if the processor has it. Raises CeflError for bf16 without it: OpenVINO itself
    would silently compute in fp32."""
    if precision not in ("auto", *_DTYPES):
        raise CeflError(f"precision {precision}: the openvino backend computes in fp32 or bf16; use one, or auto")
    has_bf16 = "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") and bf16_allowed()
    if precision == "bf16" and not has_bf16:
        raise CeflError("precision bf16: OpenVINO does not support it on this processor; use fp32 or auto")
    return ("bf16" if has_bf16 else "fp32") if precision == "auto" else precision


def openvino_available(precision: str) -> bool:
    """Return whether OpenVINO is installed and computes in this precision on this processor."""
    try:
        return bool(openvino_precision(precision))
    except CeflError:
        return False


@lru_cache(maxsize=1)
def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which else reports every import to Google Analytics and writes ~/intel.

    Without the package openvino_telemetry OpenVINO takes functions that do nothing; None in its place is as if it were missing.
    """
    telemetry = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType] - documented for sys.modules
    try:
        import openvino
    except ImportError:
        raise CeflError('backend openvino: the package is not installed; pip install "ceflpipe[openvino]"') from None
    finally:
        if telemetry is None:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = telemetry
    return openvino


def _build_network(arrays: dict[str, np.ndarray], shape: tuple[int, ...], mean: np.ndarray, std: np.ndarray) -> Any:
    """Return ResNet-18 as an OpenVINO model: uint8 crops (N, S, S, 3) to features (N, 512)."""
    openvino = _import_openvino()
    from openvino import opset1 as ops

    def to_node(conv: FusedConv) -> Callable[[Node], Node]:
        stride, padding = [conv.stride] * 2, [conv.padding] * 2
        weight, bias = ops.constant(conv.weight), ops.constant(conv.bias.reshape(1, -1, 1, 1))
        return lambda x: ops.add(ops.convolution(x, weight, stride, padding, padding, [1, 1]), bias)

    resnet = fused_resnet18(arrays).map(to_node)

    crops = ops.parameter(list(shape), np.uint8, name="crops")
    x = ops.subtract(ops.convert(crops, "f32"), ops.constant(mean.astype(np.float32)))
    x = ops.divide(x, ops.constant(std.astype(np.float32)))
    x = ops.transpose(x, ops.constant(np.array([0, 3, 1, 2])))
    x = ops.max_pool(ops.relu(resnet.stem(x)), [2, 2], [1, 1], [1, 1], [3, 3])
    for block in resnet.blocks:
        y = block.conv2(ops.relu(block.conv1(x)))
        x = ops.relu(ops.add(y, x if block.downsample is None else block.downsample(x)))
    features = ops.reduce_mean(x, ops.constant(np.array([2, 3])), keep_dims=False)
    return openvino.Model([features], [crops], "resnet18")
