"""The paper's tables 2 to 9, and our results next to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..heads.run_io import Run
from .complexity import ModelCost, ceflnet_cost
from .tables import head_title, score_table


@dataclass(frozen=True)
class PaperBaseline:
    """A line of tables 2 to 5: a method, what it looks at, and its accuracy in percent."""

    name: str
    input_type: str
    accuracy: float


@dataclass(frozen=True)
class PaperResult:
    """A data set of the paper: its table of accuracies, CEFLNet's deviation over folds and locating accuracy (table 7).

    All numbers are percent. ``peers`` holds the other methods in the paper's order, without CEFLNet itself.
    """

    title: str
    table: int
    protocol: str
    accuracy: float
    deviation: float
    locating: float
    baselines: tuple[PaperBaseline, ...]


_FRAME, _PEAK, _SEQUENCE, _CLIP = "frames", "peak frames", "sequence", "clips"

REPORTED = {
    "bu4dfe": PaperResult(
        "BU-3DFE", 2, "10-fold", 85.33, 3.29, 55.83,
        (
            PaperBaseline("FERAtt+Rep+Cls", _FRAME, 82.11), PaperBaseline("FAN", _FRAME, 84.17), PaperBaseline("DeRL", _PEAK, 84.17),
            PaperBaseline("C3D", _SEQUENCE, 75.83), PaperBaseline("C3D-LSTM", _SEQUENCE, 79.17), PaperBaseline("ICNP", _SEQUENCE, 83.20),
        ),
    ),
    "mmi": PaperResult(
        "MMI", 3, "10-fold; the figures fit folds of 20 or 21 videos, not subject-wise ones", 91.00, 4.36, 67.57,
        (
            PaperBaseline("DeRL", _FRAME, 73.23), PaperBaseline("WMDCNN", _FRAME, 78.2), PaperBaseline("CER", _PEAK, 70.12),
            PaperBaseline("AUDN", _PEAK, 75.85),
            PaperBaseline("LPQ-TOP+SRC", _SEQUENCE, 64.11), PaperBaseline("LSTM", _SEQUENCE, 78.61), PaperBaseline("DGCN", _SEQUENCE, 81.53),
            PaperBaseline("WMCNN-LSTM", _SEQUENCE, 87.10), PaperBaseline("SAANet", _SEQUENCE, 87.06),
        ),
    ),
    "afew": PaperResult(
        "AFEW 8.0", 4, "trained on Train, tested on Val", 53.98, 0.40, 45.00,
        (
            PaperBaseline("HoloNet", _FRAME, 44.57), PaperBaseline("DSN-HoloNet", _FRAME, 46.47), PaperBaseline("DSN-VGGFace", _FRAME, 48.04),
            PaperBaseline("FAN", _FRAME, 51.18), PaperBaseline("C3D", _SEQUENCE, 30.11), PaperBaseline("VGG16+TP+SA", _SEQUENCE, 49.00),
            PaperBaseline("Emotion-BEEU", _SEQUENCE, 52.49), PaperBaseline("DenseNet-161", _CLIP, 51.44),
        ),
    ),
    "dfew": PaperResult(
        "DFEW", 5, "official 5-fold", 65.35, 1.13, 47.65,
        (
            PaperBaseline("C3D, EC-STFL", _SEQUENCE, 55.50), PaperBaseline("R3D18, EC-STFL", _SEQUENCE, 56.19),
            PaperBaseline("VGG11+LSTM, EC-STFL", _SEQUENCE, 56.25), PaperBaseline("P3D, EC-STFL", _SEQUENCE, 56.48),
            PaperBaseline("3D ResNet-18, EC-STFL", _SEQUENCE, 56.51),
        ),
    ),
}  # fmt: skip

ABLATION = (
    ("mean", "ResNet-18", 62.77),
    ("lstm", "CNN-LSTM", 79.17),
    ("sal", "+ SAL", 84.17),
    ("sal+lrl", "+ LRL", 84.67),
    ("cefl", "+ EIAN", 85.33),
)
"""Table 6, on BU-3DFE: our head, the paper's row, accuracy. Each row has what the rows above it add, from + SAL on."""
ABLATION_HEADS = tuple(head for head, _, _ in ABLATION)


@dataclass(frozen=True)
class PaperCost:
    """A line of table 8: parameters in millions, multiply-accumulates of a video in billions, accuracy on BU-3DFE."""

    name: str
    parameters: float
    macs: float
    accuracy: float


