"""Prediction of a run for a face track, and its tables: a row per frame, a row per segment."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cache.features import FrameStatus, VideoStatus

TIME_TOLERANCE = 1e-7
"""Seconds by which two times of the same frame may differ."""

TimeSpan = tuple[float, float]
ClipIntensity = tuple[float, float, float]


POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""The five landmarks of RetinaFace, left and right as in the image."""
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
LANDMARK_COLUMNS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
SEGMENT_COLUMNS = ("track", "person", "name", "begin", "end", "label", "confidence", "intensity", "frames")


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """A face in the T frames of a face track: frame_status (T,), score (T,), box (T, 4), landmarks (T, 5, 2).

    Units, types and gaps are those of VideoFeatures.
    """

    frame_status: np.ndarray
    score: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray

    @property
    def area(self) -> float:
        """Area in pixels of the first box."""
        return float(np.prod(self.box[0, 2:] - self.box[0, :2])) if len(self.box) else 0.0


EMPTY_TRACK = FaceTrack(
    np.zeros(0, np.uint8), np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)
)


@dataclass(frozen=True)
class WindowPrediction:
    """Prediction for a window of frames; ``begin`` and ``end`` are seconds from the start of the file.

    ``intensity``: (begin, end, weight) of each clip in the map of ``label``; weights sum to one. ``label`` is '' if too
    few frames show the face.
    """

    first_frame: int
    frames: int
    begin: float
    end: float
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    intensity: list[ClipIntensity] = field(default_factory=list)
    located_time: TimeSpan | None = None


