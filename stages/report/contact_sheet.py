"""Contact sheet: a random sample of aligned crops with their landmarks, read back from the videos."""

from __future__ import annotations

import numpy as np

from ...cache.errors import CeflError
from ...cache.features import FeatureTable, FrameStatus
from ...cache.fingerprint import ExtractionSettings
from ..extract.face_crops import crop_face, landmarks_in_crop, read_frames
from ..extract.tracking import Face
from ..extract.video_reader import DecodeError
from ..manifest.manifest import Manifest, VideoEntry
from ..plots.strips import ContactSheetRow, CropTile

FRAMES_PER_VIDEO = 8
"""Evenly spaced, from the first frame to the last."""


def contact_sheet(manifest: Manifest, table: FeatureTable, num_videos: int, seed: int) -> list[ContactSheetRow]:
    """Return a random sample of the cached videos, balanced over the labels and sorted by label and id."""
    entries = _sample([entry for entry in manifest.entries if entry.id in table.index_of], num_videos, seed)
    return [_row(manifest, table, entry) for entry in entries]


def _sample(entries: list[VideoEntry], count: int, seed: int) -> list[VideoEntry]:
    """Sample videos from one label after the other, so that the labels' counts differ by at most one."""
    by_label: dict[str, list[VideoEntry]] = {}
    for index in np.random.default_rng(seed).permutation(len(entries)):
        by_label.setdefault(entries[index].label, []).append(entries[index])
    sample: list[VideoEntry] = []
    while len(sample) < min(count, len(entries)):
        for label in sorted(by_label):
            if by_label[label] and len(sample) < count:
                sample.append(by_label[label].pop())
    return sorted(sample, key=lambda entry: (entry.label, entry.id))


def _row(manifest: Manifest, table: FeatureTable, entry: VideoEntry) -> ContactSheetRow:
    index, rows = table.index_of[entry.id], table.rows(entry.id)
    length, note = int(table.videos.length[index]), table.videos.note[index]
    frames = np.unique(np.linspace(0, length - 1, FRAMES_PER_VIDEO).round().astype(int)).tolist() if length else []
    faces = [
        Face(box, landmarks, float(score), FrameStatus(int(status)))
        for box, landmarks, score, status in zip(
            table.box[rows], table.landmarks[rows], table.score[rows], table.frame_status[rows], strict=True
        )
    ]
    tiles = {frame: CropTile(frame, None, None, faces[frame].status) for frame in frames}
    try:
        rotation = table.videos.rotation[index]
        for frame, image in read_frames(manifest.video_path(entry), frames, rotation, entry.region):
            tiles[frame] = _tile(image, frame, faces[frame], table.settings)
    except (DecodeError, CeflError) as error:
        note = note or str(error)
    return ContactSheetRow(entry.id, entry.label, note, list(tiles.values()))


def _tile(image: np.ndarray, frame: int, face: Face, settings: ExtractionSettings) -> CropTile:
    is_given = face.status == FrameStatus.GIVEN
    is_known = is_given or bool(np.isfinite(face.box).all())
    align, size = settings.align, settings.crop_size
    crop = crop_face(image, face if is_known else None, align, size)
    landmarks = landmarks_in_crop(face, align, size) if is_known and not is_given else None
    return CropTile(frame, crop, landmarks, face.status)
