"""Make an encoder file of an ONNX network: onnx:FILE, or a folder with one, its data and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ...cache.atomic import atomic_write, read_json, remove_stale_tmp, sha256_of
from ...cache.errors import CeflError, did_you_mean
from ..callbacks import Executor
from .onnx_card import MAX_BATCH_SIZE, PREFIX, OnnxCard, OnnxOptions, batch_size_for, format_shape, parse_card
from .onnx_graph import (
    GraphInput,
    ModelProto,
    Shape,
    describe_tensors,
    feature_tensors,
    graph_precision,
    image_input,
    infer_shapes,
    keep_output,
    parse_untrusted,
    tensor_names,
    with_entries,
)
from .onnx_network import Probe, probe_network

MEANS = (
    "ImageNet's are --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225; CLIP's --mean 0.48145466,0.4578275,0.40821073 "
    "--std 0.26862954,0.26130258,0.27577711; of pixels in -1..1 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5; of pixels in 0..1 "
    "--mean 0,0,0 --std 1,1,1"
)
FEW = 16
"""Numbers of an output up to which it may be the scores of a classifier."""
MAX_LISTED = 8


def find_network(path: Path) -> Path:
    """Return the .onnx file: a file, or the only one of a folder; raises CeflError if there is none, or several."""
    if not path.is_dir():
        if not path.is_file():
            raise CeflError(f"onnx:{path}: no such file; pass the path of an .onnx file, or of a folder with one")
        return path
    files = sorted(path.glob("*.onnx"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise CeflError(
            f"onnx:{path}: expected one .onnx file in the folder, found {listed}; pass the path of the file"
        )
    return files[0]


def sidecar_path(network: Path) -> Path:
    """Return the path of the JSON card beside a network, whether it exists or not: network.json of network.onnx."""
    return network.with_suffix(".json")


def read_options(network: Path, card: Path | None, options: OnnxOptions) -> OnnxOptions:
    """Return the options with what they leave open taken from the ``card``, or from the one beside the network.

    Raises CeflError if the card is not a JSON object of fields of OnnxOptions.
    """
    sidecar = sidecar_path(network)
    path = card or (sidecar if sidecar.is_file() else None)
    if path is None:
        return options
    content = read_json(path, "the card of a network")
    if not isinstance(content, dict):
        raise CeflError(f"{path}: expected an object with the keys {', '.join(OnnxOptions.model_fields)}")
    for key in content:
        if key not in OnnxOptions.model_fields:
            raise CeflError(f"{path}: unknown key {key}{did_you_mean(str(key), list(OnnxOptions.model_fields))}")
    given = {key: value for key, value in options.model_dump().items() if value not in (None, "")}
    try:
        return OnnxOptions.model_validate({**OnnxOptions.model_validate(content).model_dump(), **given})
    except ValidationError as error:
        problem = error.errors()[0]
        raise CeflError(
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r}"
        ) from None


def build_onnx_encoder(
    source: Path,
    out: Path,
    name: str,
    options: OnnxOptions,
    *,
    card: Path | None = None,
    origin: str = "",
    notes: Mapping[str, str] | None = None,
    alone: bool = False,
    executor: Executor = map,
) -> dict[str, str]:
    """Write the encoder file of an ONNX network and return what is to be known of it.

    ``source``: an .onnx file, or a folder with one. ``card``: a JSON file with fields of OnnxOptions; ``options`` override it.
    ``origin``: what the card names as the source, '' for the file's name. ``notes``: further facts for it. ``alone``: refuse
    an .onnx file with data or a card beside it, which a program that watches ``source`` would not see. ``executor`` runs the
    forward passes that check the file: in another process a network that crashes ONNX Runtime costs that process only. Raises
    CeflError if the network is not usable, or if something must be given that its graph does not say.
    """
    network = find_network(source)
    model = parse_untrusted(network, allow_external_data=not (alone and source.is_file()))
    if alone and source.is_file() and sidecar_path(network).is_file():
        raise CeflError(
            f"{source}: {sidecar_path(network).name} beside it would be read too, and DVC does not watch it; put both into a "
            "folder and give that as the path, or move it elsewhere"
        )
    entries = {entry.key: entry.value for entry in model.metadata_props}
    known = read_options(network, card, options)
    old = None
    if any(key.startswith(PREFIX) for key in entries):
        old = parse_card(entries, str(network))
        known = _with_defaults(known, old)
    text = str(network)
    if known.output_name:
        _check_output_name(model, known.output_name, text)
        keep_output(model, known.output_name)
    image = image_input(model, known.input_name, text)
    layout = known.layout or _layout(image, text)
    size = _crop_size(image, layout, known.crop_size, text)
    batch_size = _batch_size(image, size, text)
    shape = (batch_size, 3, size, size) if layout == "NCHW" else (batch_size, size, size, 3)
    shapes = infer_shapes(model, image, shape, text)
    output_name, pool = _choose_output(model, shapes, known, text)
    others = feature_tensors(model, shapes)
    keep_output(model, output_name)
    image_input(model, image.name, text)
    if known.mean is None or known.std is None:
        missing = " and ".join(f"--{key}" for key in ("mean", "std") if getattr(known, key) is None)
        raise CeflError(f"{text}: pass {missing}, of pixels in 0..1, as the network was trained with them; {MEANS}")
    values = OnnxCard(
        name=name, input_name=image.name, layout=layout, color_order=known.color_order or "rgb", crop_size=size,
        mean=known.mean, std=known.std, template=known.template or "arcface", output_name=output_name, pool=pool, width=1,
        batch_size=batch_size, precision="fp16" if graph_precision(model) == "fp16" else "fp32",
        source=origin or source.name, source_sha256=sha256_of(source), license=known.license,
        held_out_score=known.score, notes={**(old.notes if old else {}), **(notes or {})},
    )  # fmt: skip
    remove_stale_tmp(out)
    with atomic_write(out) as temporary:
        probe = _write_and_probe(temporary, model, values, executor, text)
        if not probe.same_alone:  # its arithmetic depends on where a crop is in the batch
            values = values.model_copy(update={"batch_size": 1})
            probe = _write_and_probe(temporary, model, values, executor, text)
        values = values.model_copy(update={"width": probe.width})
        temporary.write_bytes(with_entries(model, values.to_entries(), PREFIX, text))
    report = {"output": f"{output_name} {format_shape((0, probe.width))}", "input": _describe_input(values)}
    if batch_size > 1 and values.batch_size == 1:
        report["batch"] = "crops are encoded one by one, since features depend on the crop's position in a batch"
    if probe.width <= FEW and len(others) > 1:
        report["note"] = (
            f"{probe.width} numbers may be the scores of a classifier; features before them: "
            f"{describe_tensors(dict(list(others.items())[-MAX_LISTED:]))}; choose one with --output-name"
        )
    return {**values.metadata(), **report}


def _write_and_probe(path: Path, model: ModelProto, card: OnnxCard, executor: Executor, source: str) -> Probe:
    """Write an encoder file and run it on test images; raises CeflError, which names ``source``, if it is not usable."""
    path.write_bytes(with_entries(model, card.to_entries(), PREFIX, source))
    (outcome,) = executor(probe_network, [path])
    if not isinstance(outcome, Probe):
        raise CeflError(f"{source}: ONNX Runtime crashed on it: {outcome[1]}; export the network again")
    if outcome.problem:
        raise CeflError(outcome.problem.replace(str(path), source))
    return outcome


def _with_defaults(options: OnnxOptions, card: OnnxCard) -> OnnxOptions:
    """Return the options with what they leave open taken from the card inside a file."""
    recorded = {key: value for key, value in card.model_dump().items() if key in OnnxOptions.model_fields}
    given = {key: value for key, value in options.model_dump().items() if value not in (None, "")}
    return OnnxOptions.model_validate({**recorded, "score": card.held_out_score, **given})


def _check_output_name(model: ModelProto, name: str, source: str) -> None:
    names = tensor_names(model)
    if name not in names:
        outputs = ", ".join(value.name for value in model.graph.output)
        known = did_you_mean(name, names).partition("; known:")[0].partition(" known:")[0]
        raise CeflError(
            f"{source}: the graph computes no tensor {name}{known}; its outputs are {outputs}; pass --output-name"
        )


def _layout(image: GraphInput, source: str) -> Literal["NCHW", "NHWC"]:
    """Return the layout whose axis of colors has length 3; raises CeflError if none or both have."""
    first, last = image.shape[1] == 3, image.shape[3] == 3
    if first == last:
        sizes = ", ".join("?" if size is None else str(size) for size in image.shape)
        raise CeflError(
            f"{source}: input {image.name} ({sizes}) does not say which axis is that of the three colors; pass --layout NCHW if "
            "it is the second, NHWC if it is the last"
        )
    return "NCHW" if first else "NHWC"


def _crop_size(image: GraphInput, layout: str, crop_size: int | None, source: str) -> int:
    """Return the side of the crops: that of the input, or ``crop_size`` if it takes any; raises CeflError if neither is."""
    channels, sides = (image.shape[1], image.shape[2:]) if layout == "NCHW" else (image.shape[3], image.shape[1:3])
    if channels not in (3, None):
        raise CeflError(
            f"{source}: input {image.name} takes {channels} colors, expected 3; pass another network or --layout"
        )
    known = {side for side in sides if side is not None}
    if len(known) > 1:
        raise CeflError(
            f"{source}: input {image.name} is not square: {sides[0]} x {sides[1]}; export it for square images"
        )
    size = known.pop() if known else crop_size
    if size is None:
        raise CeflError(
            f"{source}: input {image.name} takes images of any size; pass --crop-size, e.g. --crop-size 224"
        )
    if crop_size not in (None, size):
        raise CeflError(
            f"{source}: input {image.name} takes images of {size} pixels, not {crop_size}; leave out --crop-size"
        )
    if not 32 <= size <= 1024:
        raise CeflError(
            f"{source}: input {image.name} takes images of {size} pixels, expected 32 to 1024; export it for those"
        )
    return size


def _batch_size(image: GraphInput, crop_size: int, source: str) -> int:
    """Return the crops of a forward pass: that of the input if it is fixed."""
    fixed = image.shape[0]
    if fixed is not None and not 1 <= fixed <= MAX_BATCH_SIZE:
        raise CeflError(
            f"{source}: input {image.name} takes batches of {fixed} images, expected 1 to {MAX_BATCH_SIZE}; export it with a "
            "dynamic first axis"
        )
    return fixed or batch_size_for(crop_size)


def _choose_output(
    model: ModelProto, shapes: dict[str, Shape], options: OnnxOptions, source: str
) -> tuple[str, Literal["none", "cls", "mean"]]:
    """Return the output to use and how to pool it; raises CeflError, which lists the possible ones, unless it is clear."""
    names = [options.output_name] if options.output_name else [value.name for value in model.graph.output]
    outputs = {name: shapes.get(name) for name in names}
    usable = {name: shape for name, shape in outputs.items() if _is_usable(shape)}
    if len(usable) != 1:
        features = dict(list(feature_tensors(model, shapes).items())[-MAX_LISTED:])
        what = "several outputs" if usable else "no output (N, D)"
        raise CeflError(
            f"{source}: {what}: {describe_tensors(usable or outputs)}; pass --output-name, of one of these or of another tensor "
            f"of the graph, such as {describe_tensors(features)}"
        )
    ((name, shape),) = usable.items()
    if shape and len(shape) == 3 and options.pool in (None, "none"):
        raise CeflError(
            f"{source}: output {name} {format_shape(shape)} has features for each of {shape[1] or 'its'} tokens; pass --pool cls "
            "for those of the first token, or --pool mean for their mean"
        )
    return name, options.pool or "none"


def _is_usable(shape: Shape) -> bool:
    """Return whether an output may be (N, D), (N, D, 1, 1) or tokens (N, T, D); an unknown shape may be any."""
    if shape is None or len(shape) in (2, 3):
        return True
    return len(shape) == 4 and all(side in (1, None) for side in shape[2:])


def _describe_input(card: OnnxCard) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (card.mean, card.std))
    return (
        f"{card.input_name}, {card.layout}, {card.crop_size} pixels, {card.color_order}, mean {mean}, std {std}, "
        f"{card.precision}, batches of {card.batch_size}"
    )
