"""Estimate which way up the face stands in a video, and which half shows it from the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import CeflError
from ..manifest.manifest import Manifest, Row
from ..manifest.scan import View
from .detection import Detector, Faces
from .extract_config import Wishes, make_detector
from .video_reader import CannotDecode, open_video

LOOKED_AT = (0, 10, 20)
"""Frames that are searched for a face; of a shorter video those that it has."""
CLEARLY = 0.15
"""By how much a view must score better than the one taken by rule before it takes its place."""


@dataclass(frozen=True)
class Settled:
    """What looking at one video came to: the view that shows the face best, and what each view scored, 0 to 1.

    ``trouble`` says why nothing could be settled: the video cannot be read, or no view shows a face.
    """

    id: str
    by_rule: View
    best: View
    scores: dict[View, float]
    trouble: str = ""

    @property
    def differs(self) -> bool:
        return self.best != self.by_rule


def detector_of(config: Any) -> Detector:
    """Return the detector that stage one will use on this data set."""
    wishes = Wishes(
        Path(), faces="detect", detector=config.detector, side=config.side, minimum_score=config.minimum_score
    )
    detector = make_detector(wishes)
    if detector is None:
        raise CeflError("faces: given needs no detector, so there is nothing to look for")
    return detector


def settle(
    manifest: Manifest,
    views: Mapping[str, Sequence[View]],
    detector: Detector,
    on_video: Callable[[], None] = lambda: None,
) -> list[Settled]:
    """Look at every video that has several ``views`` (the first of them is that of the manifest or the rule)."""
    settled = []
    for row in manifest.rows:
        if row.id in views:
            settled.append(_settle(manifest, row, views[row.id], detector))
            on_video()
    return settled


def _settle(manifest: Manifest, row: Row, views: Sequence[View], detector: Detector) -> Settled:
    rule = views[0]
    scores: dict[View, float] = {}
    try:
        path = manifest.file_of(row)
        for view in views:
            scores[view] = _score(path, view, detector)
    except (CannotDecode, CeflError) as error:
        return Settled(row.id, rule, rule, scores, str(error))
    best = max(scores, key=lambda view: scores[view])
    if not scores[best]:
        return Settled(row.id, rule, rule, scores, "no view shows a face")
    return Settled(row.id, rule, best if scores[best] > scores[rule] + CLEARLY else rule, scores)


def _score(path: Path, view: View, detector: Detector) -> float:
    """Return the mean over the frames looked at of how well the best face stands upright and looks at the camera."""
    frames = open_video(path, view.rotation, view.region).frames()
    looked_at = [frame for number, frame in enumerate(islice(frames, max(LOOKED_AT) + 1)) if number in LOOKED_AT]
    if not looked_at:
        raise CannotDecode("no frame can be decoded")
    return float(np.mean([frontal_and_upright(detector(frame)) for frame in looked_at]))


def frontal_and_upright(faces: Faces) -> float:
    """Return the best of the faces' scores, each times how upright and how frontal its five points are (0 to 1).

    Upright: the cosine of the angle between straight down and the way from the eyes to the mouth. Frontal: 1 where the
    nose lies midway between the eyes, 0 where it lies as far from the middle as an eye does.
    """
    best = 0.0
    for points, score in zip(faces.landmarks, faces.scores, strict=True):
        eyes, mouth, nose = points[:2].mean(axis=0), points[3:].mean(axis=0), points[2]
        down, across = mouth - eyes, points[1] - points[0]
        apart = float(np.linalg.norm(across))
        upright = max(0.0, float(down[1]) / max(1e-6, float(np.linalg.norm(down))))
        aside = abs(float((nose - eyes) @ across)) / max(1e-6, apart**2)
        best = max(best, float(score) * upright * max(0.0, 1 - 2 * aside))
    return best
