"""Make an encoder file of a network: onnx:FILE, timm:NAME or hub:OWNER/NAME."""

from __future__ import annotations

from pathlib import Path

from ...cache.errors import CeflError
from ..callbacks import Executor
from .build_hub import build_hub_encoder
from .build_onnx import build_onnx_encoder
from .onnx_card import NetworkConfig


def build_network_encoder(
    config: NetworkConfig,
    out: Path,
    name: str,
    *,
    card: Path | None = None,
    alone: bool = False,
    executor: Executor = map,
) -> dict[str, str]:
    """Write the encoder file of a network and return what is to be known of it; see build_onnx.build_onnx_encoder."""
    options = config.onnx_options()
    if config.source == "onnx":
        if not config.path:
            raise CeflError("encoder onnx: gives no path; write ceflpipe encoder onnx:FILE")
        return build_onnx_encoder(
            Path(config.path).expanduser(), out, name, options, card=card, alone=alone, executor=executor
        )
    if not config.name:
        raise CeflError(f"encoder {config.source}: gives no name; write timm:NAME or hub:OWNER/NAME")
    if config.source == "timm":
        from .build_timm import build_timm_encoder

        return build_timm_encoder(config, out, name, executor=executor)
    return build_hub_encoder(config, out, name, card=card, executor=executor)
