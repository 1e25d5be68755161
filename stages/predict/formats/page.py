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
from ..prediction import BOX_COLUMNS
from .eaf import eaf_document
from .video_result import Person, VideoResult, relative_path, url_path

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
        "persons": [_person(person, result.labels) for person in result.persons],
        "eaf": eaf_document(result, target).decode(),
    }
    text = json.dumps(values, allow_nan=False).replace("<", "\\u003c")  # nothing in it ends the element that holds it
    page = PAGE.replace(PLACEHOLDER, text)
    path.write_text(page, encoding="utf-8", newline="")


def _person(person: Person, labels: Sequence[str]) -> dict[str, Any]:
    """Return a person for the page: arrays as base64 of little-endian numbers, an entry per frame from the first to the last.

    Frames between two face tracks have neither box nor numbers, and evenly spaced times.
    """
    tracks, labels = person.tracks, list(labels)
    first, last = tracks[0].first_frame, tracks[-1].first_frame + tracks[-1].num_frames
    box, edges = np.full((last - first, 4), np.nan), np.full(last - first + 1, np.nan)
    probabilities, intensity = np.full((last - first, len(labels)), np.nan), np.full(last - first, np.nan)
    for track in tracks:
        begin = track.first_frame - first
        rows, frames = slice(begin, begin + track.num_frames), track.frames()
        edges[begin : rows.stop + 1] = track.edges
        box[rows] = frames[list(BOX_COLUMNS)].to_numpy(float).round()
        probabilities[rows] = frames[[f"p_{label}" for label in labels]].to_numpy(float)
        intensity[rows] = frames["intensity"].to_numpy(float)
    known = np.flatnonzero(np.isfinite(edges))
    segments = [row for track in tracks for row in track.segments().to_dict("records")]
    return {
        "name": person.name,
        "number": person.number,
        "given": tracks[0].name,
        "tracks": [[track.track, track.edges[0], track.edges[-1]] for track in tracks],
        "first_frame": first,
        "summary": _summary(person),
        "edges": _base64(np.interp(np.arange(len(edges)), known, edges[known]), "<f8"),
        "box": _base64(np.where(np.isfinite(box), np.clip(box, NO_BOX + 1, -NO_BOX - 1), NO_BOX), "<i2"),
        "p": _fractions(probabilities),
        "intensity": _fractions(intensity),
        "segments": [[row["begin"], row["end"], labels.index(row["label"])] for row in segments],
    }


def _summary(person: Person) -> str:
    """Return what a reader should know of a person, in a line."""
    best = max(person.tracks, key=lambda track: track.num_frames)
    shown, frames = (sum(getattr(track, key) for track in person.tracks) for key in ("frames_with_face", "num_frames"))
    parts = [f"{best.label} {100 * best.confidence:.0f} %"] if best.confidence and len(person.tracks) == 1 else []
    parts += [f"in {len(person.tracks)} face tracks"] if len(person.tracks) > 1 else []
    parts.append(f"a face in {shown} of {frames} frames")
    unsure = [str(track.track) for track in person.tracks if track.similarity is not None and track.unsure]
    return "; ".join(parts + ([f"unsure of track {', '.join(unsure)}"] if unsure else []))


def _fractions(values: np.ndarray) -> str:
    return _base64(
        np.where(np.isfinite(values), np.nan_to_num(values).clip(0, 1) * (UNKNOWN - 1), UNKNOWN).round(), "<u2"
    )


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(dtype).tobytes()).decode()
