"""Encoder of any ONNX network on ONNX Runtime, for CPUs and, with onnxruntime-gpu, NVIDIA GPUs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ..device import num_threads
from ..encoder.onnx_card import OnnxCard
from ..encoder.onnx_network import OnnxNetwork
from .encoder_base import Encoder, pad_batch


class OnnxEncoder(Encoder):
    """The network of an ONNX encoder file, in the precision of its weights. Batches are of the size that its card states.

    ``precision``: auto, or that of the file; ``in_fp32``: see OnnxNetwork. Raises CeflError for another precision, and as
    OnnxNetwork.
    """

    def __init__(self, weights: Path, device: str = "cpu", precision: str = "auto", *, in_fp32: bool = False) -> None:
        self._network = OnnxNetwork(weights, num_threads(), device, in_fp32=in_fp32)
        self._device = device
        self._fp32: OnnxEncoder | None = None
        card = self._network.card
        self.precision = "fp32" if in_fp32 else onnx_precision(precision, card.precision)
        self.batch_size, self.width, self.sha256 = card.batch_size, card.width, self._network.sha256
        self.device_type = device.partition(":")[0]
        self._lock = threading.Lock()

    def in_fp32(self) -> OnnxEncoder | None:
        """See Encoder; built once. Raises CeflError if the file has other content by now."""
        if self.precision == "fp16" and self._fp32 is None:
            self._fp32 = OnnxEncoder(self._network.path, self._device, in_fp32=True)
            if self._fp32.sha256 != self.sha256:
                raise CeflError(f"{self._network.path}: was replaced while it was used; run the same command again")
        return self._fp32

    def encode_async(self, crops: np.ndarray) -> Callable[[], np.ndarray]:
        """See Encoder."""
        check_crop_size(crops, self._network.card)
        with self._lock:
            features = self._network(pad_batch(crops, self.batch_size))
        features = to_features(features, self._network.card, self._network.path)[: len(crops)]
        return lambda: features


def check_crop_size(crops: np.ndarray, card: OnnxCard) -> None:
    """Raise CeflError unless the crops are of the size that the network takes."""
    if crops.shape[1] != card.crop_size:
        raise CeflError(
            f"--crop-size {crops.shape[1]}: the network of {card.name} takes crops of {card.crop_size} pixels; leave out "
            "the crop size"
        )


def to_features(output: np.ndarray, card: OnnxCard, path: Path) -> np.ndarray:
    """Return float32 features (N, D) as float16; raises CeflError if D is not that of the card."""
    if output.shape[1] != card.width:
        raise CeflError(
            f"{path}: has {output.shape[1]} numbers per crop, its card says {card.width}; make it again with "
            "ceflpipe encoder onnx:FILE"
        )
    with np.errstate(over="ignore"):  # Inf, which the caller reports
        return output.astype(np.float16)


def onnx_precision(precision: str, recorded: str) -> str:
    """Return the precision of an ONNX network on ONNX Runtime, ``recorded`` in its card; raises CeflError for another one."""
    if precision not in ("auto", recorded):
        raise CeflError(
            f"precision {precision}: onnxruntime computes in that of the network, {recorded}; use auto, or --backend openvino "
            "for bf16"
        )
    return recorded
