"""Errors that the command line prints in one line, without a traceback."""


class CeflError(Exception):
    """Bad input or an impossible wish, worded for the person who typed the command.

    The message says what is wrong, where, what was found, and ends with what to type. The command line prints it
    without a traceback and exits with 2; anything else that escapes is a defect of ours and keeps its traceback.
    """


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return '; did you mean X?' when a known word is close to ``word``, else an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
