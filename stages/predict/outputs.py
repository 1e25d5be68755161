"""Records of predictions as JSON and as a CSV of all videos, and timeline figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cache.features import FrameStatus
from ..extract.face_crops import TrackFrames, read_track_crops
from ..manifest.files import printable
from ..plots.style import png
from ..plots.timeline import timeline_figure
from ..slots import NUM_SLOTS
from .inference import WINDOW_STRIDE
from .predict import DEFAULT_VIEW, VideoView
from .prediction import (
    BOX_COLUMNS,
    EMPTY_TRACK,
    LANDMARK_COLUMNS,
    POINTS,
    FaceTrack,
    Prediction,
    WindowPrediction,
    frame_table,
    segments,
)

NUM_THUMBNAILS = 8
"""Face crops of the located clip on a timeline."""
THUMBNAIL_SIZE = 128
"""Side of a face crop in pixels."""
TRACKS_PER_PASS = 100
"""Face tracks whose thumbnails are in memory at a time (40 MB)."""


class LocatedFaces:
    """Faces of the located clips of face tracks; the video is read once for every TRACKS_PER_PASS of them.

    ``align``: as in ExtractConfig, or resize.
    """

    def __init__(self, predictions: Sequence[Prediction], align: str, view: VideoView = DEFAULT_VIEW) -> None:
        self._predictions = [prediction for prediction in predictions if prediction.located_time]
        self._align, self._region = align, view.region
        self._faces: dict[int, list[np.ndarray | None]] = {}

    def of(self, prediction: Prediction) -> list[np.ndarray | None]:
        """Return NUM_THUMBNAILS faces of a face track, None for frames that cannot be read; none without a located clip."""
        tracks = [each.track for each in self._predictions]
        if prediction.track not in tracks:
            return []
        if prediction.track not in self._faces:
            first = tracks.index(prediction.track)
            batch = self._predictions[first : first + TRACKS_PER_PASS]
            frames = [TrackFrames(_located_frames(p), p.face.landmarks, p.face.box, p.first_frame) for p in batch]
            crops = read_track_crops(
                prediction.path, frames, prediction.rotation, self._region, align=self._align, size=THUMBNAIL_SIZE
            )
            self._faces = {each.track: faces for each, faces in zip(batch, crops, strict=True)}
        return self._faces[prediction.track]


def _located_frames(prediction: Prediction) -> list[int]:
    """Return frames of the file, evenly over the located clip."""
    located = prediction.frame_range(prediction.located_time or (0.0, 0.0))
    first, end = prediction.first_frame + located.start, prediction.first_frame + located.stop
    return np.linspace(first, max(first, end - 1), NUM_THUMBNAILS).round().astype(int).tolist()


def timeline_png(prediction: Prediction, faces: Sequence[np.ndarray | None]) -> bytes:
    """Draw the timeline of a face track, with the faces of its located clip."""
    labels = prediction.labels
    single = len(prediction.windows) == 1
    windows = f"windows of {NUM_SLOTS} frames, stride {WINDOW_STRIDE}"
    suffix = f", track {prediction.track}, {prediction.display_name}" if prediction.track else ""
    figure = timeline_figure(
        frame_table(prediction, labels),
        labels,
        title=f"{printable(prediction.path.name)}{suffix}",
        subtitle=f"one window of {prediction.num_frames} frames" if single else windows,
        label=prediction.label,
        probabilities=prediction.probabilities,
        located_time=prediction.located_time,
        faces=faces,
        stacked=not single,
    )
    return png(figure)


def to_dict(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """Return a prediction as plain values for JSON: the fields of Prediction, ``confidence`` and ``segments``.

    ``frames`` is the number of frames; what each of them has is in the table of frames. ``windows`` is a list of the fields of
    WindowPrediction, ``segments`` one of begin, end, label, confidence, intensity and frames. A clip in ``intensity`` is
    [begin, end, weight]. Times are seconds; an unknown value is null.
    """
    values = asdict(replace(prediction, face=EMPTY_TRACK, edges=()))
    for key in ("face", "edges", "labels"):
        del values[key]
    values |= {"path": str(prediction.path), "frames": values.pop("num_frames"), "confidence": prediction.confidence}
    return values | {"segments": segments(prediction, labels)}


def from_record(record: dict[str, Any], frames: pd.DataFrame, labels: Sequence[str]) -> Prediction:
    """Return the prediction of ``to_dict`` again, from its record and the rows of its face track in the table of frames."""
    values = {key: value for key, value in record.items() if key in {field.name for field in fields(Prediction)}}
    values["path"], values["num_frames"] = Path(record["path"]), record["frames"]
    windows = [window | {"intensity": list(map(tuple, window["intensity"]))} for window in record["windows"]]
    for each in (values, *windows):
        each["located_time"] = tuple(each["located_time"]) if each["located_time"] else None
    values["windows"] = tuple(WindowPrediction(**window) for window in windows)
    values["intensity"], values["faces"] = list(map(tuple, record["intensity"])), tuple(record["faces"])
    statuses = {status.name.lower(): status.value for status in FrameStatus}
    face = FaceTrack(
        frames["status"].map(statuses).to_numpy(np.uint8),
        frames["score"].to_numpy(np.float32),
        frames[list(BOX_COLUMNS)].to_numpy(np.float32),
        frames[list(LANDMARK_COLUMNS)].to_numpy(np.float32).reshape(-1, len(POINTS), 2),
    )
    return Prediction(**values, edges=(*frames["time"].tolist(), record["end"]), labels=tuple(labels), face=face)


def to_frame(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> pd.DataFrame:
    """Return a row per face track for a CSV, from results of ``to_dict``; tracks without a prediction have a ``failure``.

    Columns: path, track, person, name, label, confidence, p_<label> of every label, located_begin and located_end (the
    located clip), begin and end (the track), similarity and unsure (of the person), frames, frames_with_face, fps,
    full_video_label, aggregation, status, note, failure.
    Times are seconds; see Prediction for the others.
    """
    rows = []
    for record in records:
        begin, end = record["located_time"] or (np.nan, np.nan)
        row = {key: record[key] for key in ("path", "track", "person", "name", "label", "confidence")}
        row |= {f"p_{label}": record["probabilities"].get(label, np.nan) for label in labels}
        row |= {"located_begin": begin, "located_end": end}
        columns = (
            "begin",
            "end",
            "similarity",
            "unsure",
            "frames",
            "frames_with_face",
            "fps",
            "full_video_label",
            "aggregation",
            "status",
            "note",
            "failure",
        )
        rows.append(row | {key: record[key] for key in columns})
    # PyArrow, which pandas takes for texts where it is installed, has no place for bytes of a name that are not UTF-8
    with pd.option_context("mode.string_storage", "python"):
        return pd.DataFrame(rows)
