"""Names in artifacts/ of files that a user names: a name belongs to one path, and a small text file says to which."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..cache.errors import CeflError
from .paths import PRETRAINED_DIR, built_encoder_file, encoder_file, is_encoder_name, owner_file, pretrained_file


def unique_name(stem: str, path: Path, *, taken: bool = False) -> str:
    """Return the name of a file: ``stem`` unless it is ``taken`` or belongs to another path, else stem-XXXXXXXX.

    The digits are of the file's path, so that the name is always the same.
    """
    identity = _identity(path)
    if not taken and _read_owner(stem) in ("", identity):
        return stem
    return f"{stem}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def claim_name(name: str, path: Path) -> None:
    """Record that a name belongs to a path. Raises CeflError if it belongs to another one, of two commands started at once."""
    record, identity = owner_file(name), _identity(path)
    owner = _read_owner(name)
    if not owner:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open(
            "a", encoding="utf-8", errors="surrogateescape"
        ) as file:  # of two writers, the first line counts
            file.write(f"{identity}\n")
        owner = _read_owner(name)
    if owner != identity:
        raise CeflError(f"{record}: {name} belongs to {owner} since a moment ago; run the same command again")


def encoder_key(encoder: str | Path) -> str:
    """Return the name of an encoder in the folders of features, runs and sweeps: its own, else one for its path."""
    if is_encoder_name(encoder):
        return str(encoder)
    path = encoder_file(encoder)
    if is_foreign_encoder(encoder):
        taken = bool(pretrained_file(path.stem)) or built_encoder_file(path.stem).is_file()
        return unique_name(path.stem, path, taken=taken)
    return path.stem


def is_foreign_encoder(encoder: str | Path) -> bool:
    """Return whether an encoder is a file that is neither in artifacts/weights nor in the package."""
    folder = encoder_file(encoder).parent.resolve()
    known = (built_encoder_file("any").parent.resolve(), PRETRAINED_DIR.resolve())
    return not is_encoder_name(encoder) and folder not in known


def _read_owner(name: str) -> str:
    """Return the path that a name belongs to, '' if to none."""
    try:
        lines = owner_file(name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return ""
    return lines[0] if lines else ""


def _identity(path: Path) -> str:
    """Return a path relative to the working folder if it is in it, so that the folder can be moved, else absolute.

    The file itself may be a link: two links to one list have their videos in two folders.
    """
    absolute = path.parent.resolve() / path.name
    home = Path.cwd().resolve()
    path = absolute.relative_to(home) if absolute.is_relative_to(home) else absolute
    return os.fspath(path).replace("\n", "\\n")
