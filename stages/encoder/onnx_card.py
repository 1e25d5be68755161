"""Card of an ONNX encoder file: what an ONNX network has to be fed with, and where it comes from, kept inside the file.

A field is an entry of the model's ``metadata_props``, with the prefix ``ceflpipe.``, so that viewers show it. It is read
without parsing the graph.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from pydantic import Field, ValidationError

from ...cache.errors import CeflError
from ..strict_model import StrictModel

PREFIX = "ceflpipe."
MAX_FILE_BYTES = 2**31 - 1
"""Largest ONNX file; protobuf has no larger messages."""
MAX_WIDTH = 1 << 16
MAX_BATCH_SIZE = 32
"""Crops of a forward pass, for crops of up to 224 pixels; larger ones are fewer, see batch_size_for."""
_GRAPH, _METADATA = 7, 14  # numbers of the fields of ONNX's ModelProto
_MAX_METADATA_BYTES = 1 << 20
_MAX_FIELDS = 1 << 16
_JSON_FIELDS = {"crop_size", "mean", "std", "width", "batch_size", "notes"}
"""Of the card; the others are text."""

Channel = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OnnxOptions(StrictModel, frozen=True):
    """What the graph of an ONNX network cannot say, or leaves open: options of the command line, or a JSON file beside it.

    ``None`` and '' are read from the graph where that is possible.
    """

    input_name: str = ""
    layout: Literal["NCHW", "NHWC"] | None = None
    """Axes of its input: channels first or last."""
    color_order: Literal["rgb", "bgr"] | None = None
    crop_size: int | None = Field(default=None, ge=32, le=1024)
    """Side of the crops in pixels."""
    mean: tuple[Channel, Channel, Channel] | None = None
    """Of pixels in 0..1, in the order red, green, blue."""
    std: tuple[Deviation, Deviation, Deviation] | None = None
    template: Literal["arcface"] | None = None
    """To which the landmarks are aligned."""
    output_name: str = ""
    """Any tensor of the graph; what comes after it is cut off."""
    pool: Literal["none", "cls", "mean"] | None = None
    """Of an output (N, T, D): the first token, or the mean of all."""
    license: str = ""
    score: str = ""
    """Held-out accuracy, in words."""


class NetworkConfig(OnnxOptions, frozen=True):
    """An encoder that is made of a network: ``networks:`` of configs/encoder.yaml, and what DVC compares."""

    source: Literal["onnx", "timm", "hub"] = "onnx"
    path: str = ""
    """Of onnx: an .onnx file, or a folder with one, its data and its card. Of timm: a checkpoint; of hub: a copy of the file; ''
    downloads them."""
    name: str = ""
    """Of timm: the architecture, with the tag of its weights; of hub: OWNER/NAME."""
    revision: str = ""
    """Of hub: a commit, branch or tag."""
    file: str = ""
    """Of hub: the .onnx file in the repository."""

    def onnx_options(self) -> OnnxOptions:
        return OnnxOptions(**{key: getattr(self, key) for key in OnnxOptions.model_fields})


class OnnxCard(StrictModel, frozen=True):
    """Everything that is to be known of an ONNX encoder file; fields as in OnnxOptions."""

    name: str
    input_name: str
    layout: Literal["NCHW", "NHWC"]
    color_order: Literal["rgb", "bgr"]
    crop_size: int = Field(ge=32, le=1024)
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Deviation, Deviation, Deviation]
    template: Literal["arcface"]
    output_name: str
    pool: Literal["none", "cls", "mean"]
    width: int = Field(ge=1, le=MAX_WIDTH)
    """Numbers D of a crop."""
    batch_size: int = Field(ge=1, le=MAX_BATCH_SIZE)
    """Crops of a forward pass."""
    precision: Literal["fp32", "fp16"]
    """Of the weights and the arithmetic."""
    source: str = ""
    source_sha256: str = ""
    license: str = ""
    held_out_score: str = ""
    notes: dict[str, str] = Field(default_factory=dict)
    """What else is known of its source, by key."""

    def to_entries(self) -> dict[str, str]:
        """Return the entries of ``metadata_props``, by key: text as it is, other values as JSON."""
        values = self.model_dump(mode="json")
        return {
            f"{PREFIX}{key}": v if isinstance(v, str) else json.dumps(v, sort_keys=True) for key, v in values.items()
        }

    def metadata(self) -> dict[str, str]:
        """Return where the network comes from, as in EncoderFile."""
        facts = {"source": self.source, "source_sha256": self.source_sha256, "license": self.license}
        facts |= {"held_out_score": self.held_out_score, **self.notes}
        return {key: value for key, value in facts.items() if value}

    def normalize(self, crops: np.ndarray, dtype: np.dtype[Any] | type) -> np.ndarray:
        """Return uint8 RGB crops (N, S, S, 3) as the input of the network, in its layout and order of colors."""
        images = (crops - np.array(self.mean, np.float32) * 255) / (np.array(self.std, np.float32) * 255)
        if self.color_order == "bgr":
            images = images[..., ::-1]
        if self.layout == "NCHW":
            images = images.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(images, dtype)

    def pool_output(self, output: np.ndarray) -> np.ndarray:
        """Return the output (N, D), (N, D, 1, 1) or, with ``pool``, (N, T, D) as float32 features (N, D).

        Raises CeflError if it has another shape.
        """
        shape = output.shape
        if output.ndim == 3 and self.pool != "none" and shape[1]:
            output = output[:, 0] if self.pool == "cls" else output.astype(np.float32).mean(axis=1)
        elif output.ndim == 4 and shape[2:] == (1, 1):
            output = output[:, :, 0, 0]
        if output.ndim != 2 or output.shape[1] > MAX_WIDTH:
            hint = "pass --pool cls or --pool mean" if len(shape) == 3 else "pass --output-name of a tensor (N, D)"
            raise CeflError(f"output {self.output_name}: has the shape {format_shape(shape)}, not (N, D); {hint}")
        return output.astype(np.float32)


def format_shape(shape: tuple[Any, ...] | None) -> str:
    """Return a shape in words, e.g. (N, 512); the first axis is that of the crops.

    >>> format_shape((32, 512)), format_shape((None, None, 8)), format_shape(None)
    ('(N, 512)', '(N, ?, 8)', '(unknown)')
    """
    if shape is None:
        return "(unknown)"
    return f"({', '.join(['N', *('?' if size is None else str(size) for size in shape[1:])][: len(shape)])})"


def batch_size_for(crop_size: int) -> int:
    """Return the crops of a forward pass: as many pixels as MAX_BATCH_SIZE crops of 224 x 224, at most that many crops.

    >>> batch_size_for(112), batch_size_for(224), batch_size_for(518)
    (32, 32, 5)
    """
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_SIZE * 224**2 // crop_size**2))


def read_card(path: Path) -> OnnxCard:
    """Read the card of an ONNX encoder file; raises CeflError if the file is damaged, or has no card."""
    entries = read_entries(path)
    if not any(key.startswith(PREFIX) for key in entries):
        raise CeflError(
            f"{path}: an ONNX network without a card that says how to feed it; make an encoder of it with "
            f"ceflpipe encoder onnx:{path} --name NAME"
        )
    return parse_card(entries, str(path))


def parse_card(entries: Mapping[str, str], source: str) -> OnnxCard:
    """Return the card in the entries of ``metadata_props``; raises CeflError, which names ``source``, for a wrong one."""
    texts = {key.removeprefix(PREFIX): value for key, value in entries.items() if key.startswith(PREFIX)}
    values: dict[str, Any] = dict(texts)
    for key in _JSON_FIELDS & set(texts):
        with suppress(ValueError, RecursionError):  # what is not JSON is refused below, as it is
            values[key] = json.loads(texts[key])
    try:
        return OnnxCard.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise CeflError(
            f"{source}: its card is not valid ({key}: {problem['msg']}); make it again with ceflpipe encoder onnx:FILE"
        ) from None


def read_entries(path: Path) -> dict[str, str]:
    """Read the ``metadata_props`` of an ONNX file without its graph; raises CeflError if it is not a whole ONNX file."""
    if not path.is_file():
        raise CeflError(f"{path}: no such file; make an encoder of an ONNX network with ceflpipe encoder onnx:FILE")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CeflError(f"{path}: {size:,} bytes; an ONNX file has at most {MAX_FILE_BYTES:,}, so pass another one")
    entries: dict[str, str] = {}
    has_graph = False
    with path.open("rb") as stream:
        try:
            for number, length in _fields(stream, size):
                has_graph |= number == _GRAPH
                if number == _METADATA and length:
                    key, value = _read_entry(stream, length)
                    entries[key] = value
        except (ValueError, EOFError) as error:
            raise CeflError(f"{path}: not a whole ONNX file ({error}); copy or export it again") from None
    if not has_graph:
        raise CeflError(f"{path}: not an ONNX file, it has no graph; pass a network exported with torch.onnx.export")
    return entries


def _fields(stream: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yield (number, bytes) of each field of a protobuf message of ``size`` bytes, with the stream at its content.

    Fields that are no bytes have None of them. Raises ValueError or EOFError for anything else.
    """
    content = stream.seek(0, io.SEEK_CUR)
    end = content + size
    for _ in range(_MAX_FIELDS):
        if content >= end:
            return
        key = _varint(stream)
        number, kind = key >> 3, key & 7
        length = {0: 0, 1: 8, 5: 4}.get(kind)
        if kind == 0:
            _varint(stream)
        elif kind == 2:
            length = _varint(stream)
        if length is None or not number:
            raise ValueError(f"byte {content:,} begins no field")
        start = stream.seek(0, io.SEEK_CUR)
        if start + length > end:
            raise EOFError(f"field {number} has {length:,} bytes, of which {max(0, end - start):,} are there")
        yield number, length
        content = stream.seek(start + length)
    raise ValueError(f"more than {_MAX_FIELDS:,} fields")


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError("it ends within a number")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number of more than 64 bits")


def _read_entry(stream: BinaryIO, length: int) -> tuple[str, str]:
    """Read a key and its value, the fields 1 and 2 of a message of ``length`` bytes."""
    if length > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata of {length:,} bytes")
    texts = {1: "", 2: ""}
    for number, size in _fields(stream, length):
        if number in texts:
            texts[number] = stream.read(size).decode("utf-8", "replace")
    return texts[1], texts[2]
