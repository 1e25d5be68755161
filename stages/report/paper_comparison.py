"""The paper's tables 2 to 9, and our results next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..heads.comparison import paired_runs
from ..heads.run_io import Run
from .complexity import ceflnet_cost, is_resnet18
from .tables import score_rows

TableRow = dict[str, Any]


@dataclass(frozen=True)
class PaperBaseline:
    """A row of tables 2 to 5: a method, its input, and its accuracy in percent."""

    name: str
    input_type: str
    accuracy: float


@dataclass(frozen=True)
class PaperResult:
    """CEFLNet on a data set of the paper: accuracy with std over folds (tables 2 to 5), locating accuracy (table 7).

    All numbers are percent. ``baselines``: the other methods, in the paper's order.
    """

    title: str
    table: int
    protocol: str
    accuracy: float
    std: float
    locating_accuracy: float
    baselines: tuple[PaperBaseline, ...]


@dataclass(frozen=True)
class PaperCost:
    """A row of table 8: parameters in millions, MACs per video in billions, accuracy on BU-3DFE in percent."""

    name: str
    parameters: float
    macs: float
    accuracy: float


def _baselines(**by_input: dict[str, float]) -> tuple[PaperBaseline, ...]:
    return tuple(
        PaperBaseline(name, input_type.replace("_", " "), accuracy)
        for input_type, methods in by_input.items()
        for name, accuracy in methods.items()
    )


PAPER_RESULTS = {
    "bu4dfe": PaperResult(
        title="BU-3DFE",
        table=2,
        protocol="10-fold",
        accuracy=85.33,
        std=3.29,
        locating_accuracy=55.83,
        baselines=_baselines(
            frames={"FERAtt+Rep+Cls": 82.11, "FAN": 84.17},
            peak_frames={"DeRL": 84.17},
            sequence={"C3D": 75.83, "C3D-LSTM": 79.17, "ICNP": 83.20},
        ),
    ),
    "mmi": PaperResult(
        title="MMI",
        table=3,
        protocol="10-fold; the numbers fit folds of 20 or 21 videos, not subject-wise ones",
        accuracy=91.00,
        std=4.36,
        locating_accuracy=67.57,
        baselines=_baselines(
            frames={"DeRL": 73.23, "WMDCNN": 78.2},
            peak_frames={"CER": 70.12, "AUDN": 75.85},
            sequence={"LPQ-TOP+SRC": 64.11, "LSTM": 78.61, "DGCN": 81.53, "WMCNN-LSTM": 87.10, "SAANet": 87.06},
        ),
    ),
    "afew": PaperResult(
        title="AFEW 8.0",
        table=4,
        protocol="trained on Train, tested on Val",
        accuracy=53.98,
        std=0.40,
        locating_accuracy=45.00,
        baselines=_baselines(
            frames={"HoloNet": 44.57, "DSN-HoloNet": 46.47, "DSN-VGGFace": 48.04, "FAN": 51.18},
            sequence={"C3D": 30.11, "VGG16+TP+SA": 49.00, "Emotion-BEEU": 52.49},
            clips={"DenseNet-161": 51.44},
        ),
    ),
    "dfew": PaperResult(
        title="DFEW",
        table=5,
        protocol="official 5-fold",
        accuracy=65.35,
        std=1.13,
        locating_accuracy=47.65,
        baselines=_baselines(
            sequence={
                "C3D, EC-STFL": 55.50,
                "R3D18, EC-STFL": 56.19,
                "VGG11+LSTM, EC-STFL": 56.25,
                "P3D, EC-STFL": 56.48,
                "3D ResNet-18, EC-STFL": 56.51,
            }
        ),
    ),
}

PAPER_ABLATION = (
    ("mean", "ResNet-18", 62.77),
    ("lstm", "CNN-LSTM", 79.17),
    ("sal", "+ SAL", 84.17),
    ("sal+lrl", "+ LRL", 84.67),
    ("cefl", "+ EIAN", 85.33),
)
"""Table 6, on BU-3DFE: our head, the paper's row, accuracy. From + SAL on, each row adds to the row above it."""
ABLATION_HEADS = tuple(head for head, _, _ in PAPER_ABLATION)

PAPER_COSTS = (
    PaperCost("C3D", 79.99, 326.41, 75.83),
    PaperCost("C3D-LSTM", 110.24, 282.26, 79.17),
    PaperCost("CEFLNet", 12.83, 63.80, 85.33),
)
"""Table 8."""

PAPER_FRAMES = ((2, 25.52, 85.00), (5, 63.80, 85.33), (10, 127.59, 84.17), (15, 191.39, 84.17))
"""Table 9, on BU-3DFE: frames per clip, MACs in billions, accuracy."""


def paper_results(dataset: str) -> PaperResult | None:
    """Return the paper's results on a data set, or None if it has none."""
    return PAPER_RESULTS.get(dataset.lower())


def paper_ablation(dataset: str) -> dict[str, float]:
    """Return the accuracies of table 6 by head; empty for other data sets than the table's."""
    return {head: accuracy for head, _, accuracy in PAPER_ABLATION} if dataset == "bu4dfe" else {}


