"""ceflpipe complexity: tables 8 and 9."""

from __future__ import annotations

import click

from ..console import show, show_json, show_table
from .options import json_option


@click.command(
    name="complexity",
    epilog="Example: ceflpipe complexity --head released --json",
    short_help="Tables 8 and 9: parameters and multiply-accumulates, beside the paper's.",
)
@click.option("--head", default="cefl", show_default=True, help="The head that is counted for table 9.")
@click.option("--classes", default=6, show_default=True, type=click.IntRange(2), help="Number of expressions.")
@click.option("--clips", default=7, show_default=True, type=click.IntRange(1, 10), help="Sub-videos per video.")
@json_option
def command(head: str, classes: int, clips: int, as_json: bool) -> None:
    """Count parameters and multiply-accumulates (MACs) per video, encoder and head apart and together.

    The encoder is counted once per drawn frame, as the paper does; with cached features it runs once per frame of the
    video, and a training step costs only what the head column says.
    """
    from ...stages.heads.registry import HEADS, TITLES, resolve_head
    from ...stages.report.complexity import cost_of_c3d, cost_of_c3d_as_published, cost_of_c3d_lstm, cost_of_ceflnet
    from ...stages.report.paper_comparison import COMPLEXITY, FRAMES

    chosen = resolve_head(head)
    paper = {cost.name: (cost.parameters, cost.macs) for cost in COMPLEXITY}
    paper_macs = {k: macs for k, macs, _ in FRAMES}
    by_frames = {k: cost_of_ceflnet(chosen, clips, k, classes) for k in paper_macs}
    by_head = {name: cost_of_ceflnet(name, clips, 5, classes) for name in HEADS}
    others = {"C3D": cost_of_c3d(), "C3D-LSTM": cost_of_c3d_lstm(classes)}
    if as_json:
        show_json({
            "table 9": {
                k: {"head_macs": c.head_macs, "encoder_macs": c.encoder_macs, "paper_g": paper_macs[k]}
                for k, c in by_frames.items()
            },
            "heads": {
                name: {"parameters": c.parameters, "head_parameters": c.head_parameters, "macs": c.macs}
                for name, c in by_head.items()
            },
            "others": {name: {"parameters": p, "macs": m} for name, (p, m) in others.items()},
        })  # fmt: skip
        return
    rows = [
        [TITLES[name], f"{c.encoder_parameters:,}", f"{c.head_parameters:,}", f"{c.parameters / 1e6:.2f}",
         f"{c.encoder_macs / 1e9:.2f}", f"{c.head_macs / 1e6:.2f}", f"{c.macs / 1e9:.2f}",
         *(_paper(paper["CEFLNet"]) if name in ("cefl", "released") else ("", ""))]
        for name, c in by_head.items()
    ]  # fmt: skip
    rows += [
        [name, "", "", f"{p / 1e6:.2f}", "", "", f"{m / 1e9:.2f}", *_paper(paper[name])]
        for name, (p, m) in others.items()
    ]
    show_table(
        ["network", "encoder", "head", "params M", "encoder G", "head MMAC", "MACs G", "paper M", "paper G"],
        rows, title=f"Table 8: {clips} clips of 5 frames of 224 x 224, {classes} classes",
    )  # fmt: skip
    show_table(
        ["frames per clip", "encoder G", "head MMAC", "MACs G", "paper G", "off by"],
        [
            [k, f"{c.encoder_macs / 1e9:.2f}", f"{c.head_macs / 1e6:.2f}", f"{c.macs / 1e9:.2f}", paper_macs[k],
             f"{100 * (c.macs / 1e9 / paper_macs[k] - 1):+.2f} %"]
            for k, c in by_frames.items()
        ],
        title=f"Table 9: {TITLES[chosen]}",
    )  # fmt: skip
    small = cost_of_c3d_as_published()[1] / 1e9
    show(f"C3D is counted on 35 frames of 224 x 224, which is what comes within 0.5 % of the paper; as published (16 frames "
         f"of 112 x 112) it is {small:.2f} G. C3D-LSTM is counted as Parmar & Morris published it (fc6, 256 cells, 16-frame "
         "segments of 105 frames at 112 x 112); the paper does not say how its own differs.")  # fmt: skip


def _paper(pair: tuple[float, float]) -> tuple[str, str]:
    return f"{pair[0]:.2f}", f"{pair[1]:.2f}"
