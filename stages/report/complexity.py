"""Parameters and multiply-accumulates (MACs) of encoders and heads: tables 8 and 9."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...cache.fingerprint import ExtractionSettings
from ..encoder.resnet18 import RESNET18_WIDTH
from ..encoder.weights import NORMALIZATIONS, resnet18_backbone
from ..heads.layers import BatchedDropout
from ..heads.registry import build_head

INPUT_SIZE = 224
"""Side of the encoder's input in pixels, as in the paper."""
C3D_CHANNELS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Output channels of the convolutions between two pooling layers."""
FC6_FEATURES = 8192
"""Inputs of fc6: 512 channels of 1 x 4 x 4, from 16 frames of 112 x 112."""
SPORTS_1M_CLASSES = 487
LSTM_CELLS = 256


@dataclass(frozen=True)
class ModelCost:
    """Parameters, and MACs per video, of an encoder and a head."""

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


def is_resnet18(settings: ExtractionSettings) -> bool:
    """Return whether features were made by a ResNet-18, by what their cache records of it."""
    is_backend = settings.backend in ("torch", "openvino")
    return is_backend and settings.width == RESNET18_WIDTH and settings.normalization in NORMALIZATIONS


def ceflnet_cost(
    head: str = "cefl", num_clips: int = 7, frames_per_clip: int = 5, num_classes: int = 6, input_size: int = INPUT_SIZE
) -> ModelCost:
    """Count as the paper does: the encoder runs once for each of the n x k sampled frames.

    With cached features a frame is encoded once, however many clips and epochs sample it.
    """
    with torch.device("meta"):
        encoder, network = resnet18_backbone().eval(), build_head(head, 1, RESNET18_WIDTH, num_classes).eval()
        macs_per_frame = count_macs(encoder, torch.empty(1, 3, input_size, input_size))
        features = torch.empty(1, 1, num_clips, frames_per_clip, RESNET18_WIDTH)
        head_macs = count_macs(network, features, BatchedDropout(None))
    encoder_macs = num_clips * frames_per_clip * macs_per_frame
    return ModelCost(count_parameters(encoder), count_parameters(network), encoder_macs, head_macs)


class C3DConvolutions(nn.Sequential):
    """conv1a to pool5 of C3D: (B, 3, T, H, W) -> (B, 512, T/16, H/32, W/32)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        in_channels = 3
        for stage, channels in enumerate(C3D_CHANNELS):
            for out_channels in channels:
                layers += [nn.Conv3d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
                in_channels = out_channels
            is_first, is_last = stage == 0, stage == len(C3D_CHANNELS) - 1
            # the first pooling keeps the frame rate; the last is padded so that 7 x 7 becomes 4 x 4
            layers.append(nn.MaxPool3d((1, 2, 2) if is_first else 2, padding=(0, 1, 1) if is_last else 0))
        super().__init__(*layers)


class C3D(nn.Module):
    """C3D with its classifier (Tran et al. 2015): (B, 3, 16, 112, 112) -> (B, classes)."""

    def __init__(self, num_classes: int = SPORTS_1M_CLASSES) -> None:
        super().__init__()
        self.convolutions = C3DConvolutions()
        self.fc6, self.fc7 = nn.Linear(FC6_FEATURES, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)

    def forward(self, video: Tensor) -> Tensor:
        x = self.convolutions(video).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


class C3DLSTM(nn.Module):
    """C3D up to fc6 on every segment of 16 frames, an LSTM over them, a classifier: (B, S, 3, 16, 112, 112) -> (B, C)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolutions, self.fc6 = C3DConvolutions(), nn.Linear(FC6_FEATURES, 4096)
        self.lstm, self.classifier = nn.LSTM(4096, LSTM_CELLS, batch_first=True), nn.Linear(LSTM_CELLS, num_classes)

    def forward(self, segments: Tensor) -> Tensor:
        features = torch.relu(self.fc6(self.convolutions(segments.flatten(0, 1)).flatten(1)))
        return self.classifier(self.lstm(features.unflatten(0, segments.shape[:2]))[1][0][0])


def c3d_cost() -> tuple[int, int]:
    """Return C3D's parameters, and its MACs on the 35 frames of 224 x 224 that CEFLNet gets.

    The paper does not give the input of its C3D. 35 frames of 224 x 224 through the convolutions are within 0.5 % of its
    number; 16 frames of 112 x 112, as published, are 38.5 G. fc6 exists for the latter size only, so the fully connected
    layers are counted once, at that size.
    """
    with torch.device("meta"):
        network = C3D().eval()
        convolution_macs = count_macs(network.convolutions, torch.empty(1, 3, 35, INPUT_SIZE, INPUT_SIZE))
        fc_macs = sum(layer.weight.numel() for layer in (network.fc6, network.fc7, network.fc8))
    return count_parameters(network), convolution_macs + fc_macs


def c3d_published_cost() -> tuple[int, int]:
    """Return C3D's parameters and its MACs on a segment of 16 frames of 112 x 112."""
    with torch.device("meta"):
        network = C3D().eval()
        return count_parameters(network), count_macs(network, torch.empty(1, 3, 16, 112, 112))


def c3d_lstm_cost(num_classes: int = 6, num_frames: int = 105) -> tuple[int, int]:
    """Return C3D-LSTM's parameters and its MACs on all full 16-frame segments of a video at 112 x 112."""
    with torch.device("meta"):
        network = C3DLSTM(num_classes).eval()
        segment_macs = count_macs(network.convolutions, torch.empty(1, 3, 16, 112, 112)) + network.fc6.weight.numel()
        lstm_macs = sum(p.numel() for name, p in network.lstm.named_parameters() if name.startswith("weight"))
    macs = num_frames // 16 * (segment_macs + lstm_macs) + network.classifier.weight.numel()
    return count_parameters(network), macs


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, *inputs: Tensor | BatchedDropout) -> int:
    """Count the MACs of a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2
