"""Make an encoder file of an ONNX network on the Hugging Face hub, at one commit."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..callbacks import Executor
from .build_onnx import build_onnx_encoder
from .hub import Downloader, fetch
from .onnx_card import NetworkConfig, OnnxCard, read_card
from .onnx_graph import external_files

DEFAULT_FILE = "onnx/model.onnx"
"""Where converters of the hub put the network of a repository."""


def build_hub_encoder(
    config: NetworkConfig,
    out: Path,
    name: str,
    *,
    card: Path | None = None,
    executor: Executor = map,
    downloader: Downloader | None = None,
) -> dict[str, str]:
    """Write the encoder file of the network ``config.file`` of the repository ``config.name``; return what is to be known.

    ``config.path``: a copy of the file, which is used instead of downloading it. The commit and the hash of the file are kept
    in the encoder file; if ``out`` was made of the same commit, the hash must be the same. Raises CeflError if not, and if
    the file is not to be had.
    """
    file, origin = config.file or DEFAULT_FILE, f"hub:{config.name}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if config.path:
            copied = Path(config.path).expanduser()
            if not copied.is_file():
                raise CeflError(f"{origin}: {copied}: no such file; give a copy of {file} with --checkpoint FILE")
            network, commit = copied, config.revision or "not stated"
        else:
            fetched = fetch(config.name, file, config.revision, downloader)
            commit, network = fetched.commit, folder / Path(file).name
            shutil.copyfile(fetched.path, network)  # the cache has links, which lead out of their folder
            for part in external_files(network):
                source = fetch(config.name, str(Path(file).parent / part), commit, downloader).path
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / part)
        notes = {"revision": commit, "file": file}
        _compare_hash(out, origin, notes, sha256_of(network))
        return build_onnx_encoder(
            network, out, name, config.onnx_options(), card=card, origin=origin, notes=notes, executor=executor
        )


def _compare_hash(out: Path, origin: str, notes: dict[str, str], sha256: str) -> None:
    """Raise CeflError if ``out`` was made of the same file and commit with other bytes."""
    old = _read_old_card(out)
    if old and old.source == origin and notes.items() <= old.notes.items() and old.source_sha256 != sha256:
        raise CeflError(
            f"{origin}: {notes['file']} of commit {notes['revision'][:8]} has the hash {sha256[:8]}…, and had "
            f"{old.source_sha256[:8]}… when {out} was made; one of them is damaged or forged: clear the cache of "
            f"huggingface_hub, or remove {out}"
        )


def _read_old_card(path: Path) -> OnnxCard | None:
    try:
        return read_card(path)
    except CeflError:
        return None
