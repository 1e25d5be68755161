"""Errors that the command line prints in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class CeflError(Exception):
    """User-facing error: bad input, or something this machine cannot do. Printed without traceback, exit code 2.

    The message says what is wrong, where, what was found, and ends with what to type. Any other exception that escapes
    is a bug and keeps its traceback.
    """


class CorruptedError(CeflError):
    """A file of ours whose content is damaged: its signature, checksum or structure, never an error of the system."""


class OtherVersionError(CeflError):
    """A whole file of ours in the layout of another version of ceflpipe."""


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Return '; did you mean X? known: X, Y' if a known word is close to ``word``, else '; known: X, Y'.

    ``prefix`` is written before X only, e.g. the section of a configuration.
    """
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    suggestion = f" did you mean {prefix}{close[0]}?" if close else ""
    return f";{suggestion} known: {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def shorten_list(names: Sequence[str], limit: int = 3) -> str:
    """Return 'a, b, c and 4 more'."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
