"""ceflpipe sweep: figure 8 and other grids over one extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ..config import load_pipeline, load_train
from ..console import progress, say, show, show_json, show_table
from ..dataset import find_source
from .options import cluster_options, json_option, quiet_option, source_options, training_options


@click.command(
    name="sweep",
    epilog="Example: ceflpipe sweep --clips 1,3,5,7,9 --frames 2,5,10,15 --folds 10 --seeds 3",
    short_help="Figure 8: accuracy over clips per video, frames per clip, heads, learning rates.",
)
@source_options
@training_options
@click.option("--clips", "clip_counts", metavar="N,N,…", help="Clips per video, e.g. 1,3,5,7,9.")
@click.option("--frames", "frame_counts", metavar="K,K,…", help="Frames per clip, e.g. 2,5,10,15.")
@click.option("--heads", metavar="A,B,…", help="Heads.")
@click.option("--learning-rates", "--lr", "rates", metavar="X,X,…", help="Learning rates.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; default: artifacts/sweeps/NAME.")
@click.option("--dry-run", is_flag=True, help="Only say which points are finished and which would be trained.")
@click.option("--workers", type=click.IntRange(1), help="Points trained at a time; default: by the cores.")
@cluster_options
@json_option
@quiet_option
def command(
    dataset: str | None, manifest: Path | None, root: Path | None, labels: str | None, allow_outside: bool,
    clip_counts: str | None, frame_counts: str | None, heads: str | None, rates: str | None, out: Path | None,
    dry_run: bool, workers: int | None, cluster: str | None, resource: str, as_json: bool, quiet: bool, **typed: Any,
) -> None:  # fmt: skip
    """Train every combination on the cached features and write one tidy table: a row per point, fold and seed.

    Without a list the grid is that of configs/pipeline.yaml: the paper's figure 8. Beside the table a figure is drawn for
    every setting that takes more than one value. A point that is finished is not trained again, so a killed sweep goes on
    and a larger one runs its new points. With n clips a video is cut to 10 n + 5 of its 105 slots and there are
    min(30, 105 - (10 n + 5) + 1) start slots.
    """
    from ...cache.atomic import write_text
    from ...cache.hdf5 import read_table
    from ...stages.heads.folds import make_folds
    from ...stages.heads.sweep import elsewhere, finished, make_points, tidy
    from ...stages.report.sweep_results import draw_sweep
    from ..paths import sweep_folder
    from ..training import _settings, base_point, run_grid

    grid = load_pipeline().sweep
    lists = {
        "heads": _list("--heads", heads, str), "clips": _list("--clips", clip_counts, int),
        "frames": _list("--frames", frame_counts, int), "learning_rates": _list("--lr", rates, float),
    }  # fmt: skip
    if not any(lists.values()):
        lists |= {"heads": [grid.head], "clips": list(grid.clips), "frames": list(grid.frames)}
    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    typed["seeds"] = typed["seeds"] or grid.seeds
    base = base_point(source, load_train(source.config, **_settings(typed)), typed)
    folder = out or sweep_folder(source.name)
    mapper = None
    if cluster:
        from ..executor import on_cluster

        mapper, workers = on_cluster(cluster, tag=resource)
        base, folder = elsewhere(base), folder.absolute()  # other machines have other working folders
    points = make_points(base, folder / "points", **lists)
    if dry_run:
        identity = read_table(base.features).identity
        waiting = [point for point in points if not finished(point, identity)]
        show_table(["point", "state"], [[p.out.name, "to train" if p in waiting else "finished"] for p in points])
        show(f"{len(waiting)} of {len(points)} points to train")
        return
    if not quiet:
        protocol = base.protocol
        folds = make_folds(base.manifest.rows, protocol.scheme, protocol.folds, protocol.seeds[0])
        say(f"{len(points)} points x {len(folds)} folds x {len(protocol.seeds)} seeds")
    with progress("sweep", len(points), quiet=quiet) as bar:
        runs = run_grid(points, workers=workers, mapper=mapper, on_point=lambda name: bar(1, name))
    rows = tidy(runs)
    write_text(folder / "sweep.csv", rows.to_csv(index=False, float_format="%.6g"))
    settled = next((run for run in runs if run.recipe == base.recipe), runs[0])
    figures = draw_sweep(rows, settled, folder / "figures")
    if as_json:
        show_json(
            {
                "csv": str(folder / "sweep.csv"),
                "points": len(points),
                "rows": len(rows),
                "figures": list(map(str, figures)),
            }
        )
        return
    groups = rows.groupby(["head", "clips", "frames", "learning_rate"], sort=False)
    show_table(
        ["head", "clips", "frames", "lr", "WAR %", "std (ddof 0)", "UAR %", "locating %", "over"],
        [
            [*key, f"{100 * g.war.mean():.2f}", f"{100 * g.war.std(ddof=0):.2f}", f"{100 * g.uar.mean():.2f}",
             "—" if g.locating.isna().all() else f"{100 * g.locating.mean():.2f}", len(g)]
            for key, g in groups
        ],
    )  # fmt: skip
    for figure in figures:
        show(str(figure))
    show(str(folder / "sweep.csv"))


def _list(option: str, text: str | None, kind: type) -> list[Any]:
    """Read '1,3,5'; raises CeflError that names the option and the part that is no number."""
    values = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        try:
            values.append(kind(part.strip()))
        except ValueError:
            raise CeflError(f"{option} {text}: {part.strip()!r} is not a number; give a list such as 1,3,5") from None
    if len(set(values)) != len(values):
        raise CeflError(f"{option} {text}: a value stands twice")
    return values
