"""Runs and encoders on the Hugging Face hub: what of them is pushed, and what is taken of a repository."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..cache.atomic import sha256_of
from ..cache.errors import CeflError, shorten_list
from ..cache.ownership import (
    RUN_FOLDER,
    check_disk_space,
    check_files,
    check_folder,
    format_sum,
    holds_json,
    read_sums,
    write_owned,
    write_owned_folder,
    write_owned_json,
)
from ..stages.callbacks import ProgressCallback, ignore_progress
from ..stages.encoder.hub import HubFolder, download, read_repository, upload
from ..stages.encoder.model_card import model_card
from ..stages.encoder.weights import is_encoder_file, is_onnx, read_encoder_metadata
from ..stages.heads.run_io import CARD_FILE, Run, read_run, verify_run
from .paths import encoder_file, pretrained_file

RUN_FILE = re.compile(
    r"run\.json|metrics\.json|history\.csv|tuning\.csv|weights\.safetensors|README\.md|predictions/[\w-][\w.-]*\.csv"
)
"""Files of a run, which SHA256SUMS lists."""
ENCODER_FOLDER = "encoder/"
"""Of the encoder in the repository of a run."""
WEIGHTS = re.compile(r"[\w-][\w.-]*\.safetensors")
SUMS = RUN_FOLDER.sums_file
HUB_FILES = {".gitattributes"}
"""What the hub itself puts into a repository."""
MAX_TEXT_BYTES = 1 << 28
"""Largest file besides weights that is pulled."""
Content = Path | bytes


@dataclass(frozen=True)
class Upload:
    """What a push writes: the files by their paths in the repository, notes for the one who pushes, and the hash to pin."""

    kind: Literal["run", "encoder"]
    files: Mapping[str, Content]
    notes: tuple[str, ...]
    sha256: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {k: len(v) if isinstance(v, bytes) else v.stat().st_size for k, v in self.files.items()}


@dataclass(frozen=True)
class Pulled:
    """What a pull wrote: where, of which commit, and the hash to pin. ``encoder``: of a run, the file of its encoder."""

    kind: str
    path: str
    repository: str
    commit: str
    sha256: str
    encoder: str = ""
    left_out: tuple[str, ...] = ()


def is_shared_file(path: str) -> bool:
    """Return whether a path of a repository is that of a file which a push writes."""
    weights = path.removeprefix(ENCODER_FOLDER)
    return path == SUMS or RUN_FILE.fullmatch(path) is not None or WEIGHTS.fullmatch(weights) is not None


# ---- push


def make_upload(source: str) -> Upload:
    """Return what is to be pushed of a run, given by its folder, or of an encoder, given by its file or name.

    Raises CeflError if it is neither, is not whole, or is not of safetensors.
    """
    path = Path(source)
    if path.is_dir():
        return _run_upload(read_run(path))
    file = encoder_file(source)
    if pretrained_file(source):
        raise CeflError(f"{source}: comes with ceflpipe, so everybody has it; push a run or an encoder of your own")
    if not file.is_file():
        raise CeflError(f"{source}: no run folder, and no encoder file {file}; give the folder of a run or an encoder")
    return _encoder_upload(file)


def _run_upload(run: Run) -> Upload:
    if not verify_run(run.path):
        raise CeflError(
            f"{run.path}: files of this run are missing or have changed since it was written; train it again"
        )
    names = list(read_sums(run.path / SUMS))
    if CARD_FILE not in names:
        raise CeflError(
            f"{run.path}: has no model card, as runs of older versions; train it again with ceflpipe train-heads"
        )
    strange = [name for name in names if not RUN_FILE.fullmatch(name)]
    if strange:
        raise CeflError(f"{run.path}: holds {shorten_list(strange)}, which is no file of a run; train it again")
    files: dict[str, Content] = {name: run.path / name for name in [*sorted(names), SUMS]}
    settings, notes = run.extraction_settings, []
    notes.append(
        "run.json and the predictions name the videos and subjects of the data set, and the command that was typed"
    )
    encoder = encoder_file(settings.encoder)
    if pretrained_file(settings.encoder) and sha256_of(encoder) == settings.encoder_sha256:
        notes.append(f"its encoder {settings.encoder} is part of ceflpipe, so it is not uploaded")
    elif is_onnx(encoder):
        notes.append(
            f"its encoder {encoder} is an ONNX network and is not uploaded: say in the repository how it is made"
        )
    elif encoder.is_file() and sha256_of(encoder) == settings.encoder_sha256:
        files[f"{ENCODER_FOLDER}{encoder.name}"] = encoder
    else:
        notes.append(
            f"its encoder {settings.encoder} is not uploaded: {encoder} is not there, or is another one by now"
        )
    return Upload("run", files, tuple(notes), sha256_of(run.path / SUMS))


def _encoder_upload(file: Path) -> Upload:
    if is_onnx(file):
        raise CeflError(
            f"{file}: an ONNX network; only safetensors are pushed. Push the network it was made of with the tools of its "
            "library; ceflpipe encoder hub:OWNER/NAME takes it from there"
        )
    if not WEIGHTS.fullmatch(file.name):
        raise CeflError(f"{file.name}: has other characters than letters, digits, dots and dashes; rename it")
    encoder = read_encoder_metadata(file)
    matter = ["---", "library_name: ceflpipe", "license: unknown", "pipeline_tag: image-feature-extraction"]
    matter += ["tags: [facial-expression-recognition, ceflpipe]", "---", "", ""]
    card = ("\n".join(matter) + model_card(encoder)).encode()
    sums = format_sum(hashlib.sha256(card).hexdigest(), CARD_FILE) + format_sum(encoder.sha256, file.name)
    files: dict[str, Content] = {CARD_FILE: card, file.name: file, SUMS: sums.encode()}
    licence = encoder.metadata.get("license", "not stated")
    notes = (f"terms of its data: {licence}; check that they allow to pass it on",)
    return Upload("encoder", files, notes, hashlib.sha256(sums.encode()).hexdigest())


def push(repository: str, content: Upload, *, public: bool, message: str = "") -> str:
    """Write an upload into a repository in one commit and return that commit. Raises CeflError."""
    text = message or f"{content.kind} of ceflpipe, SHA-256 of {SUMS} {content.sha256}"
    return upload(repository, content.files, message=text, private=not public, replaces=is_shared_file)


# ---- pull


def read_remote(repository: str, revision: str) -> tuple[HubFolder, Literal["run", "encoder"], list[str]]:
    """Return a repository at one commit, what it holds, and the files of it that are no part of that, which stay there.

    Raises CeflError if it holds neither a run nor an encoder that ``push`` wrote.
    """
    folder = read_repository(repository, revision)
    names = set(folder.files)
    shared = {name for name in names if is_shared_file(name)}
    left_out = sorted(names - shared - HUB_FILES)
    encoders = [name for name in shared if WEIGHTS.fullmatch(name) and name != "weights.safetensors"]
    if "run.json" in names and SUMS in names:
        kind: Literal["run", "encoder"] = "run"
    elif len(encoders) == 1 and SUMS in names:
        kind = "encoder"
    else:
        raise CeflError(
            f"hub:{repository}: holds neither a run nor an encoder that ceflpipe push wrote (found "
            f"{shorten_list(sorted(names)) or 'nothing'}); of ONNX networks make an encoder with ceflpipe encoder "
            f"hub:{repository}"
        )
    large = [n for n in shared if not n.endswith(".safetensors") and folder.files[n] > MAX_TEXT_BYTES]
    if large:
        raise CeflError(f"hub:{repository}: {large[0]} has {folder.files[large[0]]:,} bytes, too many for such a file")
    return folder, kind, left_out


def record_file(path: Path) -> Path:
    """Return the JSON next to a pulled run or encoder that says where it is from."""
    return path.with_name(f"{path.name}.hub.json")


def is_record(path: Path) -> bool:
    return holds_json(path, lambda value: {"repository", "commit", "sha256"} <= set(value))


def check_pin(repository: str, folder: HubFolder, out: Path, revision: str) -> None:
    """Raise CeflError if ``out`` was pulled at another commit, unless a revision says that it is to be replaced."""
    old = _read_record(out)
    if out.exists() and old and old["repository"] == repository and old["commit"] != folder.commit and not revision:
        raise CeflError(
            f"{out}: was pulled at commit {old['commit']}, and {repository} is at {folder.commit} now; replace it with "
            f"--revision {folder.commit}, keep it as it is, or give another --out"
        )


def _read_record(out: Path) -> dict[str, Any] | None:
    path = record_file(out)
    return json.loads(path.read_bytes()) if path.is_file() and is_record(path) else None


def pull(
    repository: str,
    folder: HubFolder,
    kind: Literal["run", "encoder"],
    out: Path,
    *,
    encoder_out: Callable[[str], Path],
    sha256: str = "",
    left_out: list[str] | None = None,
    force: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> Pulled:
    """Download a run into the folder ``out``, or an encoder into the file ``out``; return what was written.

    Every file is compared with the checksums of the repository, and these with ``sha256`` and with what the same commit had
    before. Nothing is written if one differs. ``encoder_out``: returns the file for the encoder of a run, by its name there.
    """
    names = [name for name in folder.files if is_shared_file(name)]
    size = sum(folder.files[name] for name in names)
    check_disk_space(out.parent, "--out", 2 * size)
    paths: dict[str, Path] = {}
    for number, name in enumerate(sorted(names)):
        on_progress(number, len(names), name)
        paths[name] = download(repository, name, folder.commit)
    on_progress(len(names), len(names), "comparing")
    digest = sha256_of(paths[SUMS])
    if sha256 and digest != sha256.lower():
        raise CeflError(
            f"hub:{repository}: the SHA-256 of {SUMS} is {digest}, not --checksum {sha256}; do not trust it"
        )
    old = _read_record(out)
    if old and (old["repository"], old["commit"]) == (repository, folder.commit) and old["sha256"] != digest:
        raise CeflError(
            f"hub:{repository}: commit {folder.commit[:8]} has other bytes than before ({digest[:8]}… was {old['sha256'][:8]}…), "
            f"so one of them is damaged or forged: clear the cache of huggingface_hub, or remove {out}"
        )
    listed = read_sums(paths[SUMS])
    members = [name for name in names if name != SUMS and not name.startswith(ENCODER_FOLDER)]
    wrong = sorted(set(listed) ^ set(members)) + [
        n for n in members if n in listed and sha256_of(paths[n]) not in listed[n]
    ]
    if wrong:
        raise CeflError(
            f"hub:{repository}: {shorten_list(wrong)}: not as its {SUMS} says, so the copy is damaged or was changed by hand; "
            "nothing was written"
        )
    encoder = ""
    if kind == "run":
        encoder = _write_run(repository, {name: paths[name] for name in members}, paths, out, encoder_out, force)
    else:
        (name,) = [name for name in members if WEIGHTS.fullmatch(name)]
        read_encoder_metadata(paths[name])  # raises for anything else
        with write_owned(out) as temporary:
            shutil.copyfile(paths[name], temporary)
    pulled = Pulled(kind, str(out), repository, folder.commit, digest, encoder, tuple(left_out or ()))
    write_owned_json(record_file(out), asdict(pulled))
    return pulled


def _write_run(
    repository: str, members: dict[str, Path], paths: dict[str, Path], out: Path, encoder_out: Callable[[str], Path],
    force: bool,
) -> str:  # fmt: skip
    """Write the folder of a run after it has been read, and its encoder; return the encoder's file, '' if it is not known."""
    with tempfile.TemporaryDirectory() as temporary:
        trial = Path(temporary) / "run"
        _copy({**members, SUMS: paths[SUMS]}, trial)
        run = read_run(trial)
        run.head()  # raises if the weights are not those of its head
    settings = run.extraction_settings
    encoders = {name: path for name, path in paths.items() if name.startswith(ENCODER_FOLDER)}
    target = ""
    for name, path in encoders.items():
        encoder = read_encoder_metadata(path)
        if encoder.sha256 != settings.encoder_sha256:
            raise CeflError(
                f"hub:{repository}: {name} is not the encoder of its run ({encoder.sha256[:8]}…, the run has "
                f"{settings.encoder_sha256[:8]}…); nothing was written"
            )
        file = encoder_out(name.removeprefix(ENCODER_FOLDER))
        target = str(file)
        if not (file.is_file() and sha256_of(file) == encoder.sha256):
            check_files([file], "--encoder-out", is_ours=lambda _: False, force=force)
            with write_owned(file) as copy:
                shutil.copyfile(path, copy)
    with write_owned_folder(out, "--out", RUN_FOLDER, force=force) as folder:
        _copy(members, folder)
    known = encoder_file(settings.encoder)
    if not target and known.is_file() and sha256_of(known) == settings.encoder_sha256:
        target = str(known)
    return target


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


def check_targets(kind: str, out: Path, *, force: bool) -> str:
    """Check before anything is downloaded that a pull may write; return what ``force`` replaces."""
    names = [record_file(out)]
    check_files(names, "--out", is_ours=is_record, force=force)
    if kind == "run":
        return check_folder(out, "--out", RUN_FOLDER, force=force)
    return check_files([out], "--out", is_ours=is_encoder_file, force=force)
