"""Build an encoder file from one of its sources: synthetic faces, ImageNet, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torchvision.models import ResNet18_Weights

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..progress import ProgressCallback, ignore_progress
from .checkpoint import to_resnet18_state
from .encoder_config import SyntheticEncoderConfig
from .weights import write_encoder

Executor = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def build_encoder_weights(
    source: str,
    out: Path,
    name: str,
    *,
    normalization: str | None = None,
    config: SyntheticEncoderConfig | None = None,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, str]:
    """Write the encoder file of ``source`` (actors, imagenet, file:PATH) and return its metadata.

    ``config``, ``executor`` and ``on_progress`` are used by actors only: see synthetic.train_synthetic_encoder.
    """
    if source == "actors":
        from .synthetic import train_synthetic_encoder

        return train_synthetic_encoder(
            out, name, config or SyntheticEncoderConfig(), executor=executor, on_progress=on_progress
        )
    if source == "imagenet":
        return from_torchvision(out, name)
    if source.startswith("file:"):
        from .checkpoint import from_checkpoint

        return from_checkpoint(Path(source[len("file:") :]).expanduser(), out, name, normalization)
    raise CeflError(f"encoder {source}: unknown source; use actors, imagenet, or file:PATH")


URL = ResNet18_Weights.IMAGENET1K_V1.url
FILE = URL.rsplit("/", 1)[-1]


def from_torchvision(out: Path, name: str) -> dict[str, str]:
    """Take the weights from torch's download folder, or download them there; then write the encoder file.

    torch compares the file with the hash in its name. Raises CeflError when there is no network.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        loaded = torch.hub.load_state_dict_from_url(
            URL, model_dir=str(folder), check_hash=True, weights_only=True, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise CeflError(
            f"imagenet: cannot download {URL} ({error}); put the file at {folder / FILE} by hand and run this again, "
            "or use ceflpipe encoder actors, which needs no download"
        ) from None
    about = {"source": URL, "source_sha256": sha256_of(folder / FILE)}
    state, report = to_resnet18_state(loaded, str(folder / FILE))
    write_encoder(out, state, name, "imagenet", about)
    return {**about, **report}
