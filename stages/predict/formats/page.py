"""A page to watch a prediction on, and to correct it: one HTML file beside the video, without server or network.

page.html plays the video with box, label and intensity over it. Curves and segments run in step under it; segments can be
relabelled, moved, split and saved as CSV or for ELAN.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...plots.style import QUALITATIVE
from ..prediction import BOX_COLUMNS, Prediction
from .eaf import eaf_document
from .video_result import VideoResult, relative_path, url_path

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
"""The page without its data; part of prediction_code, so that finished pages are written again if it changes."""
PLACEHOLDER = "DATA_AS_JSON"
UNKNOWN = 65535
"""In place of a probability or an intensity that is not known; 65534 is 1."""
NO_BOX = -32768


def write_page(result: VideoResult, path: Path, target: Path) -> None:
    """Write the page; the video is linked by its path from the page's folder, so both can be moved together."""
    region = [int(part) for part in result.view.region.split()]
    values = {
        "name": result.name,
        "stem": target.name.removesuffix(target.suffix),
        "video": url_path(relative_path(result.video, target.parent)) if result.video.is_file() else "",
        "rotation": int(result.predictions[0].rotation or 0),
        "region": region or None,
        "labels": list(result.labels),
        "colors": list(QUALITATIVE),
        "persons": [_person(prediction, result.labels) for prediction in result.predictions],
        "eaf": eaf_document(result, target).decode(),
    }
    text = json.dumps(values, allow_nan=False).replace("<", "\\u003c")  # nothing in it ends the element that holds it
    page = PAGE.replace(PLACEHOLDER, text)
    path.write_text(page, encoding="utf-8", newline="")


def _person(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """Return a face track for the page: arrays as base64 of little-endian numbers, an entry per frame."""
    frames = prediction.frames()
    box = frames[list(BOX_COLUMNS)].to_numpy(float).round()
    segments = prediction.segments()
    confidence = f"{prediction.label} {100 * prediction.confidence:.0f} %; " if prediction.confidence else ""
    return {
        "name": prediction.person,
        "track": prediction.track,
        "first_frame": prediction.first_frame,
        "summary": f"{confidence}a face in {prediction.frames_with_face} of {prediction.num_frames} frames",
        "edges": _base64(np.asarray(prediction.edges), "<f8"),
        "box": _base64(np.where(np.isfinite(box), np.clip(box, NO_BOX + 1, -NO_BOX - 1), NO_BOX), "<i2"),
        "p": _fractions(frames[[f"p_{label}" for label in labels]].to_numpy(float)),
        "intensity": _fractions(frames["intensity"].to_numpy(float)),
        "segments": [
            [row["begin"], row["end"], list(labels).index(row["label"])] for row in segments.to_dict("records")
        ],
    }


def _fractions(values: np.ndarray) -> str:
    return _base64(
        np.where(np.isfinite(values), np.nan_to_num(values).clip(0, 1) * (UNKNOWN - 1), UNKNOWN).round(), "<u2"
    )


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(dtype).tobytes()).decode()
