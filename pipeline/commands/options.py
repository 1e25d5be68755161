"""Option decorators shared by several commands; large groups are passed to the command as one object."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ...stages.extract.extract_config import DECODE_TIMEOUT
from ...stages.heads.train_config import TUNED_SETTINGS, CVConfig, TrainConfig
from ..config import TrainOptions
from ..console import log
from ..dataset import DatasetOptions
from ..paths import hidden_encoder_file

F = Callable[..., Any]
PATH = click.Path(path_type=Path)
PRECISION_HELP = "Arithmetic; auto: the fastest native one."


class OutputPath(click.Path):
    """A path that a command writes; which commands have one, tests find by this type."""

    def __init__(self, kind: str) -> None:
        super().__init__(path_type=Path)
        self.name = kind


class CommaList(click.ParamType):
    """A list such as ``1,3,5``, passed to the command as a tuple of ``kind``, without duplicates."""

    name = "list"

    def __init__(self, kind: type = str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):  # converted already
            return value
        values = []
        for part in filter(None, map(str.strip, value.split(","))):
            try:
                values.append(self._kind(part))
            except ValueError:
                self.fail(f"{value}: {part!r} is not a number; give a list such as 1,3,5", param, ctx)
        if len(set(values)) < len(values):
            self.fail(f"{value}: duplicate value", param, ctx)
        return tuple(values)


class TunedSettings(CommaList):
    """Settings to tune, ``lr,weight_decay,epochs``, passed to the command by their names in TrainConfig."""

    name = "settings"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        names = tuple(
            "learning_rate" if name == "lr" else name.replace("-", "_") for name in super().convert(value, param, ctx)
        )
        unknown = [name for name in names if name not in TUNED_SETTINGS]
        if unknown or not names or len(set(names)) < len(names):
            problem = (
                f"{unknown[0]!r} cannot be tuned"
                if unknown
                else "a setting is listed twice"
                if names
                else "nothing listed"
            )
            self.fail(
                f"{value}: {problem}; give one or more of lr, weight_decay and epochs, as in --tune lr,epochs",
                param,
                ctx,
            )
        return names


class ChannelValues(click.ParamType):
    """Three numbers such as ``0.485,0.456,0.406``, one for each color, passed to the command as a tuple."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):  # converted already
            return value
        try:
            values = tuple(float(part) for part in value.split(","))
        except ValueError:
            values = ()
        if len(values) != 3:
            self.fail(f"{value}: expected three numbers; write 0.485,0.456,0.406", param, ctx)
        return values


