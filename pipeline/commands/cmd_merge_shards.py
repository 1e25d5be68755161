"""ceflpipe merge: the caches of extract --shard become one."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import show, show_failures
from ..dataset import find_source
from .options import source_options


@click.command(
    name="merge",
    epilog="Example: for i in 1 2 3 4; do ceflpipe extract -d mmi --shard $i/4; done; ceflpipe merge -d mmi",
    short_help="Put the caches of extract --shard into one.",
)
@source_options
@click.option("--out", type=click.Path(path_type=Path), help="Feature cache; default: artifacts/features/NAME.h5.")
def command(
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None,
    allow_outside: bool,
    out: Path | None,
) -> None:
    """Put the caches that `ceflpipe extract --shard i/N` made into one, the same to the byte as one run would have made.

    The shards stay; remove them when the result pleases. The exit code is 1 when some videos are not ok.
    """
    from ...stages.extract.shards import merge_shards

    source = find_source(dataset, manifest, root, labels, allow_outside=allow_outside)
    listed, cache = source.manifest(), out or source.features
    failed = merge_shards(listed, cache)
    show_failures(failed, len(listed.rows))
    show(str(cache))
    raise click.exceptions.Exit(1 if failed else 0)
