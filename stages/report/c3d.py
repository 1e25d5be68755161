"""The networks CEFLNet is compared with in table 8, to be counted and not trained.

C3D: Tran et al., ICCV 2015, figure 3: eight 3 x 3 x 3 convolutions, five poolings, fc6 and fc7 of 4096, here with the 487
classes of Sports-1M. C3D-LSTM: Parmar & Morris, CVPR workshops 2017: fc6 of C3D per 16 frames, an LSTM of 256 cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