class MemorySize(click.ParamType):
    """A size such as ``8GB`` or ``500MB``, passed to the command in bytes; a number without a unit is in GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])?B?", str(value).strip(), re.IGNORECASE)
        size = int(float(match[1]) * 1024 ** (2 if (match[2] or "G").upper() == "M" else 3)) if match else 0
        return size or self.fail(f"{value!r} is not a size; write 8GB or 500MB", param, ctx)


OUT_FILE, OUT_FOLDER = OutputPath("file"), OutputPath("folder")


def dataset_options(function: F) -> F:
    """Add the options that choose the videos, passed to the command as ``data: DatasetOptions``."""
    names = [option.name for option in fields(DatasetOptions)]

    @wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        return function(*args, data=DatasetOptions(**{name: values.pop(name) for name in names}), **values)

    return _add(
        command,
        click.option("--dataset", "-d", metavar="NAME", help="A data set of configs/; default: that of pipeline.yaml."),
        click.option("--manifest", type=PATH, help="A CSV of your own: path,label[,subject,…]."),
        click.option(
            "--root",
            type=PATH,
            help="Folder of the data set; with --manifest the folder that its paths are relative to "
            "(default: that of the CSV).",
        ),
        click.option(
            "--labels",
            type=CommaList(),
            metavar="A,B,…",
            help="Labels of your own, if they are not the usual expressions.",
        ),
        click.option(
            "--allow-external-paths",
            is_flag=True,
            help="Allow every path that leads out of the root folder; absolute paths and links of a --manifest are allowed "
            "without it.",
        ),
    )


def onnx_options(function: F) -> F:
    """Add the options for ONNX networks, passed to the command as ``onnx``: a dict of those that were given."""

    @wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in ONNX_OPTIONS}
        return function(*args, onnx={name: value for name, value in given.items() if value is not None}, **values)

    return _add(
        command,
        click.option("--mean", type=ChannelValues(), help="ONNX: mean of the pixels in 0..1, red, green and blue."),
        click.option("--std", type=ChannelValues(), help="ONNX: standard deviation of the pixels in 0..1."),
        click.option(
            "--layout", type=click.Choice(["NCHW", "NHWC"]), help="ONNX: axes of the input; default: as the graph says."
        ),
        click.option(
            "--color-order", type=click.Choice(["rgb", "bgr"]), help="ONNX: order of the colors; default: rgb."
        ),
        click.option("--input-name", help="ONNX: the input for the images; default: the only one."),
        click.option(
            "--output-name",
            metavar="TENSOR",
            help="ONNX: the features, any tensor of the graph; default: the only output.",
        ),
        click.option(
            "--pool",
            type=click.Choice(["none", "cls", "mean"]),
            help="ONNX: of an output (N, T, D): the first token, or the mean of all.",
        ),
        click.option(
            "--template",
            type=click.Choice(["arcface"]),
            help="ONNX: to which the landmarks are aligned; default: arcface.",
        ),
        click.option("--score", help="ONNX: held-out accuracy in words, for the model card."),
        click.option(
            "--checkpoint",
            type=PATH,
            help="timm: weights (.safetensors, .pth); hub: a copy of the file. Nothing is downloaded.",
        ),
        click.option("--revision", help="hub, timm: commit, branch or tag; default: main. The commit is recorded."),
        click.option("--file", help="hub: the .onnx file in the repository; default: onnx/model.onnx."),
        click.option(
            "--card", type=PATH, help="ONNX: a JSON file with these options; default: NETWORK.json beside NETWORK.onnx."
        ),
    )


ONNX_OPTIONS = (
    "mean", "std", "layout", "color_order", "input_name", "output_name", "pool", "template", "score", "card", "checkpoint",
    "revision", "file",
)  # fmt: skip
"""Names of the options that onnx_options adds."""


def training_options(function: F) -> F:
    """Add the options of train-heads, ablate and sweep, passed to the command as ``options: TrainOptions``.

    Further options of the command that are named like a field of TrainConfig or CVConfig go there too.
    """

    @wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        names = ("features", "encoder", "device", "memory")
        others = {name: values.pop(name) for name in names if name in values}
        train = {name: values.pop(name) for name in TrainConfig.model_fields if name in values}
        cv = {name: values.pop(name) for name in CVConfig.model_fields if name in values}
        return function(*args, options=TrainOptions(train=train, cv=cv, **others), **values)

    return _add(
        command,
        features_option,
        encoder_option,
        click.option(
            "--folds",
            type=click.IntRange(2),
            help="Number of folds, for subject and stratified; default: the data set's.",
        ),
        click.option(
            "--fold-scheme",
            type=click.Choice(["subject", "stratified", "official", "split"]),
            help="subject keeps subjects apart, stratified ignores them; official and split follow the manifest.",
        ),
        click.option("--epochs", type=click.IntRange(0), help="Training epochs (paper: 120)."),
        click.option("--batch-size", type=click.IntRange(1), help="Videos per step and fold (paper: 8)."),
        click.option("--loss", type=click.Choice(["auto", "bce", "cross-entropy"]), help="auto: the head's own."),
        click.option(
            "--class-weights/--no-class-weights", default=None, help="Make all labels count the same in the loss."
        ),
        click.option(
            "--checkpoint", type=click.Choice(["last", "best-test"]), help="Epoch to keep; best-test is optimistic."
        ),
        click.option(
            "--allow-leaks",
            is_flag=True,
            default=None,
            help="Score although a video or a person is in train and test under two names; the run says so.",
        ),
        click.option("--tta-views", type=click.IntRange(1), help="Test-time views (start slots) to average."),
        click.option("--seed", type=int, help="First seed."),
        click.option(
            "--seeds",
            "num_seeds",
            type=click.IntRange(1),
            help="Number of seeds, counted up from --seed; default: that of params.yaml, 1.",
        ),
        click.option(
            "--tune",
            type=TunedSettings(),
            metavar="lr[,weight_decay,epochs]",
            help="Choose these for each fold and seed on held-out videos of its training set; no test video is looked at.",
        ),
        click.option(
            "--tune-learning-rates",
            "--tune-lr",
            type=CommaList(float),
            metavar="X,X,…",
            help="Learning rates that --tune chooses from; default: 0.0001,0.0003,0.001,0.003.",
        ),
        click.option(
            "--tune-weight-decays",
            type=CommaList(float),
            metavar="X,X,…",
            help="Weight decays that --tune chooses from; default: 0.00001,0.0001,0.001.",
        ),
        device_option,
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help=PRECISION_HELP),
        click.option(
            "--deterministic/--no-deterministic",
            default=None,
            help="Take only algorithms that give the same bytes every time, also on a GPU, where they are slower.",
        ),
        click.option(
            "--memory",
            type=MemorySize(),
            help="Memory that training may take, e.g. 8GB; if not all folds and seeds fit, they train one part after the other. "
            "Default: half of what is free.",
        ),
    )


def features_option(function: F) -> F:
    return click.option("--features", type=PATH, help="Feature cache; default: artifacts/features/NAME/ENCODER.h5.")(
        function
    )


def encoder_option(function: F) -> F:
    """Add --encoder to a command that reads features."""
    return click.option(
        "--encoder",
        help="Encoder whose features are used, by name or file; default: the data set's, else faces.",
    )(function)


def fps_option(function: F) -> F:
    return click.option(
        "--fps",
        type=click.FloatRange(0, 1000, min_open=True),
        help="Frames per second of image folders (default: 25 is assumed); videos have their own times.",
    )(function)


def det_size_option(function: F) -> F:
    return click.option(
        "--det-size",
        type=click.IntRange(64, 4096),
        help="Longest side in pixels of the image in which faces are searched, 640 by default; larger: smaller faces, slower.",
    )(function)


def check_region(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return a region 'x y width height' as a manifest has it; raises BadParameter if it is not four numbers of pixels."""
    parts = value.replace(",", " ").split()
    if parts and (len(parts) != 4 or not all(part.isdecimal() for part in parts) or "0" in parts[2:]):
        raise click.BadParameter(
            f"{value!r} is not four whole numbers; write left, top, width and height, as in --region '0 0 640 480'"
        )
    return " ".join(parts)


