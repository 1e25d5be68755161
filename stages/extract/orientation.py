"""Orientation of faces: their tilt, the rotation in which they are upright, and which half of a dual view is frontal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ..align import ARCFACE_SIZE, ARCFACE_TEMPLATE, estimate_similarity
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
AUTO_ROTATION = "auto"
"""In place of a rotation: the one in which the faces of the video are upright."""
ROTATIONS = ("", "90", "180", "270")
"""All rotations, in degrees clockwise."""
ROTATION_INTERVAL = 10
"""Frames from one that is searched for a face to the next, to estimate the rotation of a video."""
ROTATION_FACES = 3
"""Frames with a face that are enough to estimate the rotation."""
ROTATION_LIMIT = 600
"""Frames after which no more faces are searched to estimate the rotation."""
MIN_TILTED_FRACTION = 0.5
"""Fraction of the detected faces (0..1) that must be tilted alike, or doubtful."""
CLEAR_SCORE = 0.9
"""Detection score (0..1) below which a face may be turned: in a turned one, other parts are taken for eyes and mouth."""
MAX_TILT = 30.0
"""Degrees of tilt above which a face may be turned by more."""
MAX_RESIDUAL = 0.12
"""Root mean square distance of the aligned landmarks to the template, in sides of the crop, above which a face may be turned."""
MIN_TURNED_SCORE = 0.5
"""Mean score (0..1) from which turned frames show upright faces."""


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
    for view in views:
        try:
            scores[view] = _score(manifest.video_path(entry), view, detector)
        except (DecodeError, CeflError) as error:
            if view == default:
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
    return float(np.mean([frontal_upright_score(detector(frame.image)) for frame in probed]))


def all_rotations(rotation: str, region: str = "") -> tuple[ViewTransform, ...]:
    """Return the views of a video in all rotations, the given one first."""
    default = ViewTransform("" if rotation == "0" else rotation, region)
    return default, *(ViewTransform(other, region) for other in ROTATIONS if other != default.rotation)


def estimate_rotation(path: Path, region: str, detector: Detector) -> str:
    """Return the rotation ('', '90', '180', '270') in which the faces of a video are upright; '' unless it is clear.

    Frames are searched in all four rotations until ROTATION_FACES of them show a face. Raises DecodeError.
    """
    mean = _rotation_scores(path, region, detector).mean(axis=0)
    return ROTATIONS[int(mean.argmax())] if mean.max() > mean[0] + MIN_MARGIN else ""


def find_turned_faces(path: Path, region: str, rotation: str, detector: Detector) -> str:
    """Return a note if faces are upright in another rotation than ``rotation``, else ''; raises DecodeError."""
    current, mean = (
        ROTATIONS.index("" if rotation == "0" else rotation),
        _rotation_scores(path, region, detector).mean(axis=0),
    )
    best = int(mean.argmax())
    is_turned = mean[best] >= max(MIN_TURNED_SCORE, mean[current] + MIN_MARGIN)
    return _turned_note(current - best, rotation) if is_turned else ""


def _rotation_scores(path: Path, region: str, detector: Detector) -> np.ndarray:
    """Return the frontal_upright_score of the first frames with a face, in all rotations: (n, 4), n at least 1."""
    scores = np.zeros((0, len(ROTATIONS)))
    for frame in islice(open_video(path).frames(), 0, ROTATION_LIMIT, ROTATION_INTERVAL):
        row = [frontal_upright_score(detector(image)) for image in _turn(frame.image, region)]
        if any(row):
            scores = np.vstack([scores, row])
        if len(scores) == ROTATION_FACES:
            break
    return scores if len(scores) else np.zeros((1, len(ROTATIONS)))


def _turn(image: np.ndarray, region: str) -> Iterator[np.ndarray]:
    """Yield an image in all rotations, cut to the region where that lies inside."""
    for quarters in range(len(ROTATIONS)):
        turned = np.rot90(image, -quarters)
        if region:
            x, y, width, height = (int(part) for part in region.split())
            if y + height <= turned.shape[0] and x + width <= turned.shape[1]:
                turned = turned[y : y + height, x : x + width]
        yield np.ascontiguousarray(turned)


def face_tilt(landmarks: np.ndarray) -> float:
    """Return by how many degrees (-180..180) a face with landmarks (5, 2) is turned clockwise from upright.

    All five landmarks count: the tilt is that of the similarity that maps them to the template of aligned faces.
    """
    matrix = estimate_similarity(landmarks, ARCFACE_SIZE)
    return -float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))


def describe_tilt(landmarks: Sequence[np.ndarray], rotation: str = "") -> str:
    """Return a note if most faces of a video are sideways or upside down, else ''.

    ``landmarks``: (5, 2) of each detected face; ``rotation``: that in which it was read.
    """
    quarters = [round(face_tilt(points) / 90) % 4 for points in landmarks]
    counts = np.bincount(quarters, minlength=4)
    most = int(counts.argmax())
    if not most or counts[most] < MIN_TILTED_FRACTION * len(quarters):
        return ""
    return _turned_note(most, rotation)


def may_be_turned(landmarks: Sequence[np.ndarray], scores: Sequence[float], num_frames: int) -> bool:
    """Return whether the faces of a video may be sideways or upside down, so that it is worth a look in other rotations.

    ``landmarks`` (5, 2) and ``scores`` (0..1) of the detected faces. Turned faces are often not detected, or with other
    landmarks than they have: then the score is low, the tilt high, or the landmarks fit the template badly.
    """
    if len(scores) < (1 - MIN_TILTED_FRACTION) * num_frames or not num_frames:
        return num_frames > 0
    doubtful = [
        score < CLEAR_SCORE or abs(face_tilt(points)) > MAX_TILT or _residual(points) > MAX_RESIDUAL
        for points, score in zip(landmarks, scores, strict=True)
    ]
    return sum(doubtful) >= MIN_TILTED_FRACTION * len(doubtful)


def _residual(landmarks: np.ndarray) -> float:
    """Return the root mean square distance of aligned landmarks (5, 2) to the template, in sides of the crop."""
    matrix = estimate_similarity(landmarks, ARCFACE_SIZE)
    distances = np.linalg.norm(landmarks @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_TEMPLATE, axis=1)
    return float(np.sqrt(np.mean(distances**2))) / ARCFACE_SIZE


def _turned_note(quarters: int, rotation: str) -> str:
    """Return the note on faces that are turned clockwise by so many quarters in the given rotation."""
    tilt = "upside down" if quarters % 4 == 2 else "tilted by about 90 degrees"
    cure = (int(rotation or 0) - 90 * quarters) % 360
    return f"faces are {tilt}; set rotation {cure} in the manifest, or use --rotation auto"


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
