"""ceflpipe complexity: tables 8 and 9."""

from __future__ import annotations

import click

from ..console import echo, echo_json, echo_table
from .options import json_option


@click.command(
    name="complexity",
    epilog="Example: ceflpipe complexity --head released --json",
    short_help="Tables 8 and 9: parameters and multiply-accumulates, next to the paper's.",
)
@click.option("--head", default="cefl", show_default=True, help="Head of table 9.")
@click.option("--classes", default=6, show_default=True, type=click.IntRange(2), help="Number of expressions.")
@click.option("--clips", "num_clips", default=7, show_default=True, type=click.IntRange(1, 10), help="Clips per video.")
@json_option
def command(head: str, classes: int, num_clips: int, as_json: bool) -> None:
    """Count parameters and multiply-accumulates (MACs) per video, of encoder and head.

    The encoder is counted once per sampled frame, as the paper does. With cached features it runs once per frame of the
    video, and a training step costs only what the head column says.
    """
    from ...stages.heads.registry import HEAD_TITLES, HEADS, resolve_head
    from ...stages.report.complexity import c3d_cost, c3d_lstm_cost, c3d_published_cost, ceflnet_cost
    from ...stages.report.paper_comparison import PAPER_COSTS, PAPER_FRAMES

    head = resolve_head(head)
    paper = {cost.name: (f"{cost.parameters:.2f}", f"{cost.macs:.2f}") for cost in PAPER_COSTS}
    paper_macs = {frames: macs for frames, macs, _ in PAPER_FRAMES}
    by_frames = {frames: ceflnet_cost(head, num_clips, frames, classes) for frames in paper_macs}
    by_head = {name: ceflnet_cost(name, num_clips, 5, classes) for name in HEADS}
    other_networks = {"C3D": c3d_cost(), "C3D-LSTM": c3d_lstm_cost(classes)}
    if as_json:
        echo_json({
            "frames_per_clip": {
                frames: {"head_macs": c.head_macs, "encoder_macs": c.encoder_macs, "paper_gmacs": paper_macs[frames]}
                for frames, c in by_frames.items()
            },
            "heads": {
                name: {"parameters": c.parameters, "head_parameters": c.head_parameters, "macs": c.macs}
                for name, c in by_head.items()
            },
            "other_networks": {
                name: {"parameters": parameters, "macs": macs} for name, (parameters, macs) in other_networks.items()
            },
        })  # fmt: skip
        return
    rows = [
        [HEAD_TITLES[name], f"{c.encoder_parameters:,}", f"{c.head_parameters:,}", f"{c.parameters / 1e6:.2f}",
         f"{c.encoder_macs / 1e9:.2f}", f"{c.head_macs / 1e6:.2f}", f"{c.macs / 1e9:.2f}",
         *(paper["CEFLNet"] if name in ("cefl", "released") else ("", ""))]
        for name, c in by_head.items()
    ]  # fmt: skip
    rows += [
        [name, "", "", f"{parameters / 1e6:.2f}", "", "", f"{macs / 1e9:.2f}", *paper[name]]
        for name, (parameters, macs) in other_networks.items()
    ]
    echo_table(
        ["network", "encoder", "head", "params M", "encoder G", "head MMAC", "MACs G", "paper M", "paper G"],
        rows, title=f"Table 8: {num_clips} clips of 5 frames of 224 x 224, {classes} classes",
    )  # fmt: skip
    rows = [
        [frames, f"{c.encoder_macs / 1e9:.2f}", f"{c.head_macs / 1e6:.2f}", f"{c.macs / 1e9:.2f}", paper_macs[frames],
         f"{100 * (c.macs / 1e9 / paper_macs[frames] - 1):+.2f} %"]
        for frames, c in by_frames.items()
    ]  # fmt: skip
    columns = ["frames per clip", "encoder G", "head MMAC", "MACs G", "paper G", "difference"]
    echo_table(columns, rows, title=f"Table 9: {HEAD_TITLES[head]}")
    published = c3d_published_cost()[1] / 1e9
    echo(
        "C3D is counted on 35 frames of 224 x 224, which comes within 0.5 % of the paper; as published (16 frames of "
        f"112 x 112) it is {published:.2f} G. C3D-LSTM is counted as Parmar & Morris published it (fc6, 256 cells, "
        "16-frame segments of 105 frames at 112 x 112); the paper does not say how its own differs."
    )