def decode_timeout_option(function: F) -> F:
    return click.option(
        "--decode-timeout",
        default=DECODE_TIMEOUT,
        show_default=True,
        type=click.FloatRange(1),
        help="Seconds without a frame after which a worker's video is stopped and listed as stalled.",
    )(function)


def device_option(function: F) -> F:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")(function)


def dask_options(function: F) -> F:
    """Add --cluster and --dask-resource."""
    return _add(
        function,
        click.option(
            "--cluster", metavar="URL", help="Run on the Dask cluster at dask://HOST:PORT instead of on this machine."
        ),
        click.option(
            "--dask-resource",
            default="",
            metavar="NAME",
            help="With --cluster: only workers that offer NAME, e.g. GPU.",
        ),
    )


def quiet_option(function: F) -> F:
    return click.option("--quiet", "-q", is_flag=True, help="No progress bar and no notes.")(function)


def force_option(function: F) -> F:
    return click.option(
        "--force",
        is_flag=True,
        help="Replace what ceflpipe did not write, or what was edited since; it is named first.",
    )(function)


def announce(replaced: str) -> None:
    """Say what --force replaces; the argument is that of check_files and check_folder."""
    if replaced:
        log(f"--force: {replaced}")


def warn_of_hidden_encoder(name: str | Path) -> None:
    """Print a warning if a file in artifacts/weights is not used because an encoder of its name comes with ceflpipe."""
    if hidden := hidden_encoder_file(name):
        log(
            f"warning: {hidden} is not used: {name} is the encoder that comes with ceflpipe; for the file give its path"
        )


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def _add(function: F, *options: Callable[[F], F]) -> F:
    """Apply options so that the help lists them in the order given."""
    for option in reversed(options):
        function = option(function)
    return function
