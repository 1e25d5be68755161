"""Contact sheet: a random sample of aligned crops with their landmarks, read back from the videos."""

from __future__ import annotations

import cv2
import numpy as np

from ...cache.errors import CeflError
from ...cache.features import FeatureTable, FrameStatus
from ...cache.fingerprint import ExtractionSettings
from ..align import align_crop, center_crop, crop_box, estimate_similarity, resize
from ..extract.video_reader import DecodeError, open_video
from ..manifest.manifest import Manifest, VideoEntry
from ..plots.strips import ContactSheetRow, CropTile

FRAMES_PER_VIDEO = 8
"""Frames per video, evenly spread from the first to the last."""


def contact_sheet(manifest: Manifest, table: FeatureTable, videos: int, seed: int) -> list[ContactSheetRow]:
    """Return that many videos, drawn by the seed and spread over the labels; videos that are not in the cache are left
    out."""
    chosen = _sample([row for row in manifest.entries if row.id in table.index_of], videos, seed)
    return [_row(manifest, table, row) for row in chosen]


def _sample(rows: list[VideoEntry], videos: int, seed: int) -> list[VideoEntry]:
    """Draw videos label by label in turn, so that every label is seen before one is seen twice more than another."""
    generator = np.random.default_rng(seed)
    by_label: dict[str, list[VideoEntry]] = {}
    for place in generator.permutation(len(rows)):
        by_label.setdefault(rows[place].label, []).append(rows[place])
    drawn: list[VideoEntry] = []
    while len(drawn) < min(videos, len(rows)):
        for label in sorted(by_label):
            if by_label[label] and len(drawn) < videos:
                drawn.append(by_label[label].pop())
    return sorted(drawn, key=lambda row: (row.label, row.id))


def _row(manifest: Manifest, table: FeatureTable, row: VideoEntry) -> ContactSheetRow:
    place, frames = table.index_of[row.id], table.rows(row.id)
    settings, length = table.settings, int(table.videos.length[place])
    wanted = sorted(set(np.linspace(0, length - 1, FRAMES_PER_VIDEO).round().astype(int).tolist())) if length else []
    landmarks, boxes, statuses = table.landmarks[frames], table.box[frames], table.frame_status[frames]
    tiles: dict[int, CropTile] = {}
    note = table.videos.note[place]
    try:
        for number, picture in enumerate(open_video(manifest.video_path(row), row.rotation, row.region).frames()):
            if number in wanted:
                tiles[number] = _tile(
                    picture, number, landmarks[number], boxes[number], FrameStatus(int(statuses[number])), settings
                )
            if not wanted or number >= wanted[-1]:
                break
    except (DecodeError, CeflError) as reason:
        note = note or str(reason)
    missing = [CropTile(frame, None, None, FrameStatus(int(statuses[frame]))) for frame in wanted if frame not in tiles]
    return ContactSheetRow(row.id, row.label, note, sorted([*tiles.values(), *missing], key=lambda tile: tile.frame))


def _tile(
    picture: np.ndarray,
    frame: int,
    landmarks: np.ndarray,
    box: np.ndarray,
    status: FrameStatus,
    settings: ExtractionSettings,
) -> CropTile:
    size = settings.crop_size
    if status == FrameStatus.GIVEN:
        return CropTile(frame, resize(picture, size), None, status)
    if not np.isfinite(box).all():
        return CropTile(frame, center_crop(picture, size), None, status)
    if settings.align == "box":
        scale = size / np.maximum(np.ceil(box[2:]) - np.floor(box[:2]), 1)
        return CropTile(frame, crop_box(picture, box, size), (landmarks - np.floor(box[:2])) * scale, status)
    matrix = estimate_similarity(landmarks, size)
    return CropTile(
        frame,
        align_crop(picture, landmarks, size),
        cv2.transform(landmarks[None].astype(np.float64), matrix)[0],
        status,
    )
