"""Outputs of predict: tables per frame and per video, segments, JSON, CSV and timeline figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ..extract.face_crops import read_face_crops
from ..manifest.files import printable
from ..plots.style import png
from ..plots.timeline import timeline_figure
from ..slots import NUM_SLOTS
from .inference import WINDOW_STRIDE, Prediction
from .predict import DEFAULT_VIEW, FaceTrack, VideoView

NUM_THUMBNAILS = 8
"""Face crops of the located clip on a timeline."""
THUMBNAIL_SIZE = 128
"""Side of a face crop in pixels."""


def frame_table(prediction: Prediction, labels: Sequence[str]) -> pd.DataFrame:
    """Return columns frame, time (seconds), intensity and p_<label>: a row per frame of the face track, in order.

    Probabilities are the mean over the windows that cover the frame, intensity the mean weight of the clips that do. NaN if
    no window with a face covers it.
    """
    first, count = prediction.first_frame, prediction.frames
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
    """Return begin, end (seconds), label and confidence (mean probability) of each span with one leading label, in order."""
    table = frame_table(prediction, labels)
    best, confidence = leading_labels(table, labels)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)] if len(best) else [0]
    spans = []
    for first, end in itertools.pairwise(edges):
        if best[first] >= 0:
            begin, until = prediction.edges[first], prediction.edges[end]
            mean = float(confidence[first:end].mean())
            spans.append({"begin": begin, "end": until, "label": labels[best[first]], "confidence": mean})
    return spans


def timeline_png(
    prediction: Prediction, track: FaceTrack, labels: Sequence[str], align: str, view: VideoView = DEFAULT_VIEW
) -> bytes:
    """Draw the timeline of a face track; the video is read once more, up to the end of the located clip."""
    faces: list[np.ndarray | None] = []
    if prediction.located_time:
        located = prediction.frame_range(prediction.located_time)
        first, end = track.first_frame + located.start, track.first_frame + located.stop
        frames = np.linspace(first, max(first, end - 1), NUM_THUMBNAILS).round().astype(int)
        faces = list(
            read_face_crops(
                prediction.path, frames.tolist(), _pad_front(track.landmarks, track.first_frame),
                _pad_front(track.box, track.first_frame), prediction.rotation, view.region, align=align, size=THUMBNAIL_SIZE,
            )
        )  # fmt: skip
    single = len(prediction.windows) == 1
    windows = f"windows of {NUM_SLOTS} frames, stride {WINDOW_STRIDE}"
    suffix = f", track {prediction.track}" if prediction.track else ""
    figure = timeline_figure(
        frame_table(prediction, labels),
        list(labels),
        title=f"{printable(prediction.path.name)}{suffix}",
        subtitle=f"one window of {prediction.frames} frames" if single else windows,
        label=prediction.label,
        probabilities=prediction.probabilities,
        located_time=prediction.located_time,
        faces=faces,
        stacked=not single,
    )
    return png(figure)


def _pad_front(values: np.ndarray, first_frame: int) -> np.ndarray:
    """Return values per frame of a track as values per frame of the file: NaN before the track begins."""
    return np.concatenate([np.full((first_frame, *values.shape[1:]), np.nan, values.dtype), values])


def to_dict(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """Return a prediction as plain values for JSON: the fields of Prediction but ``edges``, ``confidence`` and ``segments``.

    ``windows`` is a list of the fields of WindowPrediction, ``segments`` one of begin, end, label and confidence. A clip in
    ``intensity`` is [begin, end, weight]. Times are seconds; an unknown value is null.
    """
    values = asdict(prediction) | {"path": str(prediction.path), "confidence": prediction.confidence}
    del values["edges"]  # a row each in the table of frames
    return values | {"segments": segments(prediction, labels)}


def to_frame(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> pd.DataFrame:
    """Return a row per face track for a CSV, from results of ``to_dict``; tracks without a prediction have a ``failure``.

    Columns: path, track, label, confidence, p_<label> of every label, located_begin and located_end (the located clip),
    begin and end (the track), frames, frames_with_face, fps, full_video_label, aggregation, status, note, failure.
    Times are seconds; see Prediction for the others.
    """
    rows = []
    for record in records:
        begin, end = record["located_time"] or (np.nan, np.nan)
        row = {key: record[key] for key in ("path", "track", "label", "confidence")}
        row |= {f"p_{label}": record["probabilities"].get(label, np.nan) for label in labels}
        row |= {"located_begin": begin, "located_end": end}
        columns = (
            "begin",
            "end",
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
    return pd.DataFrame(rows)
