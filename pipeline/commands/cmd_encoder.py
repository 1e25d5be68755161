"""ceflpipe encoder: obtain ResNet-18 weights."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import load_encoder_config
from ..console import progress, say, show
from .options import quiet_option


@click.command(
    name="encoder",
    epilog="Examples: ceflpipe encoder actors; "
    "ceflpipe encoder file:Resnet18_FER+_pytorch.pth.tar --name fer --normalisation unit",
    short_help="Make the frame encoder's weights file: actors, imagenet, or file:PATH.",
)
@click.argument("source", metavar="SOURCE")
@click.option("--name", help="Name of the weights file; default: the source's.")
@click.option(
    "--normalisation", type=click.Choice(["imagenet", "unit"]),
    help="How the weights of a file: want pixels; unit is [0, 1] without mean and std.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Training steps of actors.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: artifacts/weights/NAME.safetensors.")
@click.option("--force", is_flag=True, help="Make it again although it is there.")
@quiet_option
def command(
    source: str,
    name: str | None,
    normalisation: str | None,
    steps: int | None,
    out: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Make one safetensors file of ResNet-18 weights that knows its normalisation and where it came from.

    \b
    SOURCE is one of
      actors      train on rendered faces for a few minutes; needs no download
      imagenet    torchvision's IMAGENET1K_V1; downloads 45 MB once
      file:PATH   a checkpoint of your own (.pth, .pth.tar, .pt, .safetensors), e.g. Emotion-FAN's FER+ one
    """
    from ...stages.encoder.build import build
    from ..executor import cores, processes
    from ..paths import weights_file

    settings = load_encoder_config().actors
    title = name or (Path(source[5:]).name.split(".")[0] if source.startswith("file:") else source)
    target = out or weights_file(title)
    if target.exists() and not force:
        say(f"{target} is there already; make it again with --force")
        show(str(target))
        return
    training = {**settings.model_dump(), "mapper": processes(cores())}
    if steps:
        training["steps"] = steps
    total = 0
    if source == "actors":
        from ...stages.encoder.synthetic import ticks

        total = ticks(training["pictures"], training["steps"])
    with progress("encoder", total, quiet=quiet) as bar:
        about = build(
            source, target, title, normalisation=normalisation, training=training, on_step=lambda note: bar(1, note)
        )
    if not quiet:
        for key, value in about.items():
            say(f"{key}: {value}")
    show(str(target))
