"""Estimate the rotation in which the faces of a video are upright, and which half of a dual view is frontal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ..callbacks import ProgressCallback, ignore_progress
from ..manifest.manifest import Manifest, VideoEntry
from ..manifest.scan import ViewTransform
from .detection import Detections, Detector
from .extract_config import ExtractConfig, build_detector
from .video_reader import DecodeError, open_video

PROBE_FRAMES = (0, 10, 20)
"""Indices of the frames that are searched for a face, as far as the video has them."""
MIN_MARGIN = 0.15
"""Margin (0..1) by which a view must score above the default one to replace it."""


@dataclass(frozen=True)
class OrientationResult:
    """The default view of a video, the best one, and the score of each (0..1).

    ``error`` is the reason if there is no estimate: the video cannot be read, or no view shows a face.
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
    """Return the detector of stage one; raises CeflError if the input is face crops."""
    detector = build_detector(config)
    if detector is None:
        raise CeflError(
            "extract.input is crops, so there is no detector to estimate the orientation; set extract.input: video"
        )
    return detector


def estimate_orientations(
    manifest: Manifest,
    views: Mapping[str, Sequence[ViewTransform]],
    detector: Detector,
    on_progress: ProgressCallback = ignore_progress,
) -> list[OrientationResult]:
    """Return the result of every video in ``views``, its candidate views by id; the first is the default."""
    results = []
    for entry in manifest.entries:
        if entry.id in views:
            results.append(_estimate_orientation(manifest, entry, views[entry.id], detector))
            on_progress(len(results), len(views))
    return results


def _estimate_orientation(
    manifest: Manifest, entry: VideoEntry, views: Sequence[ViewTransform], detector: Detector
) -> OrientationResult:
    default = views[0]
    scores: dict[ViewTransform, float] = {}
    try:
        path = manifest.video_path(entry)
        for view in views:
            scores[view] = _score(path, view, detector)
    except (DecodeError, CeflError) as error:
        return OrientationResult(entry.id, default, default, scores, str(error))
    best = max(scores, key=lambda view: scores[view])
    if not scores[best]:
        return OrientationResult(entry.id, default, default, scores, "no view shows a face")
    return OrientationResult(
        entry.id, default, best if scores[best] > scores[default] + MIN_MARGIN else default, scores
    )


def _score(path: Path, view: ViewTransform, detector: Detector) -> float:
    """Return the mean frontal_upright_score of the probed frames."""
    frames = islice(open_video(path, view.rotation, view.region).frames(), max(PROBE_FRAMES) + 1)
    probed = [frame for index, frame in enumerate(frames) if index in PROBE_FRAMES]
    if not probed:
        raise DecodeError("no frame can be decoded")
    return float(np.mean([frontal_upright_score(detector(frame)) for frame in probed]))


def frontal_upright_score(faces: Detections) -> float:
    """Return the highest product (0..1) of a face's detection score, how upright and how frontal it is; 0 without faces.

    Upright: the cosine of the angle between the line from the eyes to the mouth and the vertical. Frontal: 1 if the nose
    is midway between the eyes, 0 if it is as far from there as an eye.
    """
    best = 0.0
    for points, score in zip(faces.landmarks, faces.scores, strict=True):
        eyes, mouth, nose = points[:2].mean(axis=0), points[3:].mean(axis=0), points[2]
        down, across = mouth - eyes, points[1] - points[0]
        upright = max(0.0, float(down[1]) / max(1e-6, float(np.linalg.norm(down))))
        offset = abs(float((nose - eyes) @ across)) / max(1e-6, float(np.linalg.norm(across)) ** 2)
        best = max(best, float(score) * upright * max(0.0, 1 - 2 * offset))
    return best
