"""ceflpipe demo: render the demo data set."""

from __future__ import annotations

from pathlib import Path

import click

from ...cache.errors import CeflError
from ..config import load_dataset_config
from ..console import echo, log, progress
from .options import OUT_FOLDER, quiet_option


@click.command(
    name="demo",
    epilog="Example: ceflpipe demo --subjects 6 --root /tmp/actors",
    short_help="Render the demo data set: actors with known labels, subjects and apex.",
)
@click.option("--root", type=OUT_FOLDER, help="Folder to write to; default: root of configs/demo.yaml.")
@click.option(
    "--subjects", type=click.IntRange(2, 9999), help="How many actors; each plays six expressions and a neutral face."
)
@click.option("--seed", type=int, help="Random seed; default: that of configs/demo.yaml.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per core.")
@quiet_option
def command(root: Path | None, subjects: int | None, seed: int | None, workers: int | None, quiet: bool) -> None:
    """Render the demo data set: synthetic actors whose labels, subjects and apex frames are known; neutral has no apex.

    Existing videos that were rendered with the same settings are kept.
    """
    from ...stages.demo.action_units import LABELS
    from ...stages.demo.demo_dataset import make_dataset
    from ..executor import num_cores, process_executor

    dataset = load_dataset_config("demo")
    if dataset.demo is None:
        raise CeflError("configs/demo.yaml has no demo: section")
    overrides = {key: value for key, value in (("subjects", subjects), ("seed", seed)) if value is not None}
    config = dataset.demo.model_copy(update=overrides)
    executor = process_executor(workers or num_cores())
    with progress("rendering", quiet=quiet) as on_progress:
        path = make_dataset(root or Path(dataset.root), config, executor=executor, on_progress=on_progress)
    if not quiet:
        log(f"{config.subjects} actors x {len(LABELS)} labels; next: ceflpipe extract")
    echo(str(path))
