"""Persons of a video: face tracks joined across scene cuts and absences by the similarity of their embeddings.

Constrained agglomerative clustering: average linkage on cosine similarity, where two tracks that are in view at the same time
are never one person (a cannot-link constraint; Davidson and Ravi, ECML PKDD 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 1 / 12
"""Around the threshold, and between two persons, a track counts as unsure within this part of what is left from the threshold
to 1: 0.05 of cosine similarity at a threshold of 0.4. Networks differ in how far apart they put persons."""
NOT_COMPARED = "not compared with the other tracks, for want of an identity network"

Span = tuple[int, int]
"""First frame of a track in the file, and the one after its last."""


@dataclass(frozen=True)
class Membership:
    """Person of a track, from 1 in order of first appearance; the other fields as in Prediction."""

    person: int
    similarity: float | None = None
    unsure: str = ""


def assign_persons(
    embeddings: Sequence[np.ndarray | None], spans: Sequence[Span], thresh: float, margin: float = MARGIN
) -> list[Membership]:
    """Return the person of each track; tracks come in order of appearance.

    ``embeddings``: (D,) of length one per track, None for a track that has none, which is a person of its own. ``thresh``:
    cosine similarity (-1..1) from which tracks are one person. ``margin``: see MARGIN.
    """
    apart = overlaps(spans)
    known = {index: embedding for index, embedding in enumerate(embeddings) if embedding is not None}
    similarity = np.full((len(spans), len(spans)), -np.inf)
    if known:
        vectors, indices = np.stack(list(known.values())).astype(np.float64), list(known)
        similarity[np.ix_(indices, indices)] = vectors @ vectors.T
    groups = cluster(similarity, apart, thresh)
    return [_membership(index, groups, similarity, apart, thresh, margin * (1 - thresh)) for index in range(len(spans))]


def overlaps(spans: Sequence[Span]) -> np.ndarray:
    """Return whether two tracks (N, N) are in view at the same time; a track is with itself."""
    first, end = np.array(spans, np.int64).reshape(-1, 2).T
    return (first[:, None] < end) & (first < end[:, None])


def cluster(similarity: np.ndarray, apart: np.ndarray, thresh: float) -> np.ndarray:
    """Return the group (N,) of each track, numbered from 0 in order of their first tracks.

    Again and again the two groups with the largest mean similarity are joined, as long as it is at least ``thresh``; groups with
    tracks that are ``apart`` (N, N) never are. Of equal ones the first in order are joined.
    """
    count = len(similarity)
    mean = np.where(apart | np.eye(count, dtype=bool), -np.inf, similarity)  # and stays so in every mean with it
    sizes, groups = np.ones(count), np.arange(count)
    while count and mean.max() >= thresh:
        one, two = sorted(int(index) for index in np.unravel_index(int(mean.argmax()), mean.shape))
        row = (sizes[one] * mean[one] + sizes[two] * mean[two]) / (sizes[one] + sizes[two])  # Lance and Williams, 1967
        mean[one], mean[:, one], mean[two], mean[:, two] = row, row, -np.inf, -np.inf
        sizes[one] += sizes[two]
        groups[groups == two] = one
    return np.unique(groups, return_inverse=True)[1] if count else groups


def _membership(
    index: int, groups: np.ndarray, similarity: np.ndarray, apart: np.ndarray, thresh: float, margin: float
) -> Membership:
    person, others = int(groups[index]) + 1, np.arange(len(groups)) != index
    if np.isneginf(similarity[index, index]):
        return Membership(person, None, NOT_COMPARED if (~apart[index] & others).any() else "")
    mates = others & (groups == groups[index])
    own = float(similarity[index, mates].mean()) if mates.any() else None
    rival, closest = 0, -np.inf
    for group in range(int(groups.max()) + 1):
        members = groups == group
        if group == groups[index] or apart[index, members].any():
            continue
        mean = float(similarity[index, members].mean())
        if mean > closest:
            rival, closest = group + 1, mean
    doubts = []
    if own is not None and own < thresh + margin:
        doubts.append(f"similarity {own:.3f} to the rest of person {person}, near the threshold {thresh:.3f}")
    if closest >= thresh - margin and (own is None or closest > own - margin):
        doubts.append(f"may be person {rival}, similarity {closest:.3f}")
    return Membership(person, own, "; ".join(doubts))
