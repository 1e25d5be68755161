"""ONNX networks for tests: ResNet-18 of an encoder file, and small networks with any input, output or fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ceflpipe.stages.encoder.resnet18 import FusedConv, fused_resnet18
from ceflpipe.stages.encoder.weights import load_numpy

SIZE = 32
"""Side of the images of the small networks in pixels."""


class Graph:
    """A graph that is put together node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: object) -> str:
        """Add a node and return the name of its output."""
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def model(
        self,
        shape: tuple[int | str, ...],
        *outputs: str,
        kind: int = TensorProto.FLOAT,
        more_inputs: tuple[str, ...] = (),
    ) -> onnx.ModelProto:
        """Return the model with the input ``pixels`` of this shape; the shapes of its outputs are not declared."""
        inputs = [helper.make_tensor_value_info("pixels", kind, list(shape))]
        inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", 4]) for name in more_inputs]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", inputs, results, self.weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def resnet18(encoder: Path, path: Path, size: int = 64) -> Path:
    """Write the ResNet-18 of a .safetensors encoder file as an ONNX network for images (N, 3, size, size)."""
    graph = Graph()

    def to_node(conv: FusedConv):
        weight, bias = graph.constant(conv.weight), graph.constant(conv.bias)
        pads, strides = [conv.padding] * 4, [conv.stride] * 2
        return lambda x: graph.add("Conv", x, weight, bias, pads=pads, strides=strides)

    network = fused_resnet18(load_numpy(encoder)).map(to_node)
    x = graph.add("Relu", network.stem("pixels"))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    for block in network.blocks:
        y = block.conv2(graph.add("Relu", block.conv1(x)))
        x = graph.add("Relu", graph.add("Add", y, x if block.downsample is None else block.downsample(x)))
    graph.add("Flatten", graph.add("GlobalAveragePool", x), name="features")
    onnx.save(graph.model(("N", 3, size, size), "features"), str(path))
    return path


def small(
    *,
    width: int = 24,
    batch: int | str = "N",
    layout: str = "NCHW",
    size: int | str = SIZE,
    dtype: type = np.float32,
    seed: int = 0,
) -> Graph:
    """Return the graph of a small network with ``features`` (N, width) and ``scores`` (N, 7)."""
    graph, rng = Graph(), np.random.default_rng(seed)
    x = graph.add("Transpose", "pixels", perm=[0, 3, 1, 2]) if layout == "NHWC" else "pixels"
    kernel = (0.2 * rng.standard_normal((width, 3, 4, 4))).astype(dtype)
    x = graph.add("Conv", x, graph.constant(kernel), strides=[4, 4])
    x = graph.add("GlobalAveragePool", graph.add("Relu", x), name="pooled")
    x = graph.add("Flatten", x, name="features")
    graph.add("MatMul", x, graph.constant(rng.standard_normal((width, 7)).astype(dtype)), name="scores")
    return graph


def write_small(
    path: Path, *outputs: str, batch: int | str = "N", layout: str = "NCHW", size: int | str = SIZE, **options: object
) -> Path:
    """Write a small network; its outputs are ``features`` unless others are given."""
    dtype = options.get("dtype", np.float32)
    graph = small(layout=layout, **options)
    shape = (batch, 3, size, size) if layout == "NCHW" else (batch, size, size, 3)
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    onnx.save(graph.model(shape, *(outputs or ("features",)), kind=kind), str(path))
    return path
