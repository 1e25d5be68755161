"""Export of an encoder file to ONNX: uint8 crops in, float16 features out, with normalization and pooling inside the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.errors import CeflError, first_line
from .onnx_card import MAX_FILE_BYTES, PREFIX, OnnxCard
from .weights import EncoderFile, is_onnx, load_encoder, read_encoder_metadata

OPSET = 18
"""Version of ONNX's operators."""
MISSING = 'export: the packages onnx and onnxscript are needed; pip install "ceflpipe[export]"'
CROPS, FEATURES = "crops", "features"
INNER = "network."
"""Before the names of the tensors of an ONNX network that becomes a part of another one."""


class PixelEncoder(nn.Module):
    """The ResNet-18 of an encoder file, from uint8 RGB crops (N, S, S, 3) to float16 features (N, 512)."""

    def __init__(self, encoder: EncoderFile) -> None:
        super().__init__()
        self.network = load_encoder(encoder.path)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(encoder, name)).view(1, 3, 1, 1) * 255)

    def forward(self, crops: Tensor) -> Tensor:
        images = (crops.permute(0, 3, 1, 2).float() - self.get_buffer("mean")) / self.get_buffer("std")
        return self.network(images).half()


def export_encoder(path: Path, crop_size: int) -> bytes:
    """Return an encoder file as an ONNX network: ``crops`` uint8 RGB (N, S, S, 3) to ``features`` float16 (N, D).

    N is any number, unless the ONNX network of the file was exported for one. Raises CeflError without the packages that export.
    """
    if is_onnx(path):
        return _with_pixel_input(path)
    encoder = read_encoder_metadata(path)
    crops = torch.zeros(2, crop_size, crop_size, 3, dtype=torch.uint8)
    return export_module(PixelEncoder(encoder), {CROPS: crops}, {CROPS: {0: "batch"}}, [FEATURES])


def export_module(
    module: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]], outputs: Sequence[str]
) -> bytes:
    """Return a module as an ONNX network; ``axes`` names the axes of each input whose length is free. Raises CeflError."""
    _require_onnx()
    dimensions = {name: torch.export.Dim(name) for free in axes.values() for name in free.values()}
    shapes = tuple({axis: dimensions[name] for axis, name in axes[key].items()} for key in inputs)
    try:
        program: Any = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, dynamic_shapes=shapes, verbose=False,
            opset_version=OPSET, input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
    except ImportError:
        raise CeflError(MISSING) from None
    except (torch.onnx.OnnxExporterError, RuntimeError, AssertionError, ValueError) as error:
        raise CeflError(
            f"export: torch cannot export {type(module).__name__} ({first_line(error)[:160]}); try another version of torch or "
            'onnxscript: pip install -U "ceflpipe[export]"'
        ) from None
    return program.model_proto.SerializeToString()


def add_metadata(network: bytes, entries: Mapping[str, Any]) -> bytes:
    """Return an ONNX network with entries in its ``metadata_props``: texts as they are, other values as JSON.

    The card of an encoder file goes: the network takes other inputs now.
    """
    onnx = _require_onnx()
    model = onnx.load_from_string(network)
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith(PREFIX)]
    del model.metadata_props[:]
    texts = {
        f"{PREFIX}{key}": value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        for key, value in entries.items()
    }
    for key, value in [*kept, *sorted(texts.items())]:
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)


def read_metadata(path: Path) -> dict[str, str]:
    """Return what ``add_metadata`` wrote into a file, by key, without the prefix."""
    model = _require_onnx().load(str(path))
    return {e.key.removeprefix(PREFIX): e.value for e in model.metadata_props if e.key.startswith(PREFIX)}


def _require_onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise CeflError(MISSING) from None
    return onnx


def _with_pixel_input(path: Path) -> bytes:
    """Return the network of an ONNX encoder file with what ``OnnxCard`` says must be done before and after it in the graph."""
    onnx = _require_onnx()
    from .onnx_network import read_network

    card, content, _ = read_network(path)
    from onnx.compose import add_prefix

    # the graph may have tensors of any name, also those of our inputs and outputs
    model = add_prefix(onnx.load_from_string(content), INNER)
    graph = model.graph
    image = next(value for value in graph.input if value.name == INNER + card.input_name)
    batch = image.type.tensor_type.shape.dim[0]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes = _Nodes(onnx)
    before = nodes.add("Cast", CROPS, to=onnx.TensorProto.FLOAT)
    before = nodes.add("Sub", before, nodes.constant(np.array(card.mean, np.float32) * 255))
    before = nodes.add("Div", before, nodes.constant(np.array(card.std, np.float32) * 255))
    if card.color_order == "bgr":
        before = nodes.add("Gather", before, nodes.constant(np.array([2, 1, 0])), axis=3)
    if card.layout == "NCHW":
        before = nodes.add("Transpose", before, perm=[0, 3, 1, 2])
    nodes.add("Cast", before, output=INNER + card.input_name, to=image.type.tensor_type.elem_type)
    first = list(nodes.nodes)
    nodes.nodes.clear()
    nodes.add("Cast", _pooled(nodes, card, opset), output=FEATURES, to=onnx.TensorProto.FLOAT16)
    whole = [*first, *graph.node, *nodes.nodes]
    del graph.node[:]
    graph.node.extend(whole)
    graph.initializer.extend(nodes.constants)
    size = card.crop_size
    length = batch.dim_value or batch.dim_param or "batch"
    graph.input.remove(image)
    graph.input.append(onnx.helper.make_tensor_value_info(CROPS, onnx.TensorProto.UINT8, [length, size, size, 3]))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT16, [length, card.width]))
    encoded = model.SerializeToString()
    if len(encoded) > MAX_FILE_BYTES:
        raise CeflError(f"{path}: too large to be written as one file; use the features of its cache")
    return encoded


def _pooled(nodes: _Nodes, card: OnnxCard, opset: int) -> str:
    """Add what OnnxCard.pool_output does, and return the name of the features (N, D)."""
    output = nodes.add("Cast", INNER + card.output_name, to=1)
    if card.pool == "cls":
        output = nodes.add("Gather", output, nodes.constant(np.array(0)), axis=1)
    elif card.pool == "mean" and opset >= 18:
        output = nodes.add("ReduceMean", output, nodes.constant(np.array([1])), keepdims=0)
    elif card.pool == "mean":
        output = nodes.add("ReduceMean", output, axes=[1], keepdims=0)
    return nodes.add("Reshape", output, nodes.constant(np.array([-1, card.width])))


class _Nodes:
    """Nodes and constants to add to a graph, under names that the graph does not have."""

    def __init__(self, onnx: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._onnx, self._count = onnx, 0

    def _name(self) -> str:
        self._count += 1
        return f"{PREFIX}{self._count}"

    def constant(self, array: np.ndarray) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(array, self._name()))
        return self.constants[-1].name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or self._name()
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name
