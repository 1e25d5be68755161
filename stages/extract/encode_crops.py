"""Features of a crop cache: what extraction would give with an encoder, byte for byte, without reading any video."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError
from ...cache.features import VideoFeatures
from ...cache.fingerprint import ExtractionSettings, fingerprint
from ...cache.hdf5 import is_cache_file, read_index, read_settings, read_video, write_videos
from ...cache.ownership import check_files
from ..callbacks import Executor, ProgressCallback, ignore_progress
from ..manifest.manifest import Manifest
from .extract_config import ExtractConfig, build_encoder
from .extractor import OVERFLOW
from .tasks import stage_code

VIDEOS_PER_TASK = 8


@dataclass(frozen=True)
class EncodeTask:
    """Videos (ids) of a crop cache for one worker, and the encoder whose features are to be made; see encode_crops."""

    crops: Path
    videos: tuple[str, ...]
    config: ExtractConfig
    settings: ExtractionSettings


def encode_crops(
    manifest: Manifest,
    crops: Path,
    config: ExtractConfig,
    settings: ExtractionSettings,
    out: Path,
    *,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> bool:
    """Write the feature cache ``out`` of the videos of a manifest in a crop cache; return whether anything had to be done.

    ``config`` and ``settings``: of the encoder, with device, precision and backend resolved. A crop's features do not depend on
    the others of its batch, so they are those of ``extract_features``. ``on_progress`` counts videos. Memory holds the features
    of all videos. Raises CeflError if the crops are not those that the settings want, or a worker has died.
    """
    index, stored = read_index(crops), read_settings(crops)
    kept = {"encoder", "encoder_sha256", "normalization", "precision", "backend", "width", "encoding_version"}
    required = replace(settings, **{name: getattr(stored, name) for name in kept})
    if required != stored:
        raise CeflError(f"{crops}: not the crops that the encoder gets; make them with ceflpipe crops --redo settings")
    check_files([out], "--encoder", is_ours=is_cache_file, force=None)
    entries = {entry.id: entry for entry in manifest.entries}
    prints = {
        video: fingerprint(settings, source, entries[video].rotation, entries[video].region)
        for video, source in zip(index.id, index.source_sha256, strict=True)
        if video in entries
    }
    order = [entry.id for entry in manifest.entries if entry.id in prints]
    if out.is_file() and read_settings(out) == settings:
        existing = read_index(out)
        if existing.id == order and existing.fingerprint == [prints[video] for video in order]:
            return False
    groups = [tuple(order[first : first + VIDEOS_PER_TASK]) for first in range(0, len(order), VIDEOS_PER_TASK)]
    tasks = [EncodeTask(crops, group, config, settings) for group in groups]
    videos: dict[str, VideoFeatures] = {}
    for outcome in executor(encode_task, tasks):
        if isinstance(outcome, tuple):
            raise CeflError(f"{crops}: {outcome[1]}; run the same command again")
        videos |= {video.id: replace(video, fingerprint=prints[video.id]) for video in outcome}
        on_progress(len(videos), len(order), out.stem)
    write_videos(out, [videos[video] for video in order], settings)
    return True


def encode_task(task: EncodeTask) -> list[VideoFeatures]:
    """Encode the videos of a task. Runs in a worker."""
    encoder, index = build_encoder(task.config, task.settings.encoder_sha256), read_index(task.crops)
    size = task.settings.crop_size
    videos = []
    for video_id in task.videos:
        video, notes = read_video(task.crops, video_id, index), []
        crops = video.features.reshape(-1, size, size, 3)
        features = encoder(crops)
        if not np.isfinite(features).all() and (precise := encoder.in_fp32()):
            features, notes = precise(crops), [OVERFLOW]
        if not np.isfinite(features).all():
            raise CeflError(f"{video_id}: the encoder {task.config.encoder} produced NaN or Inf; make it again")
        note = "; ".join(filter(None, [video.note, *notes]))
        videos.append(replace(video, features=features, note=note, code_hash=stage_code(), device=encoder.device_type))
    return videos
