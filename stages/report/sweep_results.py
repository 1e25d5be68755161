"""Results of a sweep: one row per run, fold and seed, sliced along one setting at a time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...cache.atomic import atomic_write
from ...cache.errors import CeflError
from ..heads.clip_sampling import NUM_SLOTS, span, start_count
from ..heads.run_io import Run
from ..plots.charts import sweep_figure
from ..plots.style import png

SWEEP_AXES = {"clips": "clips per video", "frames": "frames per clip", "learning_rate": "learning rate"}
COLUMNS = ("head", *SWEEP_AXES, "fold", "seed", "war", "uar")


def read_sweep(path: Path) -> pd.DataFrame:
    """Read a sweep's CSV; raises CeflError that names the columns it lacks."""
    try:
        table = pd.read_csv(path, dtype={"head": str, "fold": str})
    except FileNotFoundError:
        raise CeflError(f"{path}: no such sweep; make it with ceflpipe sweep") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise CeflError(f"{path}: not a CSV that can be read: {' '.join(str(error).split())}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise CeflError(
            f"{path}: not a sweep: column {', '.join(missing)} is missing; make it again with ceflpipe sweep"
        )
    return table


def slice_along(sweep: pd.DataFrame, axis: str, run: Run) -> pd.DataFrame:
    """Return the points in which only ``axis`` differs from the run's own settings: columns head, axis, mean, std, n.

    ``mean`` and ``std`` (0..1, ddof 0) are of WAR over folds and seeds, ``n`` their number. Empty when the axis was not
    swept (fewer than two values).
    """
    others = [other for other in SWEEP_AXES if other != axis]
    kept = sweep
    for other in others:
        own = getattr(run.train_config, other)
        values = kept[other].unique()
        base = own if own in values else kept[other].mode().iloc[0] if len(kept) else own
        kept = kept[kept[other] == base]
    if kept[axis].nunique() < 2:
        return pd.DataFrame(columns=["head", axis, "mean", "std", "n"])
    groups = kept.groupby(["head", axis], sort=False).war
    return pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=0), "n": groups.size()}).reset_index()


def describe_fixed(sweep: pd.DataFrame, axis: str, run: Run) -> str:
    """Say what stood still, e.g. '5 frames per clip, learning rate 0.0001'."""
    words = []
    for other, said in SWEEP_AXES.items():
        if other != axis:
            own, values = getattr(run.train_config, other), sweep[other].unique()
            base = own if own in values else sweep[other].mode().iloc[0]
            words.append(f"{said} {base:g}")
    return ", ".join(words)


def clips_caption(points: pd.DataFrame) -> str:
    """Say what another number of sub-videos does to the sampling, which the paper leaves open."""
    parts = [
        f"n = {clips}: {span(clips)} slots, start in 0 … {start_count(clips) - 1}, "
        f"{start_count(clips) // 2} when testing"
        for clips in sorted(int(value) for value in points["clips"].unique())
        if clips != 7
    ]
    return (
        f"n sub-videos span 10n + 5 of the {NUM_SLOTS} slots, so the start is drawn from min(30, {NUM_SLOTS} - span + 1) "
        f"slots in training and is the middle one in testing ({'; '.join(parts)}). The paper says this for n = 7 only."
    )


def draw_sweep(sweep: pd.DataFrame, run: Run, folder: Path) -> list[Path]:
    """Write sweep_<setting>.png for every setting that was swept, around the run's own settings; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for axis, said in SWEEP_AXES.items():
        points = slice_along(sweep, axis, run)
        if not len(points):
            continue
        note = f"{describe_fixed(sweep, axis, run)}; bars: one deviation over {int(points['n'].max())} folds and seeds (ddof 0)"
        if axis == "clips":
            note += ". " + clips_caption(points)
        path = folder / f"sweep_{axis}.png"
        with atomic_write(path) as temporary:
            temporary.write_bytes(png(sweep_figure(points, axis, said, note)))
        drawn.append(path)
    return drawn
