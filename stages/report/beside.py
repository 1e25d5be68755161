"""What stands beside the paper's tables? Our rows, with everything that keeps them from being the same experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..heads.runfolder import Run
from .complexity import Counted, cost_of_ceflnet
from .paper import ABLATION, COMPLEXITY, FRAMES, REPORTED, Reported
from .scores import score_table, title_of

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
