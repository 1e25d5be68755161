"""Files of the Hugging Face hub, at one commit. The only module that imports huggingface_hub (`pip install "ceflpipe[hub]"`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError, first_line

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository OWNER/NAME: ``path`` on this machine, ``commit`` of 40 hex digits."""

    path: Path
    commit: str


Downloader = Callable[[str, str, str], Path]
"""Takes repository, file and revision, and returns the path …/snapshots/COMMIT/FILE, as in the cache of huggingface_hub."""


def fetch(repository: str, file: str, revision: str = "", downloader: Downloader | None = None) -> HubFile:
    """Return a file of the hub, from the cache of huggingface_hub or the network.

    ``revision``: a commit, branch or tag, '' for main. Raises CeflError, which says what to put where, if it is not to be had.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise CeflError(f"hub:{repository}: not the name of a repository; write hub:OWNER/NAME")
    if file.startswith("/") or ".." in file.split("/") or "\\" in file:
        raise CeflError(
            f"hub:{repository}: --file {file}: not the path of a file in a repository; write e.g. onnx/model.onnx"
        )
    try:
        path = (downloader or _download)(repository, file, revision or "main")
    except (OSError, ValueError, RuntimeError) as error:
        raise CeflError(
            f"hub:{repository}: cannot download {file} ({type(error).__name__}: {first_line(error)[:100]}); get "
            f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{file} on another machine and give it with "
            "--checkpoint FILE, or copy the folder ~/.cache/huggingface/hub/models--"
            f"{repository.replace('/', '--')} of a machine that has it to this one"
        ) from None
    commit = path.parents[len(Path(file).parts) - 1].name
    if not COMMIT.fullmatch(commit):
        raise CeflError(
            f"hub:{repository}: {path} is not in a snapshots folder of a commit; clear the cache of huggingface_hub"
        )
    if COMMIT.fullmatch(revision) and commit != revision:
        raise CeflError(
            f"hub:{repository}: --revision {revision[:8]}… gave commit {commit[:8]}…; clear the cache of huggingface_hub"
        )
    return HubFile(path, commit)


def _download(repository: str, file: str, revision: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise CeflError('hub: the package is not installed; pip install "ceflpipe[hub]"') from None
    disable_progress_bars()
    logging.set_verbosity_error()  # it logs every attempt
    return Path(hf_hub_download(repository, file, revision=revision))
