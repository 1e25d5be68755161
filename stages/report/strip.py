"""A film strip: which frames of a video to show under its activation map, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..extract.decode import CannotDecode, open_video
from ..heads.runfolder import Run
from ..heads.sampling import SLOTS, STEP, SUB_VIDEO, span, start_count
from ..manifest.table import Manifest

SHOWN = 15
SIDE = 128


@dataclass(frozen=True)
class Strip:
    """A tested video ready to be drawn.

    pictures: SHOWN frames evenly spread over the 105 slots, each (SIDE, SIDE, 3) RGB. ``clips``: first and last slot of
    each sub-video with its intensity. ``located``: index of the clip with the highest. ``apex_slot`` where it is known.
    """

    id: str
    label: str
    predicted: str
    pictures: list[np.ndarray]
    clips: list[tuple[int, int, float]]
    located: int
    apex_slot: float | None


def choose_videos(run: Run, count: int = 2) -> list[str]:
    """Return ids of videos worth showing: right ones first, of different labels, then a wrong one if there is any."""
    table = run.predictions()
    if "located" not in table:
        return []
    judged = table[table.predicted != ""]
    right = judged[judged.right].drop_duplicates("label").id.tolist()
    wrong = judged[~judged.right].id.tolist()
    return [*right[: max(1, count - 1)], *wrong[:1]][:count]


def make_strip(run: Run, manifest: Manifest, video: str) -> Strip | None:
    """Read the frames of a video of the run; None when its file is not there any more."""
    table = run.predictions()
    line = table[table.id == video].iloc[0]
    row = next((row for row in manifest.rows if row.id == video), None)
    if row is None:
        return None
    try:
        frames = list(open_video(manifest.file_of(row), row.rotation, row.region).frames())
    except CannotDecode:
        return None
    if not frames:
        return None
    clips = run.recipe.clips
    start = start_count(clips) // 2
    shares = [float(line[f"a_{clip}"]) for clip in range(1, clips + 1)]
    ends = [(start + STEP * i, start + STEP * i + SUB_VIDEO - 1, share) for i, share in enumerate(shares)]
    slots = np.linspace(start, start + span(clips) - 1, SHOWN)
    pictures = [_square(frames[min(len(frames) - 1, int((slot + 0.5) * len(frames) / SLOTS))]) for slot in slots]
    apex = (int(row.apex) + 0.5) * SLOTS / len(frames) if row.apex and len(frames) <= SLOTS else None
    return Strip(video, line.label, line.predicted, pictures, ends, int(np.argmax(shares)), apex)


def _square(picture: np.ndarray) -> np.ndarray:
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return cv2.resize(picture[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
