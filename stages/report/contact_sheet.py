"""Contact sheet: a random sample of aligned crops with their landmarks, read back from the videos."""

from __future__ import annotations

import json

import cv2
import numpy as np

from ...cache.errors import CeflError
from ...cache.features import FeatureTable, FrameStatus
from ..align import crop_by_box, crop_by_landmarks, crop_middle, resize, similarity
from ..extract.video_reader import CannotDecode, open_video
from ..manifest.manifest import Manifest, Row
from ..plots.strips import SheetRow, Tile

SHOWN = 8
"""Frames per video, evenly spread from the first to the last."""


def contact_sheet(manifest: Manifest, table: FeatureTable, videos: int, seed: int) -> list[SheetRow]:
    """Return that many videos, drawn by the seed and spread over the labels; videos that are not in the cache are left
    out."""
    chosen = _sample([row for row in manifest.rows if row.id in table.row_of], videos, seed)
    return [_row(manifest, table, row) for row in chosen]


def _sample(rows: list[Row], videos: int, seed: int) -> list[Row]:
    """Draw videos label by label in turn, so that every label is seen before one is seen twice more than another."""
    generator = np.random.default_rng(seed)
    by_label: dict[str, list[Row]] = {}
    for place in generator.permutation(len(rows)):
        by_label.setdefault(rows[place].label, []).append(rows[place])
    drawn: list[Row] = []
    while len(drawn) < min(videos, len(rows)):
        for label in sorted(by_label):
            if by_label[label] and len(drawn) < videos:
                drawn.append(by_label[label].pop())
    return sorted(drawn, key=lambda row: (row.label, row.id))


def _row(manifest: Manifest, table: FeatureTable, row: Row) -> SheetRow:
    place, frames = table.row_of[row.id], table.frames_of(row.id)
    made, length = json.loads(table.settings), int(table.index.length[place])
    wanted = sorted(set(np.linspace(0, length - 1, SHOWN).round().astype(int).tolist())) if length else []
    landmarks, boxes, statuses = table.landmarks[frames], table.box[frames], table.frame_status[frames]
    tiles: dict[int, Tile] = {}
    note = table.index.note[place]
    try:
        for number, picture in enumerate(open_video(manifest.file_of(row), row.rotation, row.region).frames()):
            if number in wanted:
                tiles[number] = _tile(
                    picture, number, landmarks[number], boxes[number], FrameStatus(int(statuses[number])), made
                )
            if not wanted or number >= wanted[-1]:
                break
    except (CannotDecode, CeflError) as reason:
        note = note or str(reason)
    missing = [Tile(frame, None, None, FrameStatus(int(statuses[frame]))) for frame in wanted if frame not in tiles]
    return SheetRow(row.id, row.label, note, sorted([*tiles.values(), *missing], key=lambda tile: tile.frame))


def _tile(
    picture: np.ndarray, frame: int, landmarks: np.ndarray, box: np.ndarray, status: FrameStatus, made: dict
) -> Tile:
    size = int(made["size"])
    if status == FrameStatus.GIVEN:
        return Tile(frame, resize(picture, size), None, status)
    if not np.isfinite(box).all():
        return Tile(frame, crop_middle(picture, size), None, status)
    if made["align"] == "box":
        scale = size / np.maximum(np.ceil(box[2:]) - np.floor(box[:2]), 1)
        return Tile(frame, crop_by_box(picture, box, size), (landmarks - np.floor(box[:2])) * scale, status)
    matrix = similarity(landmarks, size)
    return Tile(
        frame,
        crop_by_landmarks(picture, landmarks, size),
        cv2.transform(landmarks[None].astype(np.float64), matrix)[0],
        status,
    )
