"""ceflpipe encoder: build an encoder file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ...cache.errors import CeflError
from ...stages.encoder.onnx_card import NetworkConfig
from ..config import load_encoder_config, validate
from ..console import echo, log, progress, progress_lines
from ..paths import ENCODER_SUFFIXES, built_encoder_file, encoder_file, pretrained_file
from .cmd_encoder_adapt import command as adapt_command
from .cmd_encoder_quantize import command as quantize_command
from .options import OUT_FILE, announce, device_option, onnx_options, quiet_option

PHOTOGRAPHS = "photographs:"
NETWORKS = ("onnx", "timm", "hub")
"""Sources that become an ONNX file."""
ENCODER_BYTES = 50_000_000
"""Size of an encoder file of 32-bit numbers, somewhat rounded up."""


SUBCOMMANDS = {str(command.name): command for command in (adapt_command, quantize_command)}


class EncoderCommand(click.Command):
    """The command that builds an encoder, or, where the first word is adapt or quantize, the command of that name."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in SUBCOMMANDS:
            return SUBCOMMANDS[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    name="encoder",
    cls=EncoderCommand,
    epilog="Examples: ceflpipe encoder actors; ceflpipe encoder photographs:ferplus/ --joint actors --name ferplus; "
    "ceflpipe encoder file:Resnet18_FER+_pytorch.pth.tar --name fer --normalization unit",
    short_help="Build the frame encoder: actors, photographs:FOLDER, imagenet, file:PATH, onnx:FILE, timm:NAME, hub:OWNER/NAME.",
)
@click.argument("source", metavar="SOURCE")
@click.option("--name", help="Name of the encoder; default: the source's.")
@click.option(
    "--normalization", "--normalisation", "normalization", type=click.Choice(["imagenet", "unit"]),
    help="Pixel normalization that a file: checkpoint expects: imagenet (mean and std of ImageNet) or unit ([0, 1] only). "
    "Default: as recorded in an encoder file, else imagenet."
)  # fmt: skip
@click.option(
    "--crop-size", type=click.IntRange(32, 1024),
    help="Side in pixels of the crops to train on; of a file: checkpoint, of those it was trained on."
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Training steps of actors.")
@click.option("--epochs", type=click.IntRange(1), help="Training epochs of photographs.")
@click.option("--batch-size", type=click.IntRange(2), help="Photographs of a training step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Highest of the one-cycle schedule.")
@click.option(
    "--label-balance", type=click.FloatRange(0, 1),
    help="0: draw photographs alike; 1: draw labels alike; between: rare labels more often."
)  # fmt: skip
@click.option(
    "--joint", type=click.Choice(["none", "actors"]), help="Train on rendered actors together with photographs."
)
@click.option("--init", metavar="ENCODER", help="Encoder to start from, by name or file; default: random weights.")
@click.option(
    "--storage", type=click.Choice(["fp32", "fp16", "int8"]),
    help="Weights in the file of photographs: 45, 22 or 11 MB; computing is the same."
)  # fmt: skip
@click.option("--license", "license_text", default="", help="Terms of the photographs, for the model card.")
@click.option("--seed", type=int, help="Random seed of a training.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch in a training; default: all cores.")
@onnx_options
@click.option("--out", type=OUT_FILE, help="Default: artifacts/weights/NAME.safetensors, of a network NAME.onnx.")
@click.option("--force", is_flag=True, help="Build it again if it exists; a file that is no encoder is named first.")
@device_option
@quiet_option
def command(
    source: str, name: str | None, normalization: str | None, crop_size: int | None, steps: int | None, init: str | None,
    license_text: str, threads: int | None, out: Path | None, force: bool, device: str, quiet: bool,
    onnx: dict[str, Any], **options: Any,
) -> None:  # fmt: skip
    """Build one file of a frame encoder that records its crop size, its normalization and where it comes from.

    \b
    SOURCE is one of
      actors              train on rendered faces for a few minutes; needs no download
      photographs:FOLDER  train on face photographs: FER+, a folder per expression, or a CSV path,label[,split]
      imagenet            torchvision's IMAGENET1K_V1; downloads 45 MB once
      file:PATH           a checkpoint of your own (.pth, .pth.tar, .pt, .safetensors), e.g. Emotion-FAN's FER+ one
      onnx:FILE           any network that takes images, exported as ONNX: its features may have any width
      timm:NAME           a network of timm (pip install "ceflpipe[timm]"), e.g. vit_base_patch32_clip_224.openai
      hub:OWNER/NAME      an ONNX network of the Hugging Face hub (pip install "ceflpipe[hub]")
      adapt               fine-tune an encoder on the folds of a data set: see ceflpipe encoder adapt --help
      quantize            make an encoder for 8-bit arithmetic: see ceflpipe encoder quantize --help
      NAME                a name of files: or networks: in configs/encoder.yaml, which says the source and its path

    An encoder of the package is not built, only named: ceflpipe inspect NAME prints its model card.

    Training on photographs takes hours on a processor. It writes a checkpoint every three minutes: run the same command
    again after an interruption. ceflpipe inspect ENCODER.safetensors prints its model card.
    """
    from ...cache.ownership import check_files
    from ...stages.encoder.weights import is_encoder_file
    from ..executor import num_cores, process_executor

    config = load_encoder_config()
    entry = config.networks.get(source)
    if entry:
        name, source = name or source, f"{entry.source}:{entry.path or entry.name}"
    elif file := config.files.get(source):
        name, source = name or source, f"{file.source}:{file.path}"
        normalization, crop_size = normalization or file.normalization, crop_size or file.crop_size
    elif pretrained := pretrained_file(source):
        if name or out or force:
            raise CeflError(
                f"{source}: comes with ceflpipe, so it cannot be built; use it by its name, or {pretrained}"
            )
        log(f"{source} comes with ceflpipe, there is nothing to build; ceflpipe inspect {source} prints its model card")
        echo(str(pretrained))
        return
    network = _network_config(source, entry, {**onnx, "crop_size": crop_size, "license": license_text})
    name = name or _default_name(source)
    suffix = ".onnx" if network else ".safetensors"
    path = out or _new_encoder_file(name, suffix)
    pretrained = pretrained_file(path.stem)
    if pretrained and path.resolve() in (pretrained, built_encoder_file(path.stem, suffix).resolve()):
        raise CeflError(
            f"{path}: {path.stem} always is the encoder that comes with ceflpipe; give another --name, or --out FILE elsewhere "
            "and use it by its path"
        )
    given = network.path if network else source.partition(":")[2]
    sources = [Path(given).expanduser()] if given else []
    sources += [encoder_file(init)] if init else []
    announce(
        check_files([path], "--out", inputs=sources, is_ours=is_encoder_file, force=force, required_bytes=ENCODER_BYTES)
    )
    if path.exists() and not force:
        log(f"{path} exists; build it again with --force")
        echo(str(path))
        return
    if network:
        from ...stages.encoder.build_network import build_network_encoder

        executor = process_executor(1, num_cores())
        metadata = build_network_encoder(
            network, path, name, card=onnx.get("card"), alone=entry is not None, executor=executor
        )
        _print_metadata(path, metadata, quiet)
        return
    from ...stages.encoder.build import build_encoder_weights

    options = {key: value for key, value in options.items() if value is not None}
    training = None
    if source.startswith(PHOTOGRAPHS):
        config = _override(config, "photographs", {**options, **({"crop_size": crop_size} if crop_size else {})})
        training = _photograph_training(source, init, license_text, device, threads)
    elif source == "actors":
        changes = {
            "steps": steps,
            "crop_size": crop_size,
            "seed": options.get("seed"),
            "batch_size": options.get("batch_size"),
        }
        config = _override(config, "actors", {key: value for key, value in changes.items() if value is not None})
    show_progress = progress if training is None or sys.stderr.isatty() else progress_lines
    with show_progress("encoder", quiet=quiet) as on_progress:
        metadata = build_encoder_weights(
            source, path, name, normalization=normalization, crop_size=crop_size, config=config.actors, training=training,
            photograph_config=config.photographs, executor=process_executor(num_cores()), on_progress=on_progress,
        )  # fmt: skip
    _print_metadata(path, metadata, quiet)


def _print_metadata(path: Path, metadata: dict[str, str], quiet: bool) -> None:
    if not quiet:
        for key, value in metadata.items():
            log(f"{key}: {value}")
    echo(str(path))


def _network_config(source: str, entry: NetworkConfig | None, options: dict[str, Any]) -> NetworkConfig | None:
    """Return what network to make an encoder of, with options of the command line; None for a ResNet-18.

    Raises CeflError for an option that is for networks only.
    """
    kind, _, rest = source.partition(":")
    values = {key: value for key, value in options.items() if value not in (None, "")}
    if entry is None and kind not in NETWORKS:
        for key in set(values) - {"crop_size", "license"}:
            raise CeflError(f"--{key.replace('_', '-')}: is for ONNX networks; use it with ceflpipe encoder onnx:FILE")
        return None
    values.pop("card", None)
    if checkpoint := values.pop("checkpoint", None):
        values["path"] = str(checkpoint)
    base = entry.model_dump() if entry else {"source": kind, "path" if kind == "onnx" else "name": rest}
    return validate(NetworkConfig, {**base, **values}, f"encoder {source}")


def _new_encoder_file(name: str, suffix: str) -> Path:
    """Return the file to write for a name; raises CeflError if there is one of the other kind, which the name could mean too."""
    path = built_encoder_file(name, suffix) if Path(name).suffix not in ENCODER_SUFFIXES else encoder_file(name)
    for other in (built_encoder_file(name, other) for other in ENCODER_SUFFIXES if other != suffix):
        if path == built_encoder_file(name, suffix) and other.is_file():
            raise CeflError(f"{name}: {other} has this name already; remove it, or give another --name")
    return path


def _default_name(source: str) -> str:
    kind, _, rest = source.partition(":")
    if kind in ("file", *NETWORKS):
        return Path(rest).name.split(".")[0]
    return Path(rest).resolve().stem if kind == "photographs" else source


def _override(config: Any, section: str, changes: dict[str, Any]) -> Any:
    """Return the configuration with validated changes in one section."""
    current = getattr(config, section)
    return config.model_copy(update={section: type(current).model_validate({**current.model_dump(), **changes})})


def _photograph_training(source: str, init: str | None, license_text: str, device: str, threads: int | None) -> Any:
    from ...stages.encoder.train_photographs import PhotographTraining
    from ...stages.encoder.weights import build_command
    from ...stages.extract.find_face import find_landmarks

    start = encoder_file(init) if init else None
    if start and not start.is_file():
        raise CeflError(f"--init {init}: no such encoder {start}; build it with {build_command(start)}")
    if threads:
        import torch

        torch.set_num_threads(threads)
    folder = Path(source.removeprefix(PHOTOGRAPHS)).expanduser()
    command_line = shlex.join(["ceflpipe", *sys.argv[1:]])
    return PhotographTraining(folder, find_landmarks, start, license_text, command_line, device)
