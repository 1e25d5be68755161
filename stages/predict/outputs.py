"""Outputs of predict: tables per frame and per video, segments, JSON, CSV and timeline pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cache.atomic import safe_name, write_json, write_text
from ..heads.clip_sampling import NUM_SLOTS
from ..plots.style import png
from ..plots.timeline import timeline_figure
from ..report.face_crops import read_face_crops
from .inference import WINDOW_STRIDE, Prediction
from .predict import FaceTrack, TrackedPrediction

NUM_THUMBNAILS = 8
"""Pictures of the located clip on the timeline."""
THUMBNAIL_SIZE = 128


def frame_table(prediction: Prediction, labels: Sequence[str]) -> pd.DataFrame:
    """Return columns frame, second, intensity and p_<label>: a line per frame of the person's stretch, in order.

    Probabilities are the mean of the windows that cover the frame; the intensity is the mean over the clips that do, a
    share of their window's map. NaN where no window says anything.
    """
    fps = prediction.fps or 25.0
    first = round(prediction.begin * fps)
    count = prediction.frames
    shares, windows = np.zeros((count, len(labels))), np.zeros(count)
    intensity, clips = np.zeros(count), np.zeros(count)
    for window in prediction.windows:
        if not window.label:
            continue
        here = slice(window.first_frame - first, window.first_frame - first + window.frames)
        shares[here] += [window.probabilities[label] for label in labels]
        windows[here] += 1
        for begin, end, share in window.intensity:
            covered = slice(round(begin * fps) - first, round(end * fps) - first)
            intensity[covered] += share
            clips[covered] += 1
    with np.errstate(invalid="ignore"):
        shares, intensity = shares / windows[:, None], intensity / clips
    frames = np.arange(first, first + count)
    table = pd.DataFrame({"frame": frames, "second": frames / fps, "intensity": intensity})
    return table.assign(**{f"p_{label}": shares[:, i] for i, label in enumerate(labels)})


def segments(prediction: Prediction, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return begin, end (seconds), label and mean probability of each stretch in which one label leads, in order."""
    table = frame_table(prediction, labels)
    columns = [f"p_{label}" for label in labels]
    known = table[columns].notna().all(axis=1).to_numpy()
    leading = np.where(known, table[columns].fillna(0).to_numpy().argmax(axis=1), -1)
    edges = [0, *(np.flatnonzero(np.diff(leading)) + 1).tolist(), len(leading)] if len(leading) else [0]
    fps, said = prediction.fps or 25.0, []
    for begin, end in itertools.pairwise(edges):
        if leading[begin] >= 0:
            sure = float(table[columns[leading[begin]]].iloc[begin:end].mean())
            start = float(table["second"].iloc[begin])
            said.append(
                {
                    "begin": start,
                    "end": start + (end - begin) / fps,
                    "label": labels[leading[begin]],
                    "probability": sure,
                }
            )
    return said


def timeline_png(prediction: Prediction, track: FaceTrack, labels: Sequence[str], align: str) -> bytes:
    """Draw a person's timeline; the video is read once more, up to the end of the located clip."""
    faces: list[np.ndarray | None] = []
    if prediction.located:
        fps = prediction.fps or 25.0
        first, last = (round(second * fps) for second in prediction.located)
        wanted = np.linspace(first, max(first, last - 1), NUM_THUMBNAILS).round().astype(int) - track.first_frame
        seen = read_face_crops(
            prediction.path, (wanted + track.first_frame).tolist(), _pad_front(track.landmarks, track.first_frame),
            _pad_front(track.box, track.first_frame), align=align, side=THUMBNAIL_SIZE,
        )  # fmt: skip
        faces = list(seen)
    rule = f"judged as a whole ({prediction.frames} frames)" if len(prediction.windows) == 1 else (
        f"judged in windows of {NUM_SLOTS} frames, {WINDOW_STRIDE} apart"
    )  # fmt: skip
    person = f", person {prediction.person}" if prediction.person else ""
    table = frame_table(prediction, labels)
    return png(
        timeline_figure(
            table,
            list(labels),
            title=f"{prediction.path.name}{person}",
            rule=rule,
            label=prediction.label,
            probabilities=prediction.probabilities,
            located=prediction.located,
            faces=faces,
            several=len(prediction.windows) > 1,
        )
    )


def _pad_front(values: np.ndarray, first: int) -> np.ndarray:
    """Return values of a person's frames as values of the file's frames: NaN for those before the person came."""
    before = np.full((first, *values.shape[1:]), np.nan, values.dtype)
    return np.concatenate([before, values])


def to_dict(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """Return a prediction as plain values for JSON, with its stretches."""
    record = {**asdict(prediction), "path": str(prediction.path)}
    return record | {"stretches": segments(prediction, labels)}


def to_frame(predictions: Sequence[Prediction], labels: Sequence[str]) -> pd.DataFrame:
    """Return a line per video and person for a CSV: what was said, when, how sure, or why not."""
    rows = []
    for p in predictions:
        located = p.located or (np.nan, np.nan)
        rows.append(
            {
                "path": str(p.path),
                "person": p.person,
                "label": p.label,
                **{f"p_{label}": p.probabilities.get(label, np.nan) for label in labels},
                "located_begin": located[0],
                "located_end": located[1],
                "begin": p.begin,
                "end": p.end,
                "frames": p.frames,
                "frames_with_face": p.frames_with_face,
                "fps": p.fps,
                "own_rule": p.full_video_label,
                "rule": p.aggregation,
                "failure": p.failure,
            }
        )
    return pd.DataFrame(rows)


def write_results(
    folder: Path, name: str, results: Sequence[TrackedPrediction], labels: Sequence[str], align: str
) -> list[Path]:
    """Write NAME.json and, per person, NAME.png with its numbers as NAME.csv; return the pictures."""
    write_json(folder / f"{name}.json", [to_dict(result.prediction, labels) for result in results])
    pictures = []
    for result in results:
        prediction, track = result.prediction, result.track
        if prediction.failure:
            continue
        stem = f"{name}.person{prediction.person}" if prediction.person else name
        picture = folder / f"{stem}.png"
        picture.write_bytes(timeline_png(prediction, track, labels, align))
        write_text(folder / f"{stem}.csv", frame_table(prediction, labels).to_csv(index=False))
        pictures.append(picture)
    return pictures


def output_stems(videos: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each video's files: its own without the ending, with a hash of its path where two share one."""
    stems = [video.stem if video.suffix else video.name for video in videos]
    return {
        video: stem if stems.count(stem) == 1 else safe_name(str(video))
        for video, stem in zip(videos, stems, strict=True)
    }
