"""Parameters and multiply-accumulates of encoders and heads: tables 8 and 9."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..encoder.weights import resnet18_backbone
from ..heads.layers import BatchedDropout
from ..heads.registry import build_head

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
FC6_INPUT = 8192  # 512 channels of 1 x 4 x 4: what is left of 16 frames of 112 x 112
SPORTS_1M = 487
LSTM_CELLS = 256


class Convolutions(nn.Sequential):
    """conv1a to pool5 of C3D: (B, 3, T, H, W) -> (B, 512, T/16, H/32, W/32)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        before = 3
        for stage, widths in enumerate(WIDTHS):
            for width in widths:
                layers += [nn.Conv3d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            first, last = stage == 0, stage == len(WIDTHS) - 1
            # the first pooling leaves time alone; the last is padded so that 7 x 7 becomes 4 x 4
            layers.append(nn.MaxPool3d((1, 2, 2) if first else 2, padding=(0, 1, 1) if last else 0))
        super().__init__(*layers)


class C3D(nn.Module):
    """C3D with its classifier; counts for larger inputs use ``Convolutions`` alone, where the cost is."""

    def __init__(self, classes: int = SPORTS_1M) -> None:
        super().__init__()
        self.convolutions = Convolutions()
        self.fc6, self.fc7, self.fc8 = nn.Linear(FC6_INPUT, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)

    def forward(self, video: Tensor) -> Tensor:
        x = self.convolutions(video).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


class C3DLSTM(nn.Module):
    """C3D up to fc6 on every 16 frames, an LSTM over them, a classifier: (B, S, 3, 16, 112, 112) -> (B, C)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions, self.fc6 = Convolutions(), nn.Linear(FC6_INPUT, 4096)
        self.lstm, self.classify = nn.LSTM(4096, LSTM_CELLS, batch_first=True), nn.Linear(LSTM_CELLS, classes)

    def forward(self, segments: Tensor) -> Tensor:
        features = torch.relu(self.fc6(self.convolutions(segments.flatten(0, 1)).flatten(1)))
        return self.classify(self.lstm(features.unflatten(0, segments.shape[:2]))[1][0][0])


SIDE = 224
WIDTH = 512


@dataclass(frozen=True)
class ModelCost:
    """Parameters and MACs per video (not in millions) of an encoder and a head."""

    encoder_parameters: int
    head_parameters: int
    encoder_macs: int
    head_macs: int

    @property
    def parameters(self) -> int:
        return self.encoder_parameters + self.head_parameters

    @property
    def macs(self) -> int:
        return self.encoder_macs + self.head_macs


def ceflnet_cost(head: str = "cefl", clips: int = 7, frames: int = 5, classes: int = 6, side: int = SIDE) -> ModelCost:
    """Count CEFLNet as the paper does: the encoder runs once for each of the n x k drawn frames.

    With cached features a video's frames are encoded once, however many clips and epochs draw them.
    """
    with torch.device("meta"):
        encoder, top = resnet18_backbone().eval(), build_head(head, 1, WIDTH, classes).eval()
        one_frame = count_macs(encoder, torch.empty(1, 3, side, side))
        head_macs = count_macs(top, torch.empty(1, 1, clips, frames, WIDTH), BatchedDropout(None))
    return ModelCost(count_parameters(encoder), count_parameters(top), clips * frames * one_frame, head_macs)


def c3d_cost() -> tuple[int, int]:
    """Return C3D's parameters, and its MACs on the 35 frames of 224 x 224 that CEFLNet looks at.

    The paper does not say what its C3D was fed. 35 frames of 224 x 224 through the convolutions come within 0.5 % of its
    figure; the published 16 frames of 112 x 112 are 38.5 G. fc6 is defined for the latter size only, so the fully
    connected layers are counted once, at their own size.
    """
    with torch.device("meta"):
        network = C3D().eval()
        convolutions = count_macs(network.convolutions, torch.empty(1, 3, 35, SIDE, SIDE))
        connected = sum(layer.weight.numel() for layer in (network.fc6, network.fc7, network.fc8))
    return count_parameters(network), convolutions + connected


def c3d_published_cost() -> tuple[int, int]:
    """Return C3D's parameters and MACs on one segment of 16 frames of 112 x 112."""
    with torch.device("meta"):
        network = C3D().eval()
        return count_parameters(network), count_macs(network, torch.empty(1, 3, 16, 112, 112))


def c3d_lstm_cost(classes: int = 6, frames: int = 105) -> tuple[int, int]:
    """Return C3D-LSTM's parameters and MACs on all whole 16-frame segments of a 105-frame video at 112 x 112."""
    with torch.device("meta"):
        network = C3DLSTM(classes).eval()
        segments = frames // 16
        per_segment = count_macs(network.convolutions, torch.empty(1, 3, 16, 112, 112)) + network.fc6.weight.numel()
        lstm = sum(p.numel() for name, p in network.lstm.named_parameters() if name.startswith("weight"))
    return count_parameters(network), segments * (per_segment + lstm) + network.classify.weight.numel()


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, *inputs: Tensor | BatchedDropout) -> int:
    """Count the MACs of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2
