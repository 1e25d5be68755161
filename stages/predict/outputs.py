"""Outputs of predict: tables per frame and per video, segments, JSON, CSV and timeline figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cache.atomic import safe_name, write_json, write_text
from ..extract.face_crops import read_face_crops
from ..plots.style import png
from ..plots.timeline import timeline_figure
from ..slots import NUM_SLOTS
from .inference import WINDOW_STRIDE, Prediction
from .predict import DEFAULT_VIEW, FaceTrack, TrackedPrediction, VideoView

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
        title=f"{prediction.path.name}{suffix}",
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


def to_frame(predictions: Sequence[Prediction], labels: Sequence[str]) -> pd.DataFrame:
    """Return a row per face track for a CSV; tracks without a prediction have the reason in ``failure``.

    Columns: path, track, label, confidence, p_<label> of every label, located_begin and located_end (the located clip),
    begin and end (the track), frames, frames_with_face, fps, full_video_label, aggregation, note, failure. Times are seconds; see
    Prediction for the others.
    """
    rows = []
    for p in predictions:
        begin, end = p.located_time or (np.nan, np.nan)
        rows.append(
            {"path": str(p.path), "track": p.track, "label": p.label, "confidence": p.confidence}
            | {f"p_{label}": p.probabilities.get(label, np.nan) for label in labels}
            | {"located_begin": begin, "located_end": end, "begin": p.begin, "end": p.end}
            | {"frames": p.frames, "frames_with_face": p.frames_with_face, "fps": p.fps}
            | {
                "full_video_label": p.full_video_label,
                "aggregation": p.aggregation,
                "note": p.note,
                "failure": p.failure,
            }
        )
    return pd.DataFrame(rows)


def write_results(
    folder: Path,
    stem: str,
    results: Sequence[TrackedPrediction],
    labels: Sequence[str],
    align: str,
    view: VideoView = DEFAULT_VIEW,
) -> None:
    """Write STEM.json (a list of to_dict) and, per face track, its timeline as STEM.png and its frame_table as STEM.csv.

    Those of a track with a number are STEM.track1.png, STEM.track1.csv and so on.
    """
    write_json(folder / f"{stem}.json", [to_dict(result.prediction, labels) for result in results])
    for result in results:
        prediction = result.prediction
        if prediction.failure:
            continue
        name = f"{stem}.track{prediction.track}" if prediction.track else stem
        (folder / f"{name}.png").write_bytes(timeline_png(prediction, result.track, labels, align, view))
        write_text(folder / f"{name}.csv", frame_table(prediction, labels).to_csv(index=False))


def output_stems(videos: Sequence[Path]) -> dict[Path, str]:
    """Return a file name without extension for each video: its own, or a hash of its path if several have the same."""
    stems = [video.stem if video.suffix else video.name for video in videos]
    return {
        video: stem if stems.count(stem) == 1 else safe_name(str(video))
        for video, stem in zip(videos, stems, strict=True)
    }
