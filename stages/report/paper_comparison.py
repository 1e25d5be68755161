"""The paper's tables 2 to 9, and our results next to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..heads.run_io import Run
from .complexity import Counted, cost_of_ceflnet
from .tables import score_table, title_of


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


Line = dict[str, Any]


def reported_for(dataset: str) -> Reported | None:
    """Return what the paper reports of a data set, or None where it did not use it."""
    return REPORTED.get(dataset.lower())


def accuracy_lines(runs: Sequence[Run], dataset: str) -> list[Line]:
    """Return the lines of tables 2 to 5 and ours: name, looks_at, accuracy, deviation, locating, protocol, ours,
    optimistic."""
    reported = reported_for(dataset)
    lines: list[Line] = []
    if reported:
        lines += [_paper_line(peer.name, peer.looks_at, peer.accuracy) for peer in reported.peers]
        lines.append(
            _paper_line("CEFLNet", "clips", reported.accuracy, reported.deviation, reported.locating, reported.protocol)
        )
    else:
        lines += [
            _paper_line(
                f"CEFLNet on {other.title}", "clips", other.accuracy, other.deviation, other.locating, other.protocol
            )
            for name, other in REPORTED.items()
            if name != "bu4dfe"
        ]
    for ours in score_table(runs).to_dict("records"):
        lines.append(
            {
                "name": ours["run"],
                "looks_at": "",
                "accuracy": ours["war"],
                "deviation": ours["war_std_ddof0"],
                "locating": ours["locating"],
                "protocol": f"{ours['folds']} folds, {ours['scheme']}",
                "ours": True,
                "optimistic": ours["optimistic"],
            }
        )
    return lines


def _paper_line(
    name: str,
    looks_at: str,
    accuracy: float,
    deviation: float | None = None,
    locating: float | None = None,
    protocol: str = "",
) -> Line:
    return {
        "name": name, "looks_at": looks_at, "accuracy": accuracy, "deviation": deviation, "locating": locating,
        "protocol": protocol, "ours": False, "optimistic": False,
    }  # fmt: skip


def ablation_lines(runs: Sequence[Run], dataset: str) -> list[Line]:
    """Return table 6: a line per row with the paper's accuracy on BU-3DFE and ours; ``command`` is set where we have
    none.

    ``runs``: one per head; where a head occurs twice the first counts.
    """
    by_head: dict[str, Run] = {}
    for run in runs:
        by_head.setdefault(run.recipe.head, run)
    lines = []
    for head, name, accuracy in ABLATION:
        line: Line = {
            "name": name,
            "paper": accuracy,
            "ours": None,
            "command": f"ceflpipe train-heads --dataset {dataset} --head {head}",
        }
        if head in by_head:
            line |= {"ours": score_table([by_head[head]]).to_dict("records")[0], "title": title_of(by_head[head])}
        lines.append(line)
    return lines


def locating_lines(run: Run, dataset: str) -> list[Line]:
    """Return table 7: locating accuracy of the paper's data sets and of ours with its chance; ours None without known
    apexes."""
    mine = reported_for(dataset)
    lines: list[Line] = [
        {"name": other.title, "paper": other.locating, "ours": None, "chance": None, "std": None}
        for name, other in REPORTED.items()
        if name != "bu4dfe"
    ]
    found = run.metrics["locating"]
    if not found:
        return lines
    ours = {
        "ours": 100 * found["predicted_label"]["mean"],
        "std": 100 * found["predicted_label"]["std_ddof0"],
        "chance": 100 * found["chance"],
        "videos": found["videos"],
    }
    for line in lines:
        if mine and line["name"] == mine.title:
            line |= ours
            return lines
    return [*lines, {"name": dataset, "paper": None, **ours}]


def complexity_lines(runs: Sequence[Run]) -> list[Line]:
    """Return table 8: parameters in millions; ours are the encoder's, which stay fixed, and the head's, which are
    trained."""
    lines: list[Line] = [
        {
            "name": cost.name,
            "parameters": cost.parameters,
            "trained": cost.parameters,
            "macs": cost.macs,
            "accuracy": cost.accuracy,
            "ours": False,
        }
        for cost in COMPLEXITY
    ]
    for run, ours in zip(runs, score_table(runs).to_dict("records"), strict=True):
        lines.append(
            {
                "name": ours["run"],
                "parameters": _counted(run).parameters / 1e6,
                "trained": _counted(run).head_parameters / 1e6,
                "macs": _counted(run).macs / 1e9,
                "accuracy": ours["war"],
                "ours": True,
            }
        )
    return lines


def _counted(run: Run) -> Counted:
    """Encoder (frozen here, trained in the paper) and head for the frames that the run draws, as the paper counts."""
    return cost_of_ceflnet(run.recipe.head, run.recipe.clips, run.recipe.frames, len(run.labels))


def frames_lines(points: pd.DataFrame) -> list[Line]:
    """Return table 9 with our accuracy for as many frames; ``points`` are those of one head along frames."""
    ours = {
        int(frames): (mean, std)
        for frames, mean, std in zip(points["frames"], points["mean"], points["std"], strict=True)
    }
    lines: list[Line] = []
    for frames in sorted({count for count, _, _ in FRAMES} | set(ours)):
        told = next(((macs, accuracy) for count, macs, accuracy in FRAMES if count == frames), (None, None))
        mine = ours.get(frames)
        lines.append(
            {
                "frames": frames,
                "macs": told[0],
                "paper": told[1],
                "ours": mine and 100 * mine[0],
                "std": mine and 100 * mine[1],
            }
        )
    return lines