@dataclass(frozen=True)
class Prediction:
    """Prediction of a run for one face track; times are seconds from the start of the file.

    ``probabilities`` by label, in 0..1 with sum 1: of the only window for up to 105 frames, else the mean over the windows
    with a face. ``intensity`` and ``located_time`` (begin, end of the located clip) are those of the window most confident
    of ``label``. ``failure``: why there is no prediction, else ''. ``track``: 0 for the main face, else 1, 2, … in order of
    appearance. ``person``: number of the person, whose face tracks have the same one; 0 for a track that was not grouped.
    ``name``: given by the user, else ''. ``grouped_person``: the number before names joined or parted persons. ``similarity``:
    mean cosine of the embedding of this track with those of the other tracks of the person, None if there are none. ``unsure``:
    why the number may be wrong, else ''. ``naming``: what of the names that were given did not fit. ``faces``: frames of the
    file whose faces stand for the track. ``frames_with_face``: frames with a detected, interpolated or given face, of
    ``num_frames``, those of the track. ``first_frame``: index in the file of the first frame of the track. ``fps``:
    mean frames per second, 0 if the video cannot be read. ``begin``, ``end``: span of the track. ``edges``: time of each
    frame of the track, and of the end of the last. ``status``: a VideoStatus; of a truncated video the frames that are there
    are predicted. ``note``: what was assumed of the file, and how it ends early. ``rotation``: as in VideoFeatures.
    ``temperature``: at which the probabilities of each model were taken (heads/calibration.py), None if as they are.
    ``aggregation``: how the windows were combined, in words. ``windows``: prediction per window, in order.
    ``full_video_label``: label that the run's own test procedure, which samples 105 slots of a longer video, gives; '' for a
    video that it leaves out. ``labels``: those of the run, in its order. ``face``: where the face is in each frame.
    """

    path: Path
    num_frames: int = 0
    frames_with_face: int = 0
    fps: float = 0.0
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    intensity: list[ClipIntensity] = field(default_factory=list)
    located_time: TimeSpan | None = None
    status: str = VideoStatus.OK
    failure: str = ""
    track: int = 0
    person: int = 0
    name: str = ""
    grouped_person: int = 0
    similarity: float | None = None
    unsure: str = ""
    naming: str = ""
    faces: tuple[int, ...] = ()
    begin: float = 0.0
    end: float = 0.0
    aggregation: str = ""
    full_video_label: str = ""
    windows: tuple[WindowPrediction, ...] = ()
    first_frame: int = 0
    note: str = ""
    rotation: str = ""
    temperature: float | None = None
    edges: tuple[float, ...] = field(default=(), repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    face: FaceTrack = field(default=EMPTY_TRACK, repr=False, compare=False)

    @property
    def confidence(self) -> float | None:
        """Probability of ``label``; None without a prediction."""
        return self.probabilities.get(self.label)

    @property
    def person_number(self) -> int:
        """Number of the person, from 1; the main face is the first, and a track that was not compared a person of its own."""
        return self.person or self.track or 1

    @property
    def display_name(self) -> str:
        """Name of the person for a reader: the given one, else e.g. person 1."""
        return self.name or f"person {self.person_number}"

    def frame_range(self, span: Sequence[float]) -> slice:
        """Return the frames of the track that begin in a span of time (begin, end)."""
        first, end = (bisect_left(self.edges, time - TIME_TOLERANCE, hi=self.num_frames) for time in span[:2])
        return slice(first, end)

    def frames(self) -> pd.DataFrame:
        """Return a row per frame of the face track, in order.

        Columns: track (0 for the main face, else 1, 2, …); person (its number, from 1) and name ('' unless given); frame (index
        in the file, from 0); time (seconds from the start of the file, as the container gives it); label (the most probable
        one, '' if no window with a face covers the frame) and confidence (its probability, 0..1); intensity (mean weight of the
        clips over the frame in the map of their window, 0..1, NaN without a map); p_<label> of every label (0..1, mean over the
        windows that cover the frame); status (detected, interpolated, missing or given), score (of the detector, 0..1, NaN unless
        detected); x1, y1, x2, y2 (box) and left_eye_x, …, mouth_right_y (landmarks), in pixels of the frame after rotation and
        region, NaN if missing.
        """
        table = frame_table(self, self.labels)
        best, confidence = leading_labels(table, self.labels)
        for position, (column, value) in enumerate(self._columns().items()):
            table.insert(position, column, value)
        table.insert(5, "label", [self.labels[index] if index >= 0 else "" for index in best])
        table.insert(6, "confidence", confidence)
        columns: dict[str, Any] = {"status": [FrameStatus(value).name.lower() for value in self.face.frame_status]}
        columns["score"] = self.face.score
        columns |= dict(zip(BOX_COLUMNS, self.face.box.T, strict=True))
        columns |= dict(zip(LANDMARK_COLUMNS, self.face.landmarks.reshape(-1, len(LANDMARK_COLUMNS)).T, strict=True))
        return pd.concat([table, pd.DataFrame(columns)], axis=1)

    def segments(self) -> pd.DataFrame:
        """Return a row per span with one leading label, in order; a frame without a prediction is in none.

        Columns: track, person, name; begin, end (seconds from the start of the file); label; confidence (mean probability of
        the label, 0..1); intensity (mean over the frames, 0..1, NaN without a map); frames (their number).
        """
        rows = [self._columns() | segment for segment in segments(self, self.labels)]
        return pd.DataFrame(rows, columns=pd.Index(SEGMENT_COLUMNS))

    def _columns(self) -> dict[str, Any]:
        return {"track": self.track, "person": self.person_number, "name": self.name}


def frame_table(prediction: Prediction, labels: Sequence[str]) -> pd.DataFrame:
    """Return columns frame, time (seconds), intensity and p_<label>: a row per frame of the face track, in order.

    Probabilities are the mean over the windows that cover the frame, intensity the mean weight of the clips that do. NaN if
    no window with a face covers it.
    """
    first, count = prediction.first_frame, prediction.num_frames
    probabilities, num_windows = np.zeros((count, len(labels))), np.zeros(count)
    intensity, num_clips = np.zeros(count), np.zeros(count)
    for window in prediction.windows:
        if not window.label:
            continue
        frames = slice(window.first_frame - first, window.first_frame - first + window.frames)
        probabilities[frames] += [window.probabilities[label] for label in labels]
        num_windows[frames] += 1
        for begin, end, weight in window.intensity:
            frames = prediction.frame_range((begin, end))
            intensity[frames] += weight
            num_clips[frames] += 1
    with np.errstate(invalid="ignore"):
        probabilities, intensity = probabilities / num_windows[:, None], intensity / num_clips
    frame = np.arange(first, first + count)
    table = pd.DataFrame({"frame": frame, "time": prediction.edges[:-1], "intensity": intensity})
    return table.assign(**{f"p_{label}": probabilities[:, i] for i, label in enumerate(labels)})


def leading_labels(table: pd.DataFrame, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the index (T,) of the most probable label of each frame of a frame_table, -1 for NaN, and its probability."""
    probabilities = table[[f"p_{label}" for label in labels]].to_numpy()
    known = np.isfinite(probabilities).all(axis=1)
    best = np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
    return best, probabilities[np.arange(len(best)), best]


def segments(prediction: Prediction, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return each span with one leading label, in order: begin, end (seconds), label, confidence, intensity and frames.

    Confidence and intensity are means over the frames; intensity is None without a map.
    """
    table = frame_table(prediction, labels)
    best, confidence = leading_labels(table, labels)
    intensity = table["intensity"].to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)] if len(best) else [0]
    spans = []
    for first, end in itertools.pairwise(edges):
        if best[first] >= 0:
            known = intensity[first:end][np.isfinite(intensity[first:end])]
            spans.append(
                {
                    "begin": prediction.edges[first],
                    "end": prediction.edges[end],
                    "label": labels[best[first]],
                    "confidence": float(confidence[first:end].mean()),
                    "intensity": float(known.mean()) if len(known) else None,
                    "frames": end - first,
                }
            )
    return spans
