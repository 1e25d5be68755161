"""Checks of an ONNX network before anything runs it, its outputs, and the part of it that an encoder needs.

All of this reads the protobuf only: a file from a stranger's hands must not reach ONNX Runtime with tensors that it does not
hold, files outside its folder, operators of a library, or intermediate results of terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError, first_line, shorten_list

try:
    import onnx
    from google.protobuf.message import DecodeError, EncodeError
    from onnx import (
        AttributeProto,
        GraphProto,
        ModelProto,
        NodeProto,
        TensorProto,
        ValueInfoProto,
        helper,
        numpy_helper,
    )
except ImportError as error:
    raise CeflError(
        f'ONNX encoders are checked with the package onnx, which cannot be imported ({error}); pip install "ceflpipe[onnx]", '
        "for timm: or hub: ceflpipe[timm] or ceflpipe[hub]"
    ) from None
from .onnx_card import MAX_FILE_BYTES, format_shape

ALLOWED_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of operators that ONNX Runtime has itself."""
REFUSED_OPERATORS = {
    "Loop": "an encoder has no loops",
    "Scan": "an encoder has no loops",
    "SequenceMap": "an encoder has no loops",
    "EPContext": "it reads another file",
}
MAX_TENSOR_BYTES = 2 << 30
"""Largest intermediate result of a batch of crops."""
MAX_NODES = 200_000
_SYMBOLIC_BATCH = "N"
_SMALL = 1024  # elements of a tensor whose values may decide shapes
_FLOATS: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
_ITEM_BYTES: dict[int, int] = {
    TensorProto.DOUBLE: 8, TensorProto.INT64: 8, TensorProto.UINT64: 8, TensorProto.COMPLEX64: 8, TensorProto.FLOAT: 4,
    TensorProto.INT32: 4, TensorProto.UINT32: 4, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2, TensorProto.INT16: 2,
    TensorProto.UINT16: 2, TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.BOOL: 1,
}  # fmt: skip
"""Bytes of an element; others (COMPLEX128, 8- and 4-bit types) are refused."""

Shape = tuple["int | None", ...] | None


@dataclass(frozen=True)
class GraphInput:
    """The image input of a graph: its name, its type as a number of TensorProto, and its axes, None if any length fits."""

    name: str
    elem_type: int
    shape: tuple[int | None, ...]


def parse_graph(content: bytes, source: str) -> ModelProto:
    """Return the model in the bytes of a file, after all checks that need no shapes.

    Raises CeflError, which names ``source``, for anything but a network of known operators that holds its own weights.
    External data must have been read in before, see ``embed_external_data``.
    """
    model = _parse(content, source)
    external = [tensor.name for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]
    if external:
        raise CeflError(
            f"{source}: refers to other files for {shorten_list(external)}; an encoder is one file, so make it one with "
            "ceflpipe encoder onnx:FILE"
        )
    _check_operators(model, source)
    for tensor in tensors_of(model):
        _check_tensor(tensor, source)
    return model


def parse_untrusted(path: Path, *, allow_external_data: bool = True) -> ModelProto:
    """Return the model of a file after all checks that need no shapes, with its external data read in.

    Raises CeflError as ``parse_graph``, and if its external data are not inside its own folder, or not allowed.
    """
    model = _parse(_read(path), str(path))
    if not allow_external_data and any(t.data_location == TensorProto.EXTERNAL for t in tensors_of(model)):
        raise CeflError(
            f"{path}: keeps weights in other files, which DVC does not watch; put all of them into a folder and give "
            "that as the path"
        )
    embed_external_data(model, path)
    _check_operators(model, str(path))
    for tensor in tensors_of(model):
        _check_tensor(tensor, str(path))
    return model


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise CeflError(f"{path}: no such file; pass the path of an .onnx file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CeflError(
            f"{path}: {size:,} bytes; an ONNX file has at most {MAX_FILE_BYTES:,}, so export it in half precision"
        )
    return path.read_bytes()


