"""What stands in a text list of videos: a name a line, and perhaps something about it?"""

from __future__ import annotations

import re
from pathlib import Path

from ...cache.errors import CeflError


def read_lines(file: Path) -> list[list[str]]:
    """Return the words of every line, cut at commas, semicolons, tabs or spaces, without empty lines and # comments.

    Raises CeflError when the file cannot be read as text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: not a text list that can be read: {error}") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [[word for word in re.split(r"[,;\s]+", line) if word] for line in lines if line]


def read_names(root: Path, name: str, key: str) -> set[str]:
    """Return the first word of each line of the list ``name``, which lies in the data set's folder; '' names no list.

    ``key`` is what to call the setting in the message of the CeflError that a missing or empty list raises.
    """
    if not name:
        return set()
    file = root / Path(name).expanduser()
    if not file.is_file():
        raise CeflError(f"{file}: no such file ({key}); a path there starts from the data set's folder")
    names = {words[0].strip("/") for words in read_lines(file)}
    if not names:
        raise CeflError(f"{file}: no name in it ({key}); one per line, # begins a comment")
    return names
