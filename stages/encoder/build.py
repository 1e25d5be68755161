"""From which source does the encoder come?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...cache.errors import CeflError


def build(
    source: str,
    out: Path,
    name: str,
    *,
    normalisation: str | None = None,
    training: dict[str, Any],
    on_step: Callable[[str], None] = lambda note: None,
) -> dict[str, str]:
    """Write the encoder file of ``source`` (actors, imagenet, file:PATH) and return what is known of it.

    ``training`` are the arguments of actors.train, used by that source only.
    """
    if source == "actors":
        from .actors import train

        return train(out, name, **training, on_step=on_step)
    if source == "imagenet":
        from .imagenet import fetch

        return fetch(out, name)
    if source.startswith("file:"):
        from .checkpoint import convert

        return convert(Path(source[len("file:") :]).expanduser(), out, name, normalisation)
    raise CeflError(f"encoder {source}: unknown source; use actors, imagenet, or file:PATH")
