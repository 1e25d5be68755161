"""Build an encoder file from one of its sources: synthetic faces, photographs, ImageNet, or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torchvision.models import ResNet18_Weights

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..callbacks import Executor, ProgressCallback, ignore_progress
from .checkpoint import from_checkpoint, to_resnet18_state
from .encoder_config import PhotographEncoderConfig, SyntheticEncoderConfig
from .weights import DEFAULT_CROP_SIZE, write_encoder

if TYPE_CHECKING:
    from .train_photographs import PhotographTraining

IMAGENET_URL = ResNet18_Weights.IMAGENET1K_V1.url


def build_encoder_weights(
    source: str,
    out: Path,
    name: str,
    *,
    normalization: str | None = None,
    crop_size: int | None = None,
    config: SyntheticEncoderConfig | None = None,
    training: PhotographTraining | None = None,
    photograph_config: PhotographEncoderConfig | None = None,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, str]:
    """Write the encoder file of ``source`` (actors, imagenet, file:PATH, photographs:FOLDER) and return its metadata.

    ``config`` is for actors, ``training`` and ``photograph_config`` for photographs, ``executor`` and ``on_progress`` for
    both: see synthetic.train_synthetic_encoder and train_photographs.train_photograph_encoder. ``crop_size`` is recorded for
    file:PATH.
    """
    if source == "actors":
        from .synthetic import train_synthetic_encoder

        config = config or SyntheticEncoderConfig()
        return train_synthetic_encoder(out, name, config, executor=executor, on_progress=on_progress)
    if source == "imagenet":
        return from_torchvision(out, name)
    if source.startswith("file:"):
        return from_checkpoint(Path(source.removeprefix("file:")).expanduser(), out, name, normalization, crop_size)
    if source.startswith("photographs:") and training:
        from .train_photographs import train_photograph_encoder

        photograph_config = photograph_config or PhotographEncoderConfig()
        return train_photograph_encoder(
            training, out, name, photograph_config, executor=executor, on_progress=on_progress
        )
    raise CeflError(f"encoder {source}: unknown source; use actors, imagenet, photographs:FOLDER, or file:PATH")


def from_torchvision(out: Path, name: str) -> dict[str, str]:
    """Write the encoder file of torchvision's ImageNet weights, from torch's download folder or the network.

    torch compares the file with the hash in its name. Raises CeflError if it cannot be downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / IMAGENET_URL.rsplit("/", 1)[-1]
    try:
        loaded = torch.hub.load_state_dict_from_url(
            IMAGENET_URL, model_dir=str(folder), check_hash=True, weights_only=True, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise CeflError(
            f"imagenet: cannot download {IMAGENET_URL} ({error}); put the file at {file} by hand and run this again, "
            "or use ceflpipe encoder actors, which needs no download"
        ) from None
    metadata = {"source": IMAGENET_URL, "source_sha256": sha256_of(file)}
    state, report = to_resnet18_state(loaded, str(file))
    write_encoder(out, state, name, "imagenet", metadata, crop_size=DEFAULT_CROP_SIZE)
    return {**metadata, **report}
