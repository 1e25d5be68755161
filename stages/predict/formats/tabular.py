"""Tables of a video as CSV and Parquet: a row per frame, a row per segment; and as OpenFace names and orders its columns."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from ....cache.errors import CeflError
from ....cache.features import FrameStatus
from .video_result import VideoResult


def frames_table(result: VideoResult) -> pd.DataFrame:
    """Return a row per frame of every face track: video (the name of the file), then the columns of Prediction.frames."""
    return _with_video(result, [prediction.frames() for prediction in result.predictions])


def segments_table(result: VideoResult) -> pd.DataFrame:
    """Return a row per segment of every face track: video (the name of the file), then the columns of Prediction.segments."""
    tables = [prediction.segments() for prediction in result.predictions]
    return _with_video(result, [table for table in tables if len(table)] or tables[:1])


def _with_video(result: VideoResult, tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "video", result.name)
    return table


def write_frames_csv(result: VideoResult, path: Path, target: Path) -> None:
    _write_csv(frames_table(result), path)


def write_segments_csv(result: VideoResult, path: Path, target: Path) -> None:
    _write_csv(segments_table(result), path)


def write_frames_parquet(result: VideoResult, path: Path, target: Path) -> None:
    frames_table(result).to_parquet(path, engine="pyarrow", index=False)


def write_segments_parquet(result: VideoResult, path: Path, target: Path) -> None:
    segments_table(result).to_parquet(path, engine="pyarrow", index=False)


def read_frames(path: Path) -> pd.DataFrame:
    """Read a table of frames; ``time`` is exactly what was written, which the parser of pandas alone does not promise."""
    return pd.read_csv(path, converters={"time": float})


def check_parquet() -> str:
    """Return ''; raises CeflError if Parquet cannot be written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise CeflError("--format parquet: needs pyarrow, which is not installed; type pip install 'ceflpipe[parquet]'")
    return ""


def write_openface_csv(result: VideoResult, path: Path, target: Path) -> None:
    _write_csv(openface_table(result), path)


def openface_table(result: VideoResult) -> pd.DataFrame:
    """Return a row per frame and face with the first columns of OpenFace 2: frame, face_id, timestamp, confidence, success.

    frame counts from 1. face_id counts from 0 and is the number of the person less one, so that a person keeps it across cuts.
    timestamp is in seconds. confidence is the score of the detector (0..1), between two detected frames the lower one of them, 0
    if there is no face. success is 1 if the face is detected, interpolated or given, else 0; such frames have a row too. Then
    ours: label, probability (of the label), intensity, track, name (of the person), p_<label>, and the box as face_x, face_y,
    face_width and face_height in pixels. Rows are sorted by frame, then by face.
    """
    tables = []
    for prediction in result.predictions:
        frames, face = prediction.frames(), prediction.face
        shown = face.frame_status != FrameStatus.MISSING
        columns = {
            "frame": frames["frame"] + 1,
            "face_id": prediction.person_number - 1,
            "timestamp": frames["time"],
            "confidence": np.where(shown, _filled_scores(face.score, face.frame_status), 0.0),
            "success": shown.astype(int),
            "label": frames["label"],
            "probability": frames["confidence"],
            "intensity": frames["intensity"],
            "track": prediction.track,
            "name": prediction.name,
        }
        columns |= {f"p_{label}": frames[f"p_{label}"] for label in result.labels}
        x1, y1, x2, y2 = (face.box[:, axis].astype(float) for axis in range(4))
        columns |= {"face_x": x1, "face_y": y1, "face_width": x2 - x1, "face_height": y2 - y1}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables).sort_values(["frame", "face_id"], kind="stable", ignore_index=True)


def _filled_scores(score: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Return the scores (T,) of frames with a face: of an interpolated one the lower of its neighbors, 1 for given crops."""
    known = pd.Series(np.where(status == FrameStatus.GIVEN, 1.0, score.astype(float)))
    return pd.concat([known.ffill(), known.bfill()], axis=1).min(axis=1).fillna(0.0).to_numpy()


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    path.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="")
