"""Expression labels and their spellings."""

from __future__ import annotations

import re

BASIC_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""The six basic expressions, in the alphabetical order the released CEFLNet code gives its classes."""

KNOWN_LABELS = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise",
    "contempt", "calm", "anxiety", "helplessness", "disappointment",
)  # fmt: skip
"""Every label of the data sets known here; a user's own words need ``labels:`` in a config, or --labels."""

_SPELLINGS = {
    "anger": "anger angry ang an anger_ mad",
    "disgust": "disgust disgusted dis di gross",
    "fear": "fear fearful fea fe afraid scared",
    "happiness": "happiness happy hap ha joy happily smile",
    "neutral": "neutral neu ne neutrality",
    "sadness": "sadness sad sa",
    "surprise": "surprise surprised sur su suprise",
    "contempt": "contempt contemptuous con",
    "calm": "calm",
    "anxiety": "anxiety anxious",
    "helplessness": "helplessness helpless",
    "disappointment": "disappointment disappointed",
}
_LABEL_OF_SPELLING = {spelling: word for word, spellings in _SPELLINGS.items() for spelling in spellings.split()}


def normalize_label(text: str) -> str | None:
    """Return the word for a label as a data set spells it, or None for one that is not known.

    >>> canonical("Happy"), canonical("Sad_"), canonical(" ANG "), canonical("bored")
    ('happiness', 'sadness', 'anger', None)
    """
    return _LABEL_OF_SPELLING.get(re.sub(r"[\s_\-]+$|^[\s_\-\d.]+", "", text).lower())


def sort_labels(labels: set[str]) -> tuple[str, ...]:
    """Return labels in the order of WORDS (alphabetical over the basic expressions), words of a user's own last."""
    return tuple(
        sorted(labels, key=lambda word: (KNOWN_LABELS.index(word) if word in KNOWN_LABELS else len(KNOWN_LABELS), word))
    )
