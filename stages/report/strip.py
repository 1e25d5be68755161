"""Where in a video did a head look? The faces over time, the activation map under them, the located clip, the apex."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ...cache.errors import CeflError
from ...cache.records import FeatureTable
from ..heads.runfolder import Run
from ..heads.sampling import SLOTS, STEP, SUB_VIDEO, slot_to_frame, span, start_count
from ..heads.train import Recipe
from ..manifest.table import Manifest, Row
from .faces import alignment_of, faces_at

SHOWN = 15
SIDE = 112


@dataclass(frozen=True)
class Strip:
    """A tested video ready to be drawn.

    faces: SHOWN pictures (SIDE, SIDE, 3) RGB evenly spread over the test view, None where the video could not be read.
    ``begin`` and ``end``: seconds that the view covers. ``clips``: begin and end in seconds of each sub-video and its
    intensity in the map of the predicted label, which sum to one. ``located``: index of the clip the head points at.
    ``apex``: second of the strongest expression, None where it is not known or outside the 105 slots.
    """

    id: str
    label: str
    predicted: str
    probability: float
    faces: list[np.ndarray | None]
    begin: float
    end: float
    clips: list[tuple[float, float, float]]
    located: int
    apex: float | None
    holds_apex: bool | None

    @property
    def right(self) -> bool:
        return self.label == self.predicted

    @property
    def contrast(self) -> float:
        """How much more the located clip weighs than an even share: 1 for a flat map, n for one clip alone."""
        return self.clips[self.located][2] * len(self.clips)


def make_strip(run: Run, manifest: Manifest, table: FeatureTable, line: pd.Series) -> Strip:
    """Return the strip of one line of the run's predictions, whose head has an activation map."""
    row = next(row for row in manifest.rows if row.id == line.id)
    place, rows = table.row_of[row.id], table.frames_of(row.id)
    length, fps = int(table.index.length[place]), float(table.index.fps[place]) or 25.0
    recipe = run.recipe
    first = start_count(recipe.clips) // 2
    slots = first + (np.arange(SHOWN) + 0.5) * span(recipe.clips) / SHOWN
    frames = slot_to_frame(
        torch.from_numpy(slots.astype(np.int64)), torch.full((SHOWN,), length), recipe.longer
    ).tolist()
    shares = [float(line[f"a_{clip}"]) for clip in range(1, recipe.clips + 1)]
    starts = [first + STEP * clip for clip in range(recipe.clips)]
    clips = [
        (seconds(s, length, fps, recipe), seconds(s + SUB_VIDEO, length, fps, recipe), a)
        for s, a in zip(starts, shares, strict=True)
    ]
    try:
        faces = faces_at(
            manifest.file_of(row), frames, table.landmarks[rows], table.box[rows], align=alignment_of(table), side=SIDE,
            rotation=row.rotation, region=row.region,
        )  # fmt: skip
    except CeflError:  # the list may point out of its folder only where that was allowed
        faces = list[np.ndarray | None]([None] * SHOWN)
    holds = line.get("holds_apex")
    return Strip(
        id=row.id,
        label=line.label,
        predicted=line.predicted,
        probability=float(line[f"p_{line.predicted}"]),
        faces=faces,
        begin=clips[0][0],
        end=clips[-1][1],
        clips=clips,
        located=int(line.located) - 1,
        apex=_apex(row, length, fps, recipe),
        holds_apex=None if holds is None or pd.isna(holds) else bool(holds),
    )


def seconds(slot: float, length: int, fps: float, recipe: Recipe) -> float:
    """Return the second at which a slot of a video of ``length`` frames begins: the rule of slot_to_frame, inverted."""
    if length > SLOTS and recipe.longer != "resample":
        offset = (length - SLOTS) // 2 if recipe.longer == "centre" else 0
        return (slot + offset) / fps
    return slot * length / SLOTS / fps


def _apex(row: Row, length: int, fps: float, recipe: Recipe) -> float | None:
    if not row.apex:
        return None
    moment = (int(row.apex) + 0.5) / fps
    inside = seconds(0, length, fps, recipe) <= moment <= seconds(SLOTS, length, fps, recipe)
    return moment if inside else None


def intensity_over_time(clips: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Return columns begin, end (seconds) and intensity: over each stretch the mean of the clips that cover it."""
    edges = np.unique(np.round([edge for begin, end, _ in clips for edge in (begin, end)], 9))
    rows = []
    for begin, end in itertools.pairwise(edges):
        covering = [share for first, last, share in clips if first <= begin + 1e-9 and last >= end - 1e-9]
        if covering:
            rows.append({"begin": begin, "end": end, "intensity": float(np.mean(covering))})
    return pd.DataFrame(rows)
