"""Elements of an XML file from an untrusted source.

The parser is expat itself: it loads nothing from outside, and a file that declares an entity is refused, so that no
small file can unfold into a large one.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

MAX_BYTES = 4 << 20
"""Bytes beyond which a file is not one of the small descriptions that lie beside recordings."""


class XMLError(Exception):
    """This XML file cannot be used, for the reason in the message."""


def parse_elements(file: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (tag, attributes) of every element in the order of the file; raises CannotRead.

    Tags (without their namespace) and names of attributes are in lower case, values as they stand.
    """
    if not file.is_file():
        raise XMLError("no such file")
    found: list[tuple[str, dict[str, str]]] = []

    def take(tag: str, attributes: dict[str, str]) -> None:
        found.append(
            (tag.rpartition(":")[2].lower(), {name.lower(): value.strip() for name, value in attributes.items()})
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler = take
    parser.EntityDeclHandler = _refuse
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise XMLError("too large")
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise XMLError(f"not XML ({expat.ErrorString(error.code)})") from None
    return found


def _refuse(*declared: object) -> None:
    raise XMLError("it declares entities")