def accuracy_rows(runs: Sequence[Run], dataset: str) -> list[TableRow]:
    """Return tables 2 to 5 and our runs: name, input_type, accuracy, std, protocol, ours.

    For a data set that is not in the paper, CEFLNet's results on the paper's data sets are given instead.
    """
    paper = paper_results(dataset)
    rows = []
    if paper:
        rows += [_accuracy_row(method.name, method.input_type, method.accuracy) for method in paper.baselines]
    for result in [paper] if paper else PAPER_RESULTS.values():
        name = "CEFLNet" if paper else f"CEFLNet on {result.title}"
        rows.append(_accuracy_row(name, "clips", result.accuracy, result.std, result.protocol))
    for scores in score_rows(runs):
        protocol = f"{scores['folds']} folds ({scores['fold_scheme']})"
        row = _accuracy_row(scores["run"], "cached features", scores["war"], scores["war_std_ddof0"], protocol)
        rows.append(row | {"ours": True})
    return rows


def _accuracy_row(
    name: str, input_type: str, accuracy: float, std: float | None = None, protocol: str = ""
) -> TableRow:
    row = {"name": name, "input_type": input_type, "accuracy": accuracy, "std": std, "protocol": protocol}
    return row | {"ours": False}


def ablation_rows(runs: Sequence[Run], dataset: str) -> list[TableRow]:
    """Return table 6: name, the paper's accuracy, ``ours`` and ``tuned`` (of score_rows, or None), and the command for it.

    ``ours`` is the first run of the head in which nothing is tuned, ``tuned`` the first in which something is. Both have
    ``gain``, the difference to the row above in the same form (see comparison.paired_runs), and ``tuned`` has ``by_tuning``, the
    difference to ``ours``; None if they cannot be paired.
    """
    forms: list[dict[str, Run]] = [{}, {}]
    for run in reversed(runs):
        forms[bool(run.cv.tune)][run.train_config.head] = run
    rows: list[TableRow] = []
    for head, name, accuracy in PAPER_ABLATION:
        ours, tuned = (_ablation_row(form, head) for form in forms)
        if tuned:
            tuned["by_tuning"] = paired_runs(forms[0][head], forms[1][head]) if ours else None
        command = f"ceflpipe train-heads --dataset {dataset} --head {head}"
        rows.append({"name": name, "paper": accuracy, "ours": ours, "tuned": tuned, "command": command})
    return rows


def _ablation_row(runs: Mapping[str, Run], head: str) -> TableRow | None:
    """Return the row of a head in one form of the table, None if it was not run."""
    if head not in runs:
        return None
    index = ABLATION_HEADS.index(head)
    above = runs.get(ABLATION_HEADS[index - 1]) if index else None
    return score_rows([runs[head]])[0] | {"gain": paired_runs(above, runs[head]) if above else None}


def locating_rows(run: Run, dataset: str) -> list[TableRow]:
    """Return table 7 in percent: name, paper, ours, std, chance, and videos with a reachable apex; None without a result."""
    paper, locating = paper_results(dataset), run.metrics["locating_accuracy"]
    empty = dict.fromkeys(("paper", "ours", "std", "chance", "videos"))
    rows = [{"name": result.title, **empty, "paper": result.locating_accuracy} for result in PAPER_RESULTS.values()]
    if not locating or not locating["reachable"]:
        return rows
    if not paper:
        rows.append({"name": dataset, **empty})
    row = next(row for row in rows if row["name"] == (paper.title if paper else dataset))
    accuracy = locating["predicted_label"]
    row |= {"ours": 100 * accuracy["mean"], "std": 100 * accuracy["std_ddof0"]}
    row |= {"chance": 100 * locating["chance"], "videos": locating["reachable"]}
    return rows


def complexity_rows(runs: Sequence[Run]) -> list[TableRow]:
    """Return table 8: name, parameters (millions), of them trained, MACs (billions), accuracy, ours.

    Ours are counted as in the paper, for the frames that a run samples; only the head is trained. Of an encoder other than
    ResNet-18 only the head is counted: parameters and MACs of both are None.
    """
    rows: list[TableRow] = [
        {
            "name": paper.name,
            "parameters": paper.parameters,
            "trained": paper.parameters,
            "macs": paper.macs,
            "accuracy": paper.accuracy,
            "ours": False,
        }
        for paper in PAPER_COSTS
    ]
    for run, scores in zip(runs, score_rows(runs), strict=True):
        config = run.train_config
        cost = None
        if is_resnet18(run.extraction_settings):
            cost = ceflnet_cost(config.head, config.num_clips, config.frames_per_clip, len(run.labels))
        rows.append(
            {
                "name": scores["run"],
                "parameters": cost.parameters / 1e6 if cost else None,
                "trained": scores["parameters"] / 1e6,
                "macs": cost.macs / 1e9 if cost else None,
                "accuracy": scores["war"],
                "ours": True,
            }
        )
    return rows


def frames_rows(points: pd.DataFrame) -> list[TableRow]:
    """Return table 9: frames, and MACs (billions) and accuracies of the paper and ours, in percent.

    ``points``: sweep_results.slice_along of one head over frames_per_clip.
    """
    paper = {frames: (macs, accuracy) for frames, macs, accuracy in PAPER_FRAMES}
    columns = zip(points["frames_per_clip"], points["mean"], points["std"], strict=True)
    ours = {int(frames): (100 * mean, 100 * std) for frames, mean, std in columns}
    rows = []
    for frames in sorted({*paper, *ours}):
        (macs, accuracy), (mean, std) = paper.get(frames, (None, None)), ours.get(frames, (None, None))
        rows.append({"frames": frames, "macs": macs, "paper": accuracy, "ours": mean, "std": std})
    return rows
