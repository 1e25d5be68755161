"""Docstrings, which are plain text, as Markdown: sessions (``>>>``) become blocks of code, and ``<`` stays a character."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARTS = re.compile(r"(?P<session>^>>> .*(?:\n.*\S.*)*)|(?P<code>`+[^`]+`+)|(?P<bracket><)", re.MULTILINE)


def _as_markdown(part: re.Match[str]) -> str:
    if part["session"]:
        return f"```pycon\n{part[0]}\n```"
    return "&lt;" if part["bracket"] else part[0]


class PlainTextDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = PARTS.sub(_as_markdown, obj.docstring.value)
