"""Ranges of the activations of a ResNet-18, measured on the crops of a data set, so that its convolutions run in 8 bits.

Post-training static quantization (Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018):
activations in one range per layer, weights in one per output channel. No weight is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ...cache.features import TRAINABLE_STATUSES, FeatureTable, FrameStatus
from ...cache.hdf5 import read_crops, read_features
from ..callbacks import ProgressCallback, ignore_progress
from ..encoder.adapt import sample_evenly
from ..encoder.weights import read_encoder_metadata, write_activation_ranges
from ..manifest.manifest import Manifest, VideoEntry
from .encoder_openvino import OpenVINOEncoder, measure_ranges

MIN_COSINE = 0.998
"""Lowest cosine similarity of any face's features to those in fp32 with which an encoder may be used in int8."""
FRAMES_PER_VIDEO = 8
MAX_VIDEOS = 128
"""Of each part: those that the ranges are measured on, and those that they are tested on."""


@dataclass(frozen=True)
class Faces:
    """Crops (N, S, S, 3) uint8 with the video and frame of each."""

    crops: np.ndarray
    names: list[str]
    num_videos: int


def quantize_encoder(
    manifest: Manifest,
    crops: Path,
    base: Path,
    out: Path,
    name: str,
    *,
    min_cosine: float = MIN_COSINE,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, str]:
    """Write ``base`` again as the encoder file ``out``, with the ranges that int8 needs; return what its metadata says of them.

    Ranges are measured on half of the subjects of a crop cache (of the videos, if subjects are unknown) and tested on the
    others. Raises CeflError if the features of a tested face have a cosine similarity below ``min_cosine`` to those in fp32:
    nothing is written then. ``on_progress`` counts four steps.
    """
    file = read_encoder_metadata(base)
    table = read_features(crops, features=False)
    entries = [entry for entry in manifest.entries if _has_face(entry, table)]
    groups = sorted({_group(entry) for entry in entries}, key=_shuffled)
    if len(groups) < 2:
        raise CeflError(
            f"{crops}: {len(groups)} subjects of {manifest.name} have a face; ranges are measured on half of the subjects and "
            "tested on the others, so give a data set of two or more"
        )
    measured, tested = (
        _read_faces(crops, table, [entry for entry in entries if _group(entry) in chosen])
        for chosen in (set(groups[::2]), set(groups[1::2]))
    )
    on_progress(0, 4, "ranges")
    ranges = measure_ranges(base, measured.crops)
    metadata = {
        "quantized_from": f"{file.name} {file.sha256}",
        "ranges_measured_on": f"{len(measured.crops)} faces of {measured.num_videos} videos of {manifest.name}",
    }
    size = tested.crops.shape[1]
    on_progress(1, 4, "fp32")
    expected = OpenVINOEncoder(base, size, "fp32")(tested.crops)
    on_progress(2, 4, "int8")
    similarity = cosine_similarity(OpenVINOEncoder(base, size, "int8", ranges=ranges)(tested.crops), expected)
    on_progress(3, 4, "writing")
    lowest = int(similarity.argmin())
    if not similarity[lowest] >= min_cosine:
        raise CeflError(
            f"{base}: in int8 its features of {tested.names[lowest]} have a cosine similarity of {similarity[lowest]:.4f} to "
            f"those in fp32, below {min_cosine:g} (mean of {len(similarity)} faces: {similarity.mean():.4f}); nothing was "
            "written: use it in fp32 or bf16"
        )
    metadata["int8_cosine"] = (
        f"lowest {similarity[lowest]:.5f}, mean {similarity.mean():.5f} of {len(similarity)} faces of {tested.num_videos} "
        "videos of other subjects"
    )
    write_activation_ranges(out, file, name, ranges, metadata)
    on_progress(4, 4, "")
    return metadata


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine similarity (N,) of two sets of features (N, D)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _has_face(entry: VideoEntry, table: FeatureTable) -> bool:
    number = table.index_of.get(entry.id)
    return number is not None and table.videos.status[number] in TRAINABLE_STATUSES


def _group(entry: VideoEntry) -> str:
    return entry.subject or entry.id


def _shuffled(group: str) -> str:
    """Return a key that sorts groups in an order that has nothing to do with their names."""
    return hashlib.sha256(group.encode()).hexdigest()


def _read_faces(crops: Path, table: FeatureTable, entries: Sequence[VideoEntry]) -> Faces:
    """Read faces that are spread evenly over at most MAX_VIDEOS videos, and over each of them."""
    chosen = [entries[i] for i in sample_evenly(len(entries), min(len(entries), MAX_VIDEOS))]
    parts, names = [], []
    for entry in chosen:
        with_face = np.flatnonzero(table.frame_status[table.rows(entry.id)] != FrameStatus.MISSING)
        frames = with_face[sample_evenly(len(with_face), min(len(with_face), FRAMES_PER_VIDEO))]
        parts.append(read_crops(crops, table.videos, table.index_of[entry.id], frames))
        names += [f"frame {frame + 1} of {entry.id}" for frame in frames]
    return Faces(np.concatenate(parts), names, len(chosen))
