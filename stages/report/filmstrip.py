"""Filmstrips: example videos selected by a fixed rule, with faces, activation map, located clip and apex."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ...cache.errors import CeflError
from ...cache.features import FeatureTable, frame_edges
from ..extract.face_crops import read_face_crops
from ..extract.timestamps import DEFAULT_FPS
from ..heads.clip_sampling import map_start, slot_to_frame
from ..heads.run_io import Run
from ..heads.train_config import TrainConfig
from ..manifest.manifest import Manifest, VideoEntry
from ..plots.strips import Filmstrip
from ..slots import CLIP_LENGTH, CLIP_STRIDE, NUM_SLOTS, num_covered_slots

NUM_FACES = 15
FACE_SIZE = 112
"""Side of a face crop in pixels."""
SELECTION_RULE = (
    "A fixed rule selects the examples among the test videos of the first seed: for each label the correct prediction "
    "with the sharpest map and the wrong prediction with the highest confidence."
)


def has_intensity_map(run: Run) -> bool:
    """Return whether the run's head computes an activation map."""
    return "located_clip" in run.predictions()


def select_examples(run: Run) -> pd.DataFrame:
    """Return rows of the run's predictions by SELECTION_RULE, in the order of the labels; empty if the head has no map.

    A label without correct (or wrong) predictions has only one row, or none. Ties go to the first id.
    """
    table = run.predictions()
    if "located_clip" not in table:
        return table.iloc[:0]
    candidates = table[(table.seed == table.seed.iloc[0]) & (table.predicted != "")].sort_values("id", kind="stable")
    peak_intensity = candidates.filter(regex=r"^intensity_\d+$").max(axis=1)
    confidence = candidates[[f"p_{label}" for label in run.labels]].max(axis=1)
    examples = []
    for label in run.labels:
        for is_correct, measure in ((candidates.correct, peak_intensity), (~candidates.correct, confidence)):
            values = measure[(candidates.label == label) & is_correct]
            if len(values):
                examples.append(values.idxmax())
    return candidates.loc[examples]


def make_filmstrip(run: Run, manifest: Manifest, table: FeatureTable, row: pd.Series) -> Filmstrip:
    """Return the filmstrip of a row of the predictions of a run whose head has an activation map."""
    entry = next(entry for entry in manifest.entries if entry.id == row.id)
    index, rows, config = table.index_of[entry.id], table.rows(entry.id), run.train_config
    length = int(table.videos.length[index])
    edges = frame_edges(table.time[rows], float(table.videos.fps[index]) or DEFAULT_FPS)
    start = map_start(config, run.cv.tta_views)
    slots = start + (np.arange(NUM_FACES) + 0.5) * num_covered_slots(config.num_clips) / NUM_FACES
    lengths = torch.full((NUM_FACES,), length)
    frames = slot_to_frame(torch.from_numpy(slots.astype(np.int64)), lengths, config.long_videos).tolist()
    clips = []
    for n in range(config.num_clips):
        first = start + CLIP_STRIDE * n
        begin, end = (slot_to_seconds(slot, edges, config) for slot in (first, first + CLIP_LENGTH))
        clips.append((begin, end, float(row[f"intensity_{n + 1}"])))
    hit = row.get("apex_hit")
    return Filmstrip(
        id=entry.id,
        label=row.label,
        predicted=row.predicted,
        probability=float(row[f"p_{row.predicted}"]),
        faces=_read_faces(manifest, entry, frames, table, rows),
        begin=clips[0][0],
        end=clips[-1][1],
        clips=clips,
        located_index=int(row.located_clip) - 1,
        apex=_apex_time(entry, edges, config),
        apex_hit=None if hit is None or pd.isna(hit) or not row.apex_chance else bool(hit),
    )


def slot_to_seconds(slot: float, edges: np.ndarray, config: TrainConfig) -> float:
    """Return the time at which a slot begins, given the times of frames (T + 1,) and of the end: the inverse of slot_to_frame."""
    length = len(edges) - 1
    if length > NUM_SLOTS and config.long_videos != "resample":
        offset = (length - NUM_SLOTS) // 2 if config.long_videos == "center" else 0
        return float(np.interp(slot + offset, np.arange(length + 1), edges))
    return float(np.interp(slot * length / NUM_SLOTS, np.arange(length + 1), edges))


def _read_faces(
    manifest: Manifest, entry: VideoEntry, frames: list[int], table: FeatureTable, rows: slice
) -> list[np.ndarray | None]:
    try:
        path = manifest.video_path(entry)
    except CeflError:  # it leads out of the root, which needs --allow-external-paths
        return [None] * len(frames)
    landmarks, boxes, align = table.landmarks[rows], table.box[rows], table.settings.align
    view = (table.videos.rotation[table.index_of[entry.id]], entry.region)
    return read_face_crops(path, frames, landmarks, boxes, *view, align=align, size=FACE_SIZE)


def _apex_time(entry: VideoEntry, edges: np.ndarray, config: TrainConfig) -> float | None:
    if not entry.apex or int(entry.apex) >= len(edges) - 1:
        return None
    apex = float(edges[int(entry.apex) :][:2].mean())
    begin, end = (slot_to_seconds(slot, edges, config) for slot in (0, NUM_SLOTS))
    return apex if begin <= apex <= end else None
