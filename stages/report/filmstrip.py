"""Film strips: example videos chosen by a fixed rule, their faces, activation map, located clip and apex."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ..heads.clip_sampling import SLOTS, STEP, SUB_VIDEO, slot_to_frame, span, start_count
from ..heads.run_io import Run
from ..heads.train import Recipe
from ..manifest.manifest import Manifest, Row
from ..plots.strips import Strip
from .face_crops import alignment_of, faces_at

RULE = (
    "Chosen by rule, not by eye, among the test videos of the first seed: of each label the right prediction with the "
    "sharpest map, and the wrong prediction that was surest of itself."
)


def has_maps(run: Run) -> bool:
    """Tell whether the run's head says where it looks."""
    return "located" in run.predictions()


def choose_videos(run: Run, labels: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Return lines of the run's predictions, by label in order and the right one first; empty where there are no maps.

    A label that is never (or always) recognised gives one line, or none. Ties go to the first id.
    """
    table = run.predictions()
    if "located" not in table:
        return table.iloc[:0]
    judged = table[(table.seed == table.seed.iloc[0]) & (table.predicted != "")].sort_values("id", kind="stable")
    maps = [column for column in judged if column.startswith("a_")]
    sharpness = judged[maps].max(axis=1)
    sureness = judged[[f"p_{label}" for label in run.labels]].max(axis=1)
    chosen = []
    for label in labels or run.labels:
        of_label = judged.label == label
        for kind, measure in ((judged.right, sharpness), (~judged.right, sureness)):
            candidates = measure[of_label & kind]
            if len(candidates):
                chosen.append(candidates.idxmax())
    return judged.loc[chosen]


SHOWN = 15
SIDE = 112


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
