"""Files of the Hugging Face hub, at one commit. The only module that imports huggingface_hub (`pip install "ceflpipe[hub]"`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import CeflError, first_line

COMMIT = re.compile(r"[0-9a-f]{40}")
NO_PACKAGE = 'hub: the package is not installed; pip install "ceflpipe[hub]"'


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
    check_repository(repository)
    if not is_inside(file):
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


def check_repository(repository: str) -> None:
    """Raise CeflError for anything but OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise CeflError(f"hub:{repository}: not the name of a repository; write hub:OWNER/NAME")


def is_inside(file: str) -> bool:
    """Return whether a path stays in the folder that it is relative to.

    >>> is_inside("a/b.csv"), is_inside("../b"), is_inside("/etc/b"), is_inside("a\\\\b"), is_inside("c:b")
    (True, False, False, False, False)
    """
    parts = file.split("/")
    return bool(file) and not file.startswith("/") and not {"..", ".", ""} & set(parts) and not set("\\:\0") & set(file)


@dataclass(frozen=True)
class HubFolder:
    """A repository at one commit: its files with their bytes, and whether only its owner sees it."""

    commit: str
    files: Mapping[str, int]
    private: bool


def read_repository(repository: str, revision: str = "") -> HubFolder:
    """Return what a repository holds at a commit, branch or tag ('' for main).

    Raises CeflError if it is not to be had, or if the path of a file leads out of the folder it would be in.
    """
    check_repository(repository)
    with _as_one_line(repository, "cannot be read"):
        info = _api().model_info(repository, revision=revision or None, files_metadata=True)
    files = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    outside = [file for file in files if not is_inside(file)]
    if outside:
        raise CeflError(
            f"hub:{repository}: holds {outside[0]!r}, which leads out of its folder, so nothing of it is downloaded; tell its "
            "owner, and pull another repository"
        )
    if not COMMIT.fullmatch(info.sha or ""):
        raise CeflError(f"hub:{repository}: does not say its commit; give one with --revision")
    if COMMIT.fullmatch(revision) and revision != info.sha:
        raise CeflError(
            f"hub:{repository}: --revision {revision[:8]}… gave commit {str(info.sha)[:8]}…; do not trust it"
        )
    return HubFolder(str(info.sha), files, bool(info.private))


def download(repository: str, file: str, commit: str) -> Path:
    """Return a copy of a file of a repository at a commit, from the cache of huggingface_hub or the network. Raises CeflError."""
    with _as_one_line(repository, f"cannot download {file}"):
        return _download(repository, file, commit)


def upload(
    repository: str, files: Mapping[str, Path | bytes], *, message: str, private: bool, replaces: Callable[[str], bool]
) -> str:
    """Write files into a repository in one commit, and return that commit; the repository is created if it does not exist.

    Files of the repository that are not among them are deleted if ``replaces`` says so of their path, else kept. Raises CeflError
    if the hub refuses, or if the repository is public and ``private`` was asked for; it is not changed then.
    """
    check_repository(repository)
    api = _api()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with _as_one_line(repository, "cannot be written"):
        api.create_repo(repository, private=private, exist_ok=True)
        info = api.model_info(repository)
        if private and not info.private:
            raise CeflError(
                f"hub:{repository}: is public, so everybody could read what is written; give --public, or another name"
            )
        old = [
            file.rfilename for file in info.siblings or () if file.rfilename not in files and replaces(file.rfilename)
        ]
        operations: list[Any] = [CommitOperationDelete(path) for path in old]
        operations += [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in files.items()
        ]
        return str(api.create_commit(repository, operations, commit_message=message, parent_commit=info.sha).oid)


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise CeflError(NO_PACKAGE) from None
    disable_progress_bars()
    logging.set_verbosity_error()
    return HfApi(library_name="ceflpipe")


@contextmanager
def _as_one_line(repository: str, problem: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    kinds: Any = (OSError, ValueError, RuntimeError)
    with suppress(ImportError):
        from huggingface_hub.errors import HfHubHTTPError

        kinds = (
            *kinds,
            *HfHubHTTPError.__bases__,
        )  # one of them is that of every error of a connection, whatever the library
    try:
        yield
    except kinds as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = {
            401: "log in with hf auth login, or set HF_TOKEN; check the name",
            403: "the token of HF_TOKEN may not do this; use one that may write to it",
            404: "check the name and --revision; a private one needs hf auth login",
            409: "it was changed meanwhile; run the same command again",
            412: "it was changed meanwhile; run the same command again",
        }.get(status or 0, "check the connection, HF_ENDPOINT, and that HF_HUB_OFFLINE is not set")
        raise CeflError(
            f"hub:{repository}: {problem} ({type(error).__name__}: {first_line(error)[:120]}); {advice}"
        ) from None


def _download(repository: str, file: str, revision: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise CeflError(NO_PACKAGE) from None
    disable_progress_bars()
    logging.set_verbosity_error()  # it logs every attempt
    return Path(hf_hub_download(repository, file, revision=revision))
