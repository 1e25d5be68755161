"""ceflpipe encoder quantize: an encoder that can be computed in 8 bits."""

from __future__ import annotations

import click

from ...cache.ownership import check_files
from ..console import echo, kept_on_interruption, log, progress
from ..dataset import DatasetOptions
from ..names import encoder_key
from ..paths import built_encoder_file
from .options import announce, dataset_options, quiet_option

ENCODER_BYTES = 50_000_000


@click.command(
    name="quantize",
    epilog="Example: ceflpipe encoder quantize --dataset mmi; then ceflpipe extract --dataset mmi --encoder faces-int8 "
    "--precision int8",
    short_help="Measure what an encoder needs to be computed in 8 bits.",
)
@dataset_options
@click.option("--encoder", help="ResNet-18 to quantize, by name or file; default: the data set's.")
@click.option("--workers", type=click.IntRange(1), help="Processes that make crops; default: one per core.")
@click.option("--force", is_flag=True, help="Make it again if it exists; a file that is no encoder is named first.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, do nothing.")
@quiet_option
def command(
    data: DatasetOptions, encoder: str | None, workers: int | None, force: bool, dry_run: bool, quiet: bool
) -> None:  # fmt: skip
    """Write an encoder again, as artifacts/weights/NAME-int8.safetensors, with what OpenVINO needs to compute it in 8 bits.

    On processors this takes about half the time of the same network in bf16, or in fp32 where there is no bf16. The ranges
    of its activations are measured on the faces of half of the data set's subjects, and tested on the others: if the
    features of one face have a cosine similarity below 0.998 to those in fp32, nothing is written. Features of another
    precision are other features, so heads are trained on them anew, and int8 is used only where --precision int8 says so.
    """
    from ...stages.encoder.weights import is_encoder_file
    from ...stages.extract.encoder_openvino import openvino_precision
    from ...stages.extract.quantization import quantize_encoder
    from ..crops import CropsOptions, crops_config, crops_path, make_crops, print_crops_plan

    openvino_precision("int8")  # before crops are made
    source = data.resolve().with_encoder(encoder)
    config = crops_config(source)
    name = f"{encoder_key(source.extract_config.encoder)}-int8"
    path = built_encoder_file(name)
    announce(
        check_files(
            [path],
            "--encoder",
            inputs=[config.encoder],
            is_ours=is_encoder_file,
            force=force,
            required_bytes=ENCODER_BYTES,
        )
    )
    if path.exists() and not force:
        log(f"{path} exists; make it again with --force")
        echo(str(path))
        return
    with (
        progress("cropping", quiet=quiet or dry_run) as on_progress,
        kept_on_interruption("What is finished is kept; run the same command to go on."),
    ):
        plan = None if quiet else print_crops_plan
        make_crops(source, CropsOptions(workers=workers, dry_run=dry_run), on_plan=plan, on_progress=on_progress)
    if dry_run:
        echo("dry run: nothing was done")
        return
    with progress("quantizing", quiet=quiet) as on_progress:
        metadata = quantize_encoder(
            source.manifest(), crops_path(source, config), config.encoder, path, path.stem, on_progress=on_progress
        )
    if not quiet:
        for key, value in metadata.items():
            log(f"{key}: {value}")
        log(f"next: ceflpipe extract {source.option} --encoder {name} --precision int8")
    echo(str(path))
