"""Estimate which way up the face stands in a video, and which half shows it from the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ..manifest.manifest import Manifest, VideoEntry
from ..manifest.scan import ViewTransform
from ..progress import ProgressCallback, ignore_progress
from .detection import Detections, Detector
from .extract_config import ExtractConfig, build_detector
from .video_reader import DecodeError, open_video

PROBE_FRAMES = (0, 10, 20)
"""Frames that are searched for a face; of a shorter video those that it has."""
MIN_MARGIN = 0.15
"""By how much a view must score better than the one taken by rule before it takes its place."""


@dataclass(frozen=True)
class OrientationResult:
    """What looking at one video came to: the view that shows the face best, and what each view scored, 0 to 1.

    ``trouble`` says why nothing could be settled: the video cannot be read, or no view shows a face.
    """

    id: str
    default: ViewTransform
    best: ViewTransform
    scores: dict[ViewTransform, float]
    error: str = ""

    @property
    def changed(self) -> bool:
        return self.best != self.default


def build_probe_detector(config: ExtractConfig) -> Detector:
    """Return the detector that stage one will use on this data set; raises CeflError for face crops."""
    detector = build_detector(config)
    if detector is None:
        raise CeflError("extract.input: crops needs no detector, so there is no orientation to estimate")
    return detector


def estimate_orientations(
    manifest: Manifest,
    views: Mapping[str, Sequence[ViewTransform]],
    detector: Detector,
    on_progress: ProgressCallback = ignore_progress,
) -> list[OrientationResult]:
    """Probe every video that has several candidate ``views``, of which the first is the manifest's or the loader's."""
    results = []
    for entry in manifest.entries:
        if entry.id in views:
            results.append(_estimate_orientation(manifest, entry, views[entry.id], detector))
            on_progress(len(results), len(views))
    return results


def _estimate_orientation(
    manifest: Manifest, row: VideoEntry, views: Sequence[ViewTransform], detector: Detector
) -> OrientationResult:
    rule = views[0]
    scores: dict[ViewTransform, float] = {}
    try:
        path = manifest.video_path(row)
        for view in views:
            scores[view] = _score(path, view, detector)
    except (DecodeError, CeflError) as error:
        return OrientationResult(row.id, rule, rule, scores, str(error))
    best = max(scores, key=lambda view: scores[view])
    if not scores[best]:
        return OrientationResult(row.id, rule, rule, scores, "no view shows a face")
    return OrientationResult(row.id, rule, best if scores[best] > scores[rule] + MIN_MARGIN else rule, scores)


def _score(path: Path, view: ViewTransform, detector: Detector) -> float:
    """Return the mean over the frames looked at of how well the best face stands upright and looks at the camera."""
    frames = open_video(path, view.rotation, view.region).frames()
    looked_at = [frame for number, frame in enumerate(islice(frames, max(PROBE_FRAMES) + 1)) if number in PROBE_FRAMES]
    if not looked_at:
        raise DecodeError("no frame can be decoded")
    return float(np.mean([frontal_upright_score(detector(frame)) for frame in looked_at]))


def frontal_upright_score(faces: Detections) -> float:
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