def _parse(content: bytes, source: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise CeflError(f"{source}: not a whole ONNX file; copy or export it again") from None
    if not model.graph.node or not model.opset_import:
        raise CeflError(f"{source}: not an ONNX network, it has no operators; pass one exported with torch.onnx.export")
    return model


# ---- checks without shapes


def graphs_of(model: ModelProto) -> Iterator[GraphProto]:
    """Yield the graph and all graphs within it."""
    waiting = [model.graph, *(graph for function in model.functions for graph in _subgraphs(function.node))]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += _subgraphs(graph.node)


def _subgraphs(nodes: Iterable[NodeProto]) -> list[GraphProto]:
    attributes = [attribute for node in nodes for attribute in node.attribute]
    graphs = [attribute.g for attribute in attributes if attribute.type == AttributeProto.GRAPH]
    return graphs + [graph for attribute in attributes for graph in attribute.graphs]


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Yield all operators, also of graphs within graphs and of functions."""
    for graph in graphs_of(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield all tensors that a file holds: weights and constants."""
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                if sparse.ByteSize():
                    yield from (sparse.values, sparse.indices)


def _check_operators(model: ModelProto, source: str) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    count = 0
    for node in nodes_of(model):
        count += 1
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in ALLOWED_DOMAINS:
            raise CeflError(
                f"{source}: operator {node.domain}.{node.op_type} needs a library of custom operators, which is never loaded; "
                "export the network with standard operators only"
            )
        if node.op_type in REFUSED_OPERATORS:
            raise CeflError(
                f"{source}: operator {node.op_type}: {REFUSED_OPERATORS[node.op_type]}; export the network without it"
            )
    if count > MAX_NODES:
        raise CeflError(f"{source}: {count:,} operators, more than {MAX_NODES:,}; pass another network")


def _check_tensor(tensor: TensorProto, source: str) -> None:
    """Raise CeflError unless a tensor holds exactly the bytes that its shape claims."""
    name = tensor.name or "of a constant"
    if tensor.data_type == TensorProto.STRING:
        claimed, held = math.prod(tensor.dims), len(tensor.string_data)
    elif tensor.data_type in _ITEM_BYTES:
        claimed, held = tensor_bytes(tensor), _held_bytes(tensor)
    else:
        raise CeflError(
            f"{source}: tensor {name}: has a type that is not supported; export the network in fp32 or fp16"
        )
    if any(size < 0 for size in tensor.dims) or claimed != held:
        raise CeflError(
            f"{source}: tensor {name}: its shape {tuple(tensor.dims)} claims {claimed:,} bytes, the file holds {held:,}; the "
            "file is damaged, copy or export it again"
        )


def tensor_bytes(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's shape claims."""
    return math.prod(tensor.dims) * _ITEM_BYTES.get(tensor.data_type, 16)


def _held_bytes(tensor: TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    item = _ITEM_BYTES[tensor.data_type]
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    if tensor.data_type == TensorProto.COMPLEX64:
        item //= 2
    return sum(len(field) for field in fields) * item


def external_files(path: Path) -> list[str]:
    """Return the other files that a model keeps tensors in, relative to its own; raises CeflError if one leads elsewhere."""
    model = _parse(_read(path), str(path))
    names = set()
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((item.value for item in tensor.external_data if item.key == "location"), "")
            if not location or location.startswith("/") or "\\" in location or ".." in location.split("/"):
                raise CeflError(
                    f"{path}: tensor {tensor.name}: the location of its data, {location!r}, leads out of its folder; export "
                    "it again"
                )
            names.add(location)
    return sorted(names)


def embed_external_data(model: ModelProto, path: Path) -> None:
    """Read the tensors that a model keeps in other files into it.

    Raises CeflError for a file that is not in the folder of ``path`` or below it, by '..', an absolute path or a link, and for
    a part that is not in the file or not of the tensor's size.
    """
    external = [tensor for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]
    total = sum(map(tensor_bytes, external)) if all(min(t.dims, default=0) >= 0 for t in external) else -1
    if not 0 <= total + path.stat().st_size <= MAX_FILE_BYTES:
        raise CeflError(
            f"{path}: its tensors claim {total:,} bytes in other files, and an encoder of one file has at most "
            f"{MAX_FILE_BYTES:,}; export it in half precision"
        )
    for tensor in external:
        entry = {item.key: item.value for item in tensor.external_data}
        file, numbers = _external_file(path, tensor.name, entry.get("location", "")), []
        for key, default in (("offset", "0"), ("length", str(tensor_bytes(tensor)))):
            text = entry.get(key, default)
            if not (text.isascii() and text.isdecimal() and len(text) < 20):
                raise CeflError(
                    f"{path}: tensor {tensor.name}: {key} {text!r} of its data is no number; export it again"
                )
            numbers.append(int(text))
        offset, length = numbers
        size = file.stat().st_size
        if length != tensor_bytes(tensor) or offset + length > size:
            raise CeflError(
                f"{path}: tensor {tensor.name}: its shape {tuple(tensor.dims)} claims {tensor_bytes(tensor):,} bytes, its data "
                f"are bytes {offset:,} to {offset + length:,} of {file.name}, which has {size:,}; copy or export both again"
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")


def _external_file(path: Path, tensor: str, location: str) -> Path:
    folder = path.parent.resolve()
    problem = "is empty"
    if location and "\0" not in location:
        file = (folder / location).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
        problem = "leads out of its folder" if not file.is_relative_to(folder) else "is no file"
    raise CeflError(
        f"{path}: tensor {tensor}: the location of its data, {location!r}, {problem}; put all files of the network into one "
        "folder, or export it as one file"
    )


# ---- inputs, outputs, shapes


def image_input(model: ModelProto, input_name: str, source: str) -> GraphInput:
    """Return the input for the crops; raises CeflError if there is not one input of four axes of floating-point numbers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    listed = ", ".join(f"{value.name} {_describe(value)}" for value in inputs) or "none"
    if input_name and input_name not in {value.name for value in inputs}:
        raise CeflError(f"{source}: no input {input_name}; it has {listed}; pass one as --input-name")
    if len(inputs) != 1:
        raise CeflError(
            f"{source}: an encoder has one input, this network needs {len(inputs)}: {listed}; pass --output-name of a tensor "
            "that depends on the images only, or export the image part alone"
        )
    (value,) = inputs
    tensor = value.type.tensor_type
    shape = _declared_shape(value)
    if shape is None or len(shape) != 4 or tensor.elem_type not in _FLOATS:
        raise CeflError(
            f"{source}: input {value.name} is {_describe(value)}; an encoder takes images as floating-point numbers with four "
            "axes, so export it for them"
        )
    return GraphInput(value.name, tensor.elem_type, shape)


def _describe(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kinds = {number: name.lower() for name, number in TensorProto.DataType.items()}
    shape = _declared_shape(value)
    sizes = "?" if shape is None else ", ".join("?" if size is None else str(size) for size in shape)
    return f"{kinds.get(tensor.elem_type, 'unknown')} ({sizes})"


def _declared_shape(value: ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def normalizes_pixels(model: ModelProto) -> bool:
    """Return whether a network subtracts a mean from pixels and scales them itself.

    As insightface's model_zoo/arcface_onnx.py looks for it, by the names of the first nodes, and by their operators.
    """
    names = [node.name for node in model.graph.node[:8]]
    kinds = [node.op_type for node in model.graph.node[:2]]
    by_name = all(any(name.startswith(starts) for name in names) for starts in (("Sub", "_minus"), ("Mul", "_mul")))
    return by_name or kinds in (["Sub", "Mul"], ["Sub", "Div"])


def infer_shapes(model: ModelProto, image: GraphInput, shape: tuple[int, ...], source: str) -> dict[str, Shape]:
    """Return the shapes of all tensors of the graph for images of ``shape``, as far as ONNX can tell without running it.

    The first axis is that of the crops. Raises CeflError if the graph contradicts itself, or if a tensor would have more than
    MAX_TENSOR_BYTES.
    """
    outline = ModelProto()
    outline.ir_version = model.ir_version
    outline.opset_import.extend(model.opset_import)
    outline.functions.extend(model.functions)
    graph = outline.graph
    graph.name = "outline"
    graph.node.extend(model.graph.node)
    is_dynamic = image.shape[0] is None
    graph.input.append(
        helper.make_tensor_value_info(
            image.name, image.elem_type, [_SYMBOLIC_BATCH if is_dynamic else shape[0], *shape[1:]]
        )
    )
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:  # its shape is enough
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for output in model.graph.output:
        graph.output.append(helper.make_empty_tensor_value_info(output.name))
    try:
        inferred = onnx.shape_inference.infer_shapes(outline, data_prop=True).graph
    except (
        onnx.shape_inference.InferenceError,
        DecodeError,
        EncodeError,
        ValueError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise CeflError(
            f"{source}: its shapes do not fit together for images {shape[1:]}: {first_line(error)}; check --crop-size and "
            "--layout, or export the network again"
        ) from None
    shapes: dict[str, Shape] = {}
    for value in [*inferred.value_info, *inferred.output]:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            shapes.setdefault(value.name, None)
            continue
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") else shape[0] if dim.dim_param == _SYMBOLIC_BATCH else None
            for dim in tensor.shape.dim
        )
        known = [size for size in dims if size is not None]
        size = math.prod(known) * _ITEM_BYTES.get(tensor.elem_type, 4)
        if any(number < 0 for number in known) or size > MAX_TENSOR_BYTES:
            raise CeflError(
                f"{source}: tensor {value.name} would have the shape {dims} and {size:,} bytes for a batch of {shape[0]} crops, "
                f"more than {MAX_TENSOR_BYTES:,}; use a smaller --crop-size, or another network"
            )
        shapes[value.name] = dims
    return shapes


def tensor_names(model: ModelProto) -> list[str]:
    """Return the names of all tensors that the graph computes, in its order."""
    return [name for node in model.graph.node for name in node.output if name]


def feature_tensors(model: ModelProto, shapes: dict[str, Shape]) -> dict[str, Shape]:
    """Return the tensors of the graph that look like features of a crop, (N, D) or (N, D, 1, 1), in its order."""
    features = {}
    for name in tensor_names(model):
        shape = shapes.get(name)
        if shape and (len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))) and (shape[1] or 0) > 1:
            features[name] = shape
    return features


def describe_tensors(tensors: dict[str, Shape]) -> str:
    """Return names and shapes in words."""
    return ", ".join(f"{name} {format_shape(shape)}" for name, shape in tensors.items()) or "none"


def keep_output(model: ModelProto, output_name: str) -> None:
    """Cut off everything that an output does not depend on, also inputs."""
    graph = model.graph
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    required, visited, waiting = set(), set(), [output_name]
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        index = producer.get(name)
        if index is not None and index not in required:
            required.add(index)
            node = graph.node[index]
            waiting += [*node.input, *_outer_names(node)]
    for field, kept in (
        (graph.node, [index in required for index in range(len(graph.node))]),
        (graph.initializer, [tensor.name in visited for tensor in graph.initializer]),
        (graph.sparse_initializer, [tensor.values.name in visited for tensor in graph.sparse_initializer]),
        (graph.input, [value.name in visited for value in graph.input]),
        (graph.output, [value.name == output_name for value in graph.output]),
        (graph.value_info, [False] * len(graph.value_info)),
    ):
        for index in reversed([index for index, is_kept in enumerate(kept) if not is_kept]):
            del field[index]
    if not graph.output:
        graph.output.append(helper.make_empty_tensor_value_info(output_name))


def _outer_names(node: NodeProto) -> list[str]:
    """Return the names that graphs within a node may take from outside."""
    names, waiting = [], _subgraphs([node])
    while waiting:
        graph = waiting.pop()
        names += [name for inner in graph.node for name in inner.input] + [value.name for value in graph.output]
        waiting += _subgraphs(graph.node)
    return names


def graph_precision(model: ModelProto) -> str:
    """Return fp16 if most numbers of the weights are, else fp32."""
    sizes: dict[int, int] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in tensors_of(model):
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT] else "fp32"


def widen_fp16(model: ModelProto) -> bytes:
    """Return the file of a network in which every number of fp16, weights and results, is one of fp32; it changes ``model``."""
    for tensor in tensors_of(model):
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for graph in graphs_of(model):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    return model.SerializeToString()


def with_entries(model: ModelProto, entries: dict[str, str], prefix: str, source: str) -> bytes:
    """Return the bytes of the file of a model with ``metadata_props`` whose keys begin with ``prefix`` replaced by these."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith(prefix)]
    del model.metadata_props[:]
    for key, value in [*kept, *sorted(entries.items())]:
        model.metadata_props.add(key=key, value=value)
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise CeflError(
            f"{source}: cannot be written as one file ({first_line(error)}); export it in half precision"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise CeflError(
            f"{source}: {len(content):,} bytes as one file, at most {MAX_FILE_BYTES:,}; export it in half precision"
        )
    return content
