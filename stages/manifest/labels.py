"""Expression labels and their spellings."""

from __future__ import annotations

import re

_WORDS = {
    "anger": "anger angry",
    "disgust": "disgust disgusted",
    "fear": "fear fearful afraid scared",
    "happiness": "happiness happy happily",
    "neutral": "neutral neutrality",
    "sadness": "sadness sad",
    "surprise": "surprise surprised suprise",
    "contempt": "contempt contemptuous",
    "calm": "calm",
    "anxiety": "anxiety anxious",
    "helplessness": "helplessness helpless",
    "disappointment": "disappointment disappointed",
}
_NAMES = {"anger": "mad", "disgust": "gross", "happiness": "joy smile"}
"""Words for an expression that are names of people too."""
_ABBREVIATIONS = {
    "anger": "ang an",
    "disgust": "dis di",
    "fear": "fea fe",
    "happiness": "hap ha",
    "neutral": "neu ne",
    "sadness": "sa",
    "surprise": "sur su",
    "contempt": "con",
}


def _label_by_spelling(*tables: dict[str, str]) -> dict[str, str]:
    return {word: label for table in tables for label, words in table.items() for word in words.split()}


_LABEL_OF_WORD = _label_by_spelling(_WORDS)
_LABEL_OF_NAME = _label_by_spelling(_NAMES)
_LABEL_OF_SPELLING = _label_by_spelling(_WORDS, _NAMES, _ABBREVIATIONS)

KNOWN_LABELS = tuple(_WORDS)
"""Every label of the known data sets; other ones need ``labels:`` in a configuration, or --labels.

The basic expressions are in alphabetical order, which is the order of the classes in the released CEFLNet code.
"""


def normalize_label(text: str) -> str | None:
    """Return the label for any usual spelling of it, or None if it is not known.

    >>> normalize_label("Happy"), normalize_label("Sad_"), normalize_label(" ANG "), normalize_label("bored")
    ('happiness', 'sadness', 'anger', None)
    """
    return _LABEL_OF_SPELLING.get(_strip(text))


def label_of_word(text: str) -> str | None:
    """Return the label for a whole word, or None; abbreviations and words that are names too do not count.

    >>> label_of_word("3_Happy"), label_of_word("An"), label_of_word("Joy")
    ('happiness', None, None)
    """
    return _LABEL_OF_WORD.get(_strip(text))


def label_of_name(text: str) -> str | None:
    """Return the label for a word that may also be the name of a person (Joy), or None."""
    return _LABEL_OF_NAME.get(_strip(text))


def _strip(text: str) -> str:
    return re.sub(r"[\s_\-]+$|^[\s_\-\d.]+", "", text).lower()


def sort_labels(labels: set[str]) -> tuple[str, ...]:
    """Return labels in the order of KNOWN_LABELS, then other ones in alphabetical order."""
    return tuple(label for label in KNOWN_LABELS if label in labels) + tuple(sorted(labels - set(KNOWN_LABELS)))
