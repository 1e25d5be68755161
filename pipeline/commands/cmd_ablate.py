"""ceflpipe ablate: table 6 on any data set."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from ..config import load_train
from ..console import progress, say, show, show_json, show_table
from ..dataset import find_source
from .options import json_option, quiet_option, source_options, training_options

ROWS = ("mean", "lstm", "sal", "sal+lrl", "cefl")


@click.command(
    name="ablate",
    epilog="Example: ceflpipe ablate --seeds 3",
    short_help="Table 6: what SAL, LRL and EIAN each add, over folds and seeds.",
)
@source_options
@training_options
@click.option(
    "--heads", default=",".join(ROWS), show_default=True, metavar="A,B,…", help="Rows of the table, in order."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs; default: artifacts/runs/NAME/ablate.")
@click.option("--workers", type=click.IntRange(1), help="Rows trained at a time; default: by the cores.")
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    heads: str, out: Path | None, workers: int | None, as_json: bool, quiet: bool, **typed: Any,
) -> None:  # fmt: skip
    """Train the rows of the paper's table 6 on the same folds and seeds, and compare them pair by pair.

    Every row has the same recipe, the paper's; nothing is tuned for a row. Finished rows are kept.
    """
    from ...cache.atomic import write_text
    from ...stages.heads.registry import TITLES
    from ...stages.heads.sweep import make_points, paired_differences, tidy
    from ...stages.report.paper_comparison import ABLATION
    from ..paths import run_folder
    from ..training import _settings, base_point, run_grid

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    names = [name.strip() for name in heads.split(",") if name.strip()]
    base = base_point(source, load_train(source.config, head=names[0], **_settings(typed)), typed)
    folder = out or run_folder(source.name, "ablate")
    points = [replace(point, out=folder / point.recipe.head) for point in make_points(base, folder, heads=names)]
    with progress("ablation", len(points), quiet=quiet) as bar:
        runs = run_grid(points, workers=workers, on_point=lambda name: bar(1, name))
    rows = tidy(runs)
    write_text(folder / "ablation.csv", rows.to_csv(index=False))
    pairs = [paired_differences(rows, a.recipe.head, b.recipe.head) for a, b in pairwise(points)]
    if as_json:
        show_json(
            {
                "rows": {run.recipe.head: run.metrics for run in runs},
                "pairs": pairs,
                "csv": str(folder / "ablation.csv"),
            }
        )
        return
    from ..console import percent, scheme_of

    paper = {head: accuracy for head, _, accuracy in ABLATION} if source.name == "bu3dfe" else {}
    table = []
    for place, run in enumerate(runs):
        pair = pairs[place - 1] if place else None
        locating = run.metrics["locating"]
        table.append([
            TITLES[run.recipe.head], *percent(run.metrics["war"])[:3],
            percent(locating["predicted_label"])[0] if locating else "—",
            "" if pair is None else f"{100 * pair['mean']:+.2f} ± {100 * (pair['std_ddof1'] or 0):.2f}",
            "" if pair is None else f"{pair['better']}:{pair['worse']} of {pair['n']}",
            *([f"{paper[run.recipe.head]:.2f}"] if paper else []),
        ])  # fmt: skip
    show(f"ablation on {source.name}: {scheme_of(runs[0])}, n = {runs[0].metrics['videos']} videos")
    columns = ["head", "WAR %", "std (ddof 0)", "std (ddof 1)", "locating %", "over the row above", "better:worse"]
    show_table([*columns, *(["paper %"] if paper else [])], table)
    if any(run.metrics["optimistic"] for run in runs):
        show("optimistic: the epoch with the best test score was kept (--select best-test)")
    for pair in pairs:
        if pair["mean"] <= 0:
            show(f"{TITLES[pair['later']]} does not add accuracy over {TITLES[pair['earlier']]} here")
    if not quiet:
        say("differences are paired: the same fold and seed; std is over those pairs (ddof 1)")
    show(str(folder / "ablation.csv"))
