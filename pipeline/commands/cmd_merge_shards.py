"""ceflpipe merge-shards: merge the caches of extract --shard."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import echo, log, print_failures
from ..dataset import DatasetOptions
from .options import OUT_FILE, dataset_options, encoder_option


@click.command(
    name="merge-shards",
    epilog="Example: for i in 1 2 3 4; do ceflpipe extract -d mmi --shard $i/4; done; ceflpipe merge-shards -d mmi",
    short_help="Merge the caches of extract --shard into one.",
)
@dataset_options
@click.option("--out", type=OUT_FILE, help="Feature cache; default: artifacts/features/NAME/ENCODER.h5.")
@encoder_option
def command(data: DatasetOptions, out: Path | None, encoder: str | None) -> None:
    """Merge the caches of `ceflpipe extract --shard i/N` into one, byte-identical to that of a single run.

    The shard files are kept; delete them once you have checked the result. Exits with 1 if some videos are not ok.
    """
    from collections import Counter

    from ...cache.hdf5 import read_index
    from ...stages.extract.shards import merge_shards

    source = data.resolve().with_encoder(encoder)
    manifest, cache = source.manifest(), out or source.features_path
    source.claim_names()
    failed = merge_shards(manifest, cache)
    codes = Counter(read_index(cache).code_hash)
    if len(codes) > 1:
        log(
            f"{cache}: made by {len(codes)} versions of stage one's code: {', '.join(f'{c} {n}' for c, n in codes.items())}"
        )
    print_failures(failed, len(manifest.entries))
    echo(str(cache))
    raise click.exceptions.Exit(1 if failed else 0)
