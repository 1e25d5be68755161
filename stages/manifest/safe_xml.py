"""Elements of an XML file from an untrusted source.

The parser is expat itself: it loads nothing from outside. A file that declares an entity is refused, so that no small
file can expand into a large one.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

MAX_BYTES = 4 << 20
"""Size limit of a file, in bytes. The XML files of recordings have a few kilobytes."""


class XMLError(Exception):
    """An XML file that cannot be used, for the reason in the message."""


def parse_elements(file: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (tag, attributes) of every element in the order of the file; raises XMLError.

    Tags (without their namespace) and names of attributes are in lower case; values are stripped of white space.
    """
    if not file.is_file():
        raise XMLError("no such file")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise XMLError("too large")
    elements: list[tuple[str, dict[str, str]]] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: elements.append(_normalize(tag, attributes))
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise XMLError(f"not XML ({expat.ErrorString(error.code)})") from None
    return elements


def _normalize(tag: str, attributes: dict[str, str]) -> tuple[str, dict[str, str]]:
    return tag.rpartition(":")[2].lower(), {name.lower(): value.strip() for name, value in attributes.items()}


def _refuse_entity(*declaration: object) -> None:
    raise XMLError("it declares entities")
