"""An ONNX encoder file on ONNX Runtime: crops to features, and the checks of a new file by forward passes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ...cache.errors import CeflError, first_line
from ..onnx_session import SESSION_ERRORS, build_session, is_out_of_memory, out_of_memory
from .onnx_card import OnnxCard, parse_card

PROBE_BYTES = 8 << 30
"""Memory that the checks of a new file may take, besides four times its own size."""
MIN_COSINE = 0.999
"""Of the features of a crop in two batches: below it the network mixes the crops of a batch."""


def read_network(path: Path) -> tuple[OnnxCard, bytes, str]:
    """Return the card of an ONNX encoder file, its bytes and their hash, after all checks that need no forward pass.

    Raises CeflError if the file is damaged, hostile, or not an encoder file.
    """
    from .onnx_graph import (
        image_input,
        infer_shapes,
        parse_graph,
    )  # here: it needs the extra onnx, other encoders do not

    if not path.is_file():
        raise CeflError(f"{path}: no such encoder file; make it with ceflpipe encoder onnx:FILE")
    content = path.read_bytes()
    model = parse_graph(content, str(path))
    card = parse_card({entry.key: entry.value for entry in model.metadata_props}, str(path))
    image = image_input(model, card.input_name, str(path))
    infer_shapes(model, image, input_shape(card), str(path))
    return card, content, hashlib.sha256(content).hexdigest()


def input_shape(card: OnnxCard) -> tuple[int, int, int, int]:
    """Return the shape of a batch of crops, in the layout of the network."""
    size = card.crop_size
    return (card.batch_size, 3, size, size) if card.layout == "NCHW" else (card.batch_size, size, size, 3)


class OnnxNetwork:
    """The network of an ONNX encoder file, for batches of exactly ``card.batch_size`` crops.

    ``threads`` of the processor, 0 for one per core; ``device``: cpu, cuda or cuda:1; ``in_fp32``: compute all numbers of fp16 in
    fp32. Raises CeflError as ``read_network``, and if ONNX Runtime cannot load the network.
    """

    def __init__(self, path: Path, threads: int = 0, device: str = "cpu", *, in_fp32: bool = False) -> None:
        self.path, self._device = path, device
        self.card, content, self.sha256 = read_network(path)
        if in_fp32:
            from .onnx_graph import parse_graph, widen_fp16

            content = widen_fp16(parse_graph(content, str(path)))
        try:
            self._session = build_session(content, threads, device)
        except SESSION_ERRORS as error:
            raise CeflError(
                f"{path}: ONNX Runtime cannot load it: {_reason(error)}; export the network again"
            ) from None
        (value,) = self._session.get_inputs()
        self._dtype = np.float16 if value.type == "tensor(float16)" else np.float32

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Return the float32 features (N, D) of ``card.batch_size`` uint8 RGB crops (N, S, S, 3).

        Raises CeflError if the network cannot compute them, or they have another shape.
        """
        images = self.card.normalize(crops, self._dtype)
        try:
            (output,) = self._session.run([self.card.output_name], {self.card.input_name: images})
        except SESSION_ERRORS as error:
            if is_out_of_memory(error) and self._device != "cpu":
                raise out_of_memory(self._device) from None
            raise CeflError(
                f"{self.path}: cannot compute {images.shape}: {_reason(error)}; export the network again"
            ) from None
        try:
            features = self.card.pool_output(np.asarray(output))
        except CeflError as error:
            raise CeflError(f"{self.path}: {error}") from None
        if len(features) != len(crops):
            raise CeflError(
                f"{self.path}: output {self.card.output_name} has {len(features)} rows for {len(crops)} crops; export the "
                "network with one row per image"
            )
        return features


def _reason(error: BaseException) -> str:
    """Return the first line of an error of ONNX Runtime, without the position in its code."""
    return first_line(error).removeprefix("[ONNXRuntimeError] : ")[:300]


@dataclass(frozen=True)
class Probe:
    """What forward passes showed: ``width`` D; ``problem`` in words, '' if there is none.

    ``same_alone``: a crop has the same bytes alone, in a batch, and wherever it is in it.
    """

    width: int = 0
    same_alone: bool = True
    problem: str = ""


def probe_network(path: Path) -> Probe:
    """Run an encoder file on test images and return what is to be known, or what is wrong with it. Never raises CeflError."""
    try:
        with limited_memory(PROBE_BYTES + 4 * path.stat().st_size):
            network = OnnxNetwork(path)
            return _probe(network)
    except CeflError as error:
        return Probe(problem=str(error))
    except MemoryError:
        return Probe(problem=f"{path}: takes more than {PROBE_BYTES >> 30} GiB of memory; use a smaller --crop-size")


def _probe(network: OnnxNetwork) -> Probe:
    size, count = network.card.crop_size, network.card.batch_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, size, size, 3), np.uint8)
    images[1] = 0
    images[2] = np.linspace(0, 255, size, dtype=np.uint8)[:, None, None]
    black = np.zeros((count, size, size, 3), np.uint8)
    rows: list[np.ndarray] = []  # of each image: the first of its batch, and in the middle and at the end of a full one
    for image in images:
        batch = black.copy()
        batch[0] = image
        rows.append(network(batch)[0])
    for row in rows:
        if not (np.abs(row) <= np.finfo(np.float16).max).all():  # also not if it is NaN
            reason = "NaN or Inf" if not np.isfinite(row).all() else "numbers above 65504, the largest of 16 bits"
            return Probe(
                problem=f"{network.path}: output {network.card.output_name} has {reason}; pass another --output-name"
            )
    if all(np.array_equal(rows[0], row) for row in rows[1:]):
        return Probe(
            problem=f"{network.path}: output {network.card.output_name} is the same for all images; pass another --output-name"
        )
    full = rng.integers(0, 256, black.shape, np.uint8)
    same = True
    for position in sorted({0, count // 2, count - 1}):
        batch = full.copy()
        batch[position] = images[0]
        row = network(batch)[position]
        same &= np.array_equal(row.astype(np.float16), rows[0].astype(np.float16))
        norms = np.linalg.norm(row) * np.linalg.norm(rows[0])
        if norms == 0 or row @ rows[0] / norms < MIN_COSINE:
            return Probe(
                problem=f"{network.path}: features of a crop depend on the other crops of its batch, or on chance; export the "
                "network in eval mode"
            )
    return Probe(width=len(rows[0]), same_alone=bool(same))


@contextmanager
def limited_memory(size: int) -> Iterator[None]:
    """Let this process take at most ``size`` bytes more, where the system can limit that."""
    try:
        import resource
    except ImportError:  # not on Windows
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + size
    for bound in (soft, hard):
        limit = limit if bound == resource.RLIM_INFINITY else min(limit, bound)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ValueError, OSError):  # macOS
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