COMPLEXITY = (
    PaperCost("C3D", 79.99, 326.41, 75.83),
    PaperCost("C3D-LSTM", 110.24, 282.26, 79.17),
    PaperCost("CEFLNet", 12.83, 63.80, 85.33),
)
"""Table 8."""

FRAMES = ((2, 25.52, 85.00), (5, 63.80, 85.33), (10, 127.59, 84.17), (15, 191.39, 84.17))
"""Table 9, on BU-3DFE: frames per clip, multiply-accumulates in billions, accuracy."""


TableRow = dict[str, Any]


def paper_results(dataset: str) -> PaperResult | None:
    """Return what the paper reports of a data set, or None where it did not use it."""
    return REPORTED.get(dataset.lower())


def paper_ablation(dataset: str) -> dict[str, float]:
    """Return the paper's accuracies of table 6 by head; empty for data sets other than its own."""
    return {head: accuracy for head, _, accuracy in ABLATION} if dataset == "bu4dfe" else {}


def accuracy_rows(runs: Sequence[Run], dataset: str) -> list[TableRow]:
    """Return the lines of tables 2 to 5 and ours: name, looks_at, accuracy, deviation, locating, protocol, ours,
    optimistic."""
    reported = paper_results(dataset)
    lines: list[TableRow] = []
    if reported:
        lines += [_paper_row(peer.name, peer.input_type, peer.accuracy) for peer in reported.baselines]
        lines.append(
            _paper_row("CEFLNet", "clips", reported.accuracy, reported.deviation, reported.locating, reported.protocol)
        )
    else:
        lines += [
            _paper_row(
                f"CEFLNet on {other.title}", "clips", other.accuracy, other.deviation, other.locating, other.protocol
            )
            for other in REPORTED.values()
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


def _paper_row(
    name: str,
    looks_at: str,
    accuracy: float,
    deviation: float | None = None,
    locating: float | None = None,
    protocol: str = "",
) -> TableRow:
    return {
        "name": name, "looks_at": looks_at, "accuracy": accuracy, "deviation": deviation, "locating": locating,
        "protocol": protocol, "ours": False, "optimistic": False,
    }  # fmt: skip


def ablation_rows(runs: Sequence[Run], dataset: str) -> list[TableRow]:
    """Return table 6: a line per row with the paper's accuracy on BU-3DFE and ours; ``command`` is set where we have
    none.

    ``runs``: one per head; where a head occurs twice the first counts.
    """
    by_head: dict[str, Run] = {}
    for run in runs:
        by_head.setdefault(run.train_config.head, run)
    lines = []
    for head, name, accuracy in ABLATION:
        line: TableRow = {
            "name": name,
            "paper": accuracy,
            "ours": None,
            "command": f"ceflpipe train-heads --dataset {dataset} --head {head}",
        }
        if head in by_head:
            line |= {"ours": score_table([by_head[head]]).to_dict("records")[0], "title": head_title(by_head[head])}
        lines.append(line)
    return lines


def locating_rows(run: Run, dataset: str) -> list[TableRow]:
    """Return table 7: locating accuracy of the paper's data sets and of ours with its chance; ours None without known
    apexes."""
    mine = paper_results(dataset)
    lines: list[TableRow] = [
        {"name": other.title, "paper": other.locating, "ours": None, "chance": None, "std": None}
        for other in REPORTED.values()
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


def complexity_rows(runs: Sequence[Run]) -> list[TableRow]:
    """Return table 8: parameters in millions; ours are the encoder's, which stay fixed, and the head's, which are
    trained."""
    lines: list[TableRow] = [
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
                "parameters": _model_cost(run).parameters / 1e6,
                "trained": _model_cost(run).head_parameters / 1e6,
                "macs": _model_cost(run).macs / 1e9,
                "accuracy": ours["war"],
                "ours": True,
            }
        )
    return lines


def _model_cost(run: Run) -> ModelCost:
    """Encoder (frozen here, trained in the paper) and head for the frames that the run draws, as the paper counts."""
    return ceflnet_cost(
        run.train_config.head, run.train_config.num_clips, run.train_config.frames_per_clip, len(run.labels)
    )


def frames_rows(points: pd.DataFrame) -> list[TableRow]:
    """Return table 9 with our accuracy for as many frames; ``points`` are those of one head along frames."""
    ours = {
        int(frames): (mean, std)
        for frames, mean, std in zip(points["frames"], points["mean"], points["std"], strict=True)
    }
    lines: list[TableRow] = []
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
