"""What does the paper report? Tables 2 to 9 of Liu et al. 2022, to stand beside what was measured here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A line of tables 2 to 5: a method, what it looks at, and its accuracy in percent."""

    name: str
    looks_at: str
    accuracy: float


@dataclass(frozen=True)
class Reported:
    """A data set of the paper: its table of accuracies, CEFLNet's deviation over folds and locating accuracy (table 7).

    All numbers are percent. ``peers`` holds the other methods in the paper's order, without CEFLNet itself.
    """

    title: str
    table: int
    protocol: str
    accuracy: float
    deviation: float
    locating: float
    peers: tuple[Peer, ...]


_FRAME, _PEAK, _SEQUENCE, _CLIP = "frames", "peak frames", "sequence", "clips"

REPORTED = {
    "bu3dfe": Reported(
        "BU-3DFE", 2, "10-fold", 85.33, 3.29, 55.83,
        (
            Peer("FERAtt+Rep+Cls", _FRAME, 82.11), Peer("FAN", _FRAME, 84.17), Peer("DeRL", _PEAK, 84.17),
            Peer("C3D", _SEQUENCE, 75.83), Peer("C3D-LSTM", _SEQUENCE, 79.17), Peer("ICNP", _SEQUENCE, 83.20),
        ),
    ),
    "mmi": Reported(
        "MMI", 3, "10-fold; the figures fit folds of 20 or 21 videos, not subject-wise ones", 91.00, 4.36, 67.57,
        (
            Peer("DeRL", _FRAME, 73.23), Peer("WMDCNN", _FRAME, 78.2), Peer("CER", _PEAK, 70.12),
            Peer("AUDN", _PEAK, 75.85),
            Peer("LPQ-TOP+SRC", _SEQUENCE, 64.11), Peer("LSTM", _SEQUENCE, 78.61), Peer("DGCN", _SEQUENCE, 81.53),
            Peer("WMCNN-LSTM", _SEQUENCE, 87.10), Peer("SAANet", _SEQUENCE, 87.06),
        ),
    ),
    "afew": Reported(
        "AFEW 8.0", 4, "trained on Train, tested on Val", 53.98, 0.40, 45.00,
        (
            Peer("HoloNet", _FRAME, 44.57), Peer("DSN-HoloNet", _FRAME, 46.47), Peer("DSN-VGGFace", _FRAME, 48.04),
            Peer("FAN", _FRAME, 51.18), Peer("C3D", _SEQUENCE, 30.11), Peer("VGG16+TP+SA", _SEQUENCE, 49.00),
            Peer("Emotion-BEEU", _SEQUENCE, 52.49), Peer("DenseNet-161", _CLIP, 51.44),
        ),
    ),
    "dfew": Reported(
        "DFEW", 5, "official 5-fold", 65.35, 1.13, 47.65,
        (
            Peer("C3D, EC-STFL", _SEQUENCE, 55.50), Peer("R3D18, EC-STFL", _SEQUENCE, 56.19),
            Peer("VGG11+LSTM, EC-STFL", _SEQUENCE, 56.25), Peer("P3D, EC-STFL", _SEQUENCE, 56.48),
            Peer("3D ResNet-18, EC-STFL", _SEQUENCE, 56.51),
        ),
    ),
}  # fmt: skip
REPORTED["bu4dfe"] = REPORTED["bu3dfe"]  # the paper writes BU-3DFE; its sequences are those of BU-4DFE

ABLATION = (
    ("mean", "ResNet-18", 62.77),
    ("lstm", "CNN-LSTM", 79.17),
    ("sal", "+ SAL", 84.17),
    ("sal+lrl", "+ LRL", 84.67),
    ("cefl", "+ EIAN", 85.33),
)
"""Table 6, on BU-3DFE: our head, the paper's row, accuracy. Each row has what the rows above it add, from + SAL on."""


@dataclass(frozen=True)
class Cost:
    """A line of table 8: parameters in millions, multiply-accumulates of a video in billions, accuracy on BU-3DFE."""

    name: str
    parameters: float
    macs: float
    accuracy: float


COMPLEXITY = (
    Cost("C3D", 79.99, 326.41, 75.83),
    Cost("C3D-LSTM", 110.24, 282.26, 79.17),
    Cost("CEFLNet", 12.83, 63.80, 85.33),
)
"""Table 8."""

FRAMES = ((2, 25.52, 85.00), (5, 63.80, 85.33), (10, 127.59, 84.17), (15, 191.39, 84.17))
"""Table 9, on BU-3DFE: frames per clip, multiply-accumulates in billions, accuracy."""
