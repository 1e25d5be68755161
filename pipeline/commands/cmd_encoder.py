"""ceflpipe encoder: build an encoder file."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import load_encoder_config
from ..console import echo, log, progress
from .options import PATH, quiet_option


@click.command(
    name="encoder",
    epilog="Examples: ceflpipe encoder actors; "
    "ceflpipe encoder file:Resnet18_FER+_pytorch.pth.tar --name fer --normalization unit",
    short_help="Build the frame encoder: actors, imagenet, or file:PATH.",
)
@click.argument("source", metavar="SOURCE")
@click.option("--name", help="Name of the encoder; default: the source's.")
@click.option(
    "--normalization", "--normalisation", "normalization", type=click.Choice(["imagenet", "unit"]),
    help="Pixel normalization that a file: checkpoint expects: imagenet (mean and std of ImageNet) or unit ([0, 1] only). "
    "Default: as recorded in an encoder file, else imagenet."
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Training steps of actors.")
@click.option("--out", type=PATH, help="Default: artifacts/weights/NAME.safetensors.")
@click.option("--force", is_flag=True, help="Build it again if it exists.")
@quiet_option
def command(
    source: str, name: str | None, normalization: str | None, steps: int | None, out: Path | None, force: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Build one safetensors file of ResNet-18 weights that records its normalization and where it comes from.

    \b
    SOURCE is one of
      actors      train on rendered faces for a few minutes; needs no download
      imagenet    torchvision's IMAGENET1K_V1; downloads 45 MB once
      file:PATH   a checkpoint of your own (.pth, .pth.tar, .pt, .safetensors), e.g. Emotion-FAN's FER+ one
    """
    from ...stages.encoder.build import build_encoder_weights
    from ..executor import num_cores, process_executor
    from ..paths import encoder_file

    name = name or (Path(source[5:]).name.split(".")[0] if source.startswith("file:") else source)
    path = out or encoder_file(name)
    if path.exists() and not force:
        log(f"{path} exists; build it again with --force")
        echo(str(path))
        return
    config = load_encoder_config().actors
    if steps:
        config = config.model_copy(update={"steps": steps})
    with progress("encoder", quiet=quiet) as on_progress:
        metadata = build_encoder_weights(
            source, path, name, normalization=normalization, config=config,
            executor=process_executor(num_cores()), on_progress=on_progress,
        )  # fmt: skip
    if not quiet:
        for key, value in metadata.items():
            log(f"{key}: {value}")
    echo(str(path))
