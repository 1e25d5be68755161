"""Film strips: example videos chosen by a fixed rule, their faces, activation map, located clip and apex."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ..heads.clip_sampling import CLIP_LENGTH, CLIP_STRIDE, NUM_SLOTS, slot_to_frame, span, start_count
from ..heads.run_io import Run
from ..heads.train_config import TrainConfig
from ..manifest.manifest import Manifest, VideoEntry
from ..plots.strips import Filmstrip
from .face_crops import alignment_of, read_face_crops

RULE = (
    "Chosen by rule, not by eye, among the test videos of the first seed: of each label the right prediction with the "
    "sharpest map, and the wrong prediction that was surest of itself."
)


def has_intensity_map(run: Run) -> bool:
    """Tell whether the run's head says where it looks."""
    return "located_clip" in run.predictions()


def select_examples(run: Run, labels: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Return lines of the run's predictions, by label in order and the right one first; empty where there are no maps.

    A label that is never (or always) recognised gives one line, or none. Ties go to the first id.
    """
    table = run.predictions()
    if "located_clip" not in table:
        return table.iloc[:0]
    judged = table[(table.seed == table.seed.iloc[0]) & (table.predicted != "")].sort_values("id", kind="stable")
    maps = [column for column in judged if column.startswith("intensity_")]
    sharpness = judged[maps].max(axis=1)
    sureness = judged[[f"p_{label}" for label in run.labels]].max(axis=1)
    chosen = []
    for label in labels or run.labels:
        of_label = judged.label == label
        for kind, measure in ((judged.correct, sharpness), (~judged.correct, sureness)):
            candidates = measure[of_label & kind]
            if len(candidates):
                chosen.append(candidates.idxmax())
    return judged.loc[chosen]


NUM_FACES = 15
FACE_SIZE = 112


def make_filmstrip(run: Run, manifest: Manifest, table: FeatureTable, line: pd.Series) -> Filmstrip:
    """Return the strip of one line of the run's predictions, whose head has an activation map."""
    row = next(row for row in manifest.entries if row.id == line.id)
    place, rows = table.index_of[row.id], table.rows(row.id)
    length, fps = int(table.videos.length[place]), float(table.videos.fps[place]) or 25.0
    config = run.train_config
    first = start_count(config.num_clips) // 2
    slots = first + (np.arange(NUM_FACES) + 0.5) * span(config.num_clips) / NUM_FACES
    frames = slot_to_frame(
        torch.from_numpy(slots.astype(np.int64)), torch.full((NUM_FACES,), length), config.long_videos
    ).tolist()
    shares = [float(line[f"intensity_{clip}"]) for clip in range(1, config.num_clips + 1)]
    starts = [first + CLIP_STRIDE * clip for clip in range(config.num_clips)]
    clips = [
        (slot_to_seconds(s, length, fps, config), slot_to_seconds(s + CLIP_LENGTH, length, fps, config), a)
        for s, a in zip(starts, shares, strict=True)
    ]
    try:
        faces = read_face_crops(
            manifest.video_path(row), frames, table.landmarks[rows], table.box[rows], align=alignment_of(table), side=FACE_SIZE,
            rotation=row.rotation, region=row.region,
        )  # fmt: skip
    except CeflError:  # the list may point out of its folder only where that was allowed
        faces = list[np.ndarray | None]([None] * NUM_FACES)
    holds = line.get("apex_hit")
    return Filmstrip(
        id=row.id,
        label=line.label,
        predicted=line.predicted,
        probability=float(line[f"p_{line.predicted}"]),
        faces=faces,
        begin=clips[0][0],
        end=clips[-1][1],
        clips=clips,
        located=int(line.located_clip) - 1,
        apex=_apex(row, length, fps, config),
        apex_hit=None if holds is None or pd.isna(holds) else bool(holds),
    )


def slot_to_seconds(slot: float, length: int, fps: float, config: TrainConfig) -> float:
    """Return the second at which a slot of a video of ``length`` frames begins: the rule of slot_to_frame, inverted."""
    if length > NUM_SLOTS and config.long_videos != "resample":
        offset = (length - NUM_SLOTS) // 2 if config.long_videos == "center" else 0
        return (slot + offset) / fps
    return slot * length / NUM_SLOTS / fps


def _apex(row: VideoEntry, length: int, fps: float, config: TrainConfig) -> float | None:
    if not row.apex:
        return None
    moment = (int(row.apex) + 0.5) / fps
    inside = slot_to_seconds(0, length, fps, config) <= moment <= slot_to_seconds(NUM_SLOTS, length, fps, config)
    return moment if inside else None
