"""Expression labels and their spellings."""

from __future__ import annotations

import re

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
_LABEL_OF_SPELLING = {spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings.split()}

KNOWN_LABELS = tuple(_SPELLINGS)
"""Every label of the known data sets; other ones need ``labels:`` in a configuration, or --labels.

The basic expressions are in alphabetical order, which is the order of the classes in the released CEFLNet code.
"""


def normalize_label(text: str) -> str | None:
    """Return the label for any usual spelling of it, or None if it is not known.

    >>> normalize_label("Happy"), normalize_label("Sad_"), normalize_label(" ANG "), normalize_label("bored")
    ('happiness', 'sadness', 'anger', None)
    """
    return _LABEL_OF_SPELLING.get(re.sub(r"[\s_\-]+$|^[\s_\-\d.]+", "", text).lower())


def sort_labels(labels: set[str]) -> tuple[str, ...]:
    """Return labels in the order of KNOWN_LABELS, then other ones in alphabetical order."""
    return tuple(label for label in KNOWN_LABELS if label in labels) + tuple(sorted(labels - set(KNOWN_LABELS)))
