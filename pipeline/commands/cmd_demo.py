"""ceflpipe demo: render the actors."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import load_dataset_config
from ..console import echo, log, progress
from .options import quiet_option


@click.command(
    name="demo",
    epilog="Example: ceflpipe demo --subjects 6 --root /tmp/actors",
    short_help="Render the demo data set: actors with known labels, subjects and apex.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where to put it; default: root of configs/demo.yaml.")
@click.option("--subjects", type=click.IntRange(2), help="How many actors; each plays six expressions.")
@click.option("--seed", type=int, help="Another seed, other performances.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per core.")
@quiet_option
def command(root: Path | None, subjects: int | None, seed: int | None, workers: int | None, quiet: bool) -> None:
    """Render the demo data set: drawn actors whose labels, subjects and apex frames are known.

    Videos that are there already and were made with the same settings are kept.
    """
    from ...stages.demo.make import make
    from ...stages.demo.units import LABELS
    from ..executor import num_cores, process_executor

    config = load_dataset_config("demo")
    settings = config.demo
    if settings is None:
        raise click.ClickException("configs/demo.yaml has no demo: section")
    count = subjects or settings.subjects
    with progress("rendering", quiet=quiet) as on_progress:
        listing = make(
            root or Path(config.root),
            subjects=count,
            size=settings.size,
            frames=settings.num_frames,
            fps=settings.fps,
            seed=settings.seed if seed is None else seed,
            mapper=process_executor(workers or num_cores()),
            on_video=on_progress,
        )
    if not quiet:
        log(f"{count} actors x {len(LABELS)} expressions; next: ceflpipe encoder actors, then ceflpipe extract")
    echo(str(listing))
