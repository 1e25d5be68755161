"""Make an encoder file of a network of timm. The only module that imports timm (`pip install "ceflpipe[timm]"`).

The network is exported to ONNX once; extracting needs neither timm nor torch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError, did_you_mean, first_line, shorten_list
from ..callbacks import Executor
from ..state_dict import read_state_dict
from .build_onnx import build_onnx_encoder
from .hub import Downloader, fetch
from .onnx_card import NetworkConfig

OPSET = 18
"""Version of ONNX's operators."""
WRAPPERS = ("module.", "model.", "backbone.", "encoder.")
"""Prefixes that training scripts add to the names of all tensors."""


def build_timm_encoder(
    config: NetworkConfig, out: Path, name: str, *, executor: Executor = map, downloader: Downloader | None = None
) -> dict[str, str]:
    """Write the encoder file of the network ``config.name`` of timm, without its classifier, and return what is to be known.

    Weights come from the checkpoint ``config.path`` (only tensors are read), else from timm's repository on the hub. Size, mean
    and deviation are those of timm's configuration of the weights, unless they are given. Raises CeflError if timm is not
    installed, the weights are not to be had or do not fit, or the network cannot be exported.
    """
    network, defaults = _create(config.name)
    notes = {"architecture": config.name, "timm": _timm().__version__}
    if config.path:
        checkpoint = Path(config.path).expanduser()
        notes |= {"checkpoint": checkpoint.name}
    else:
        repository = defaults.get("hf_hub_id")
        if not repository:
            raise CeflError(
                f"timm:{config.name}: timm has no weights of this name on the hub; add their tag, as in "
                "resnet18.a1_in1k, or give a checkpoint with --checkpoint FILE"
            )
        fetched = fetch(repository, "model.safetensors", config.revision, downloader)
        checkpoint = fetched.path
        notes |= {"repository": repository, "revision": fetched.commit}
    _load(network, checkpoint, defaults.get("classifier"), f"timm:{config.name}")
    size = config.crop_size or max(defaults["input_size"][1:])
    resample: Any = getattr(network, "set_input_size", None)  # of transformers, which have a position for each patch
    if size != defaults["input_size"][1] and resample:
        resample(img_size=(size, size))
    if remark := defaults.get("notes"):
        notes["timm_notes"] = "; ".join(remark) if isinstance(remark, tuple | list) else str(remark)
    values = {"mean": config.mean or defaults["mean"], "std": config.std or defaults["std"], "crop_size": size}
    values["license"] = config.license or str(defaults.get("license") or "")
    options = config.onnx_options().model_copy(update=values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _export(network, size, path, config.name)
        notes["checkpoint_sha256"] = sha256_of(checkpoint)
        return build_onnx_encoder(
            path, out, name, options, origin=f"timm:{config.name}", notes=notes, executor=executor
        )


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise CeflError('timm: the package is not installed; pip install "ceflpipe[timm]"') from None
    return timm


def _create(name: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return a network of timm with random weights and no classifier, and timm's configuration of its weights."""
    timm = _timm()
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError) as error:
        known = did_you_mean(name.partition(".")[0], timm.list_models()).partition(" known:")[0].rstrip(";")
        raise CeflError(
            f"timm:{name}: {first_line(error)}{known}; timm.list_pretrained() in Python lists all names"
        ) from None
    return network.eval(), dict(network.pretrained_cfg)


def _load(network: torch.nn.Module, path: Path, classifier: Any, source: str) -> None:
    """Load a checkpoint; every tensor must fit, besides those of a classifier."""
    tensors = read_state_dict(path, f"{source}: {path}")
    expected = network.state_dict()
    while not set(tensors) & set(expected):
        prefix = next((p for p in WRAPPERS if any(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier or ()))
    tensors = {key: value for key, value in tensors.items() if key in expected or not key.startswith(heads)}
    missing = sorted(key for key in set(expected) - set(tensors) if not key.endswith("num_batches_tracked"))
    parts = [
        f"{word} {shorten_list(keys)}"
        for word, keys in (("missing", missing), ("unexpected", sorted(set(tensors) - set(expected))))
        if keys
    ]
    parts += [
        f"{key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
        for key, value in tensors.items()
        if key in expected and value.shape != expected[key].shape
    ][:3]
    if parts:
        raise CeflError(
            f"{source}: {path}: not the weights of this architecture: {'; '.join(parts)}; give those with --checkpoint"
        )
    network.load_state_dict(tensors, strict=False)


def _export(network: torch.nn.Module, size: int, path: Path, name: str) -> None:
    images = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        torch.onnx.export(
            network, (images,), str(path), dynamo=True, external_data=False, dynamic_shapes=({0: batch},), verbose=False,
            opset_version=OPSET, input_names=["pixels"], output_names=["features"],
        )  # fmt: skip
    except ImportError:
        raise CeflError('timm: onnxscript is not installed; pip install "ceflpipe[timm]"') from None
    except (torch.onnx.OnnxExporterError, RuntimeError, AssertionError, ValueError) as error:
        raise CeflError(
            f"timm:{name}: cannot be exported to ONNX for crops of {size} pixels ({first_line(error)[:160]}); try another "
            "--crop-size, or export it yourself and use ceflpipe encoder onnx:FILE"
        ) from None
