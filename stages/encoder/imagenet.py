"""ImageNet weights: torchvision's ResNet18_Weights.IMAGENET1K_V1."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torchvision.models import ResNet18_Weights

from ...cache.errors import CeflError
from ...cache.files import sha256_of
from .checkpoint import to_state
from .weights import write_encoder

URL = ResNet18_Weights.IMAGENET1K_V1.url
FILE = URL.rsplit("/", 1)[-1]


def fetch(out: Path, name: str) -> dict[str, str]:
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
    state, report = to_state(loaded, str(folder / FILE))
    write_encoder(out, state, name, "imagenet", about)
    return {**about, **report}
