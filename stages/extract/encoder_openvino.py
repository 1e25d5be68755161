"""Encoders on OpenVINO. The only module that imports openvino (`pip install "ceflpipe[openvino]"`).

ResNet-18 is the network of encoder_torch.py, built for OpenVINO's CPU plugin, which fuses more of it. It does not need torch,
so workers also start faster. docs/benchmarks.md compares both. ONNX networks are read as they are.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...cache.errors import CeflError, first_line
from ..device import bf16_allowed, num_threads
from ..encoder.onnx_network import input_shape, read_network
from ..encoder.resnet18 import FusedConv, fused_resnet18
from ..encoder.weights import EncoderFile, read_encoder
from .encoder_base import BATCH_SIZE, Encoder, pad_batch
from .encoder_onnx import check_crop_size, to_features

if TYPE_CHECKING:
    from openvino import Node

_DTYPES = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Type that OpenVINO computes in; of int8 what is not quantized."""
RANGE_PERCENTILES = 0.01, 99.99
"""Of the inputs of a convolution in a batch, between which its range lies: few outliers would make all steps coarser."""
NUM_RANGES = 17
"""Of ResNet-18: of the crops, and of each block's input and hidden layer."""
ActivationRanges: TypeAlias = "Sequence[tuple[float, float]]"
"""Lowest and highest input of each convolution."""


class OpenVINOEncoder(Encoder):
    """ResNet-18 without its classifier on the CPU, compiled for batches of crops (crop_size, crop_size, 3).

    ``precision``: fp32, bf16, int8 or auto (see openvino_precision). Raises CeflError without OpenVINO, if the weights are
    not those of ResNet-18, or if the file lacks the ranges that int8 needs; ``ranges`` are in place of those of the file.
    """

    def __init__(
        self,
        weights: Path,
        crop_size: int,
        precision: str = "auto",
        batch_size: int = BATCH_SIZE,
        ranges: ActivationRanges | None = None,
    ) -> None:
        _import_openvino()
        self.batch_size = batch_size
        self.precision = openvino_precision(precision)
        file, arrays = read_encoder(weights)
        self.sha256, self.width, self.device_type = file.sha256, file.width, "cpu"
        shape = (batch_size, crop_size, crop_size, 3)
        if self.precision == "int8":
            ranges = ranges or activation_ranges(file)
        network = _build_network(file, arrays, shape, ranges)
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
        if precision == "int8":
            raise CeflError(f"precision int8: {weights} is an ONNX network, computed as it is; leave out --precision")
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
    """Return fp32, bf16 or int8; 'auto' is bf16 if the processor has it, never int8. Raises CeflError for bf16 without it:
    OpenVINO itself would silently compute in fp32."""
    if precision not in ("auto", *_DTYPES):
        raise CeflError(f"precision {precision}: the openvino backend computes in fp32, bf16 or int8; use one, or auto")
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


def activation_ranges(file: EncoderFile) -> ActivationRanges:
    """Return the ranges of an encoder file's activations, for int8; raises CeflError if it has none, or another number."""
    if len(file.activation_ranges) != NUM_RANGES:
        raise CeflError(
            f"precision int8: {file.path} has no ranges of activations; make an encoder that has them with ceflpipe encoder "
            f"quantize --dataset NAME --encoder {file.name}, or use --precision auto"
        )
    return file.activation_ranges


def measure_ranges(weights: Path, crops: np.ndarray) -> ActivationRanges:
    """Return the lowest and highest input of each convolution for crops (N, S, S, 3) in fp32, without a few outliers.

    Inputs of a convolution that begin together, such as of a block and its shortcut, count once. The range of all crops is that
    of the widest batch (RANGE_PERCENTILES).
    """
    file, arrays = read_encoder(weights)
    shape = (BATCH_SIZE, *crops.shape[1:])
    request = _compile(_build_network(file, arrays, shape, with_inputs=True), "fp32")
    lows, highs = [], []
    for first in range(0, len(crops), BATCH_SIZE):
        batch = crops[first : first + BATCH_SIZE]
        outputs = request.infer({0: pad_batch(batch, BATCH_SIZE)})
        values = [np.percentile(outputs[1 + i][: len(batch)], RANGE_PERCENTILES) for i in range(NUM_RANGES)]
        lows.append([low for low, _ in values])
        highs.append([high for _, high in values])
    return [
        (min(0.0, float(low)), max(float(high), 1e-6))
        for low, high in zip(np.min(lows, axis=0), np.max(highs, axis=0), strict=True)
    ]


def _build_network(
    file: EncoderFile,
    arrays: dict[str, np.ndarray],
    shape: tuple[int, ...],
    ranges: ActivationRanges | None = None,
    *,
    with_inputs: bool = False,
) -> Any:
    """Return ResNet-18 as an OpenVINO model: uint8 crops (N, S, S, 3) to features (N, 512).

    ``ranges``: of the inputs of convolutions, for a network whose convolutions are computed in 8 bits; OpenVINO makes these of
    FakeQuantize. ``with_inputs``: the model also returns these inputs.
    """
    openvino = _import_openvino()
    from openvino import opset1 as ops

    inputs: list[Node] = []

    def to_node(conv: FusedConv) -> Callable[[Node], Node]:
        stride, padding = [conv.stride] * 2, [conv.padding] * 2
        weight, bias = ops.constant(conv.weight), ops.constant(conv.bias.reshape(1, -1, 1, 1))
        if ranges:
            # 7 of the 8 bits: processors without VNNI add pairs of products in 16 bits, which 8 would exceed
            limit = 2 * np.abs(conv.weight).max(axis=(1, 2, 3), keepdims=True) + np.float32(1e-12)
            weight = ops.fake_quantize(weight, -limit, limit, -limit, limit, 255)
        return lambda x: ops.add(ops.convolution(x, weight, stride, padding, padding, [1, 1]), bias)

    def quantize(x: Node) -> Node:
        inputs.append(x)
        if not ranges:
            return x
        low, high = (np.float32(value) for value in ranges[len(inputs) - 1])
        return ops.fake_quantize(x, low, high, low, high, 256)

    resnet = fused_resnet18(arrays).map(to_node)
    mean, std = (ops.constant((np.array(part) * 255).astype(np.float32)) for part in (file.mean, file.std))
    crops = ops.parameter(list(shape), np.uint8, name="crops")
    x = ops.divide(ops.subtract(ops.convert(crops, "f32"), mean), std)
    x = ops.transpose(x, ops.constant(np.array([0, 3, 1, 2])))
    x = ops.max_pool(ops.relu(resnet.stem(quantize(x))), [2, 2], [1, 1], [1, 1], [3, 3])
    for block in resnet.blocks:
        x = quantize(x)
        y = block.conv2(quantize(ops.relu(block.conv1(x))))
        x = ops.relu(ops.add(y, x if block.downsample is None else block.downsample(x)))
    features = ops.reduce_mean(x, ops.constant(np.array([2, 3])), keep_dims=False)
    return openvino.Model([features, *(inputs if with_inputs else [])], [crops], "resnet18")
