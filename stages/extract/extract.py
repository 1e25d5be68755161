"""Stage one: a manifest and an encoder become a feature cache, resuming where an earlier run stopped."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cache.atomic import remove_stale_tmp
from ...cache.errors import CeflError, shorten_list
from ...cache.features import VideoFailure, VideoStatus
from ...cache.fingerprint import ExtractionSettings
from ...cache.hdf5 import corrupted_videos, pack, read_index, read_settings, read_videos
from ...cache.lock import writer_lock
from ..callbacks import Executor, ProgressCallback, ignore_progress
from ..manifest.manifest import Manifest
from .extract_config import ExtractConfig, resolve_settings
from .orientation import AUTO_ROTATION
from .plan import ExtractPlan, HashCache, parts_folder, plan_extraction
from .tasks import DECODE_TIMEOUT, make_tasks, remove_stale_parts, run_tasks


@dataclass
class ExtractResult:
    """Outcome of one run of stage one.

    ``num_videos``: videos in the manifest; ``num_extracted`` and ``num_frames``: extracted in this run; ``num_cached``: not
    tried again; ``seconds``: duration; ``reasons``: why videos were pending, with counts. ``failed``: every video of the
    manifest that is not ok, also those that failed in an earlier run and have not changed since. ``notes``: id and note of
    the videos extracted in this run that are ok but for something to be known.
    """

    cache: Path
    num_videos: int
    num_extracted: int = 0
    num_cached: int = 0
    num_frames: int = 0
    seconds: float = 0.0
    failed: list[VideoFailure] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)

    @property
    def failed_fraction(self) -> float:
        return len(self.failed) / max(1, self.num_videos)


def extract_features(
    manifest: Manifest,
    config: ExtractConfig,
    cache: Path,
    *,
    executor: Executor | None = None,
    workers: int = 1,
    decode_timeout: float = DECODE_TIMEOUT,
    verify: bool = False,
    dry_run: bool = False,
    on_plan: Callable[[ExtractPlan, ExtractionSettings], None] | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ExtractResult:
    """Bring ``cache`` up to date with the manifest.

    Videos whose fingerprint still holds are not touched. Each newly finished video is safe on disk as a part file at
    once; at the end parts and the old cache are packed into one file that replaces the old one in one step. With an
    ``executor`` a video whose decoder gives no frame for ``decode_timeout`` seconds is stopped and reported as stalled
    (without an executor there is no separate process to end). ``on_progress`` counts videos. Raises CeflError if another
    process writes the same cache, or if the encoder cannot be used.
    """
    settings = resolve_settings(config)
    if config.rotation == "auto":
        entries = (replace(entry, rotation=entry.rotation or AUTO_ROTATION) for entry in manifest.entries)
        manifest = replace(manifest, entries=tuple(entries))
    with writer_lock(cache):
        if not dry_run:
            _clean(cache)
        plan = plan_extraction(manifest, cache, settings, verify=verify)
        if on_plan:
            on_plan(plan, settings)
        total = len(manifest.entries)
        result = ExtractResult(cache, total, num_cached=total - len(plan.pending), reasons=plan.reasons)
        result.failed = list(plan.failed)
        if dry_run:
            return result
        started = time.monotonic()
        parts = parts_folder(cache)
        remove_stale_parts(plan.pending, parts)
        hashes = HashCache(cache)
        tasks = make_tasks(plan.pending, workers, config, settings, parts, decode_timeout if executor else 0.0)
        on_progress(result.num_cached, total)
        for video in run_tasks(tasks, executor or map):
            result.num_extracted += 1
            result.num_frames += video.num_frames
            if video.status != VideoStatus.OK:
                result.failed.append(VideoFailure(video.id, video.status, video.note))
            elif video.note:
                result.notes.append((video.id, video.note))
            if video.source_sha256:
                hashes.put(video.path, video.source_sha256)
            speed = result.num_frames / max(1e-9, time.monotonic() - started)
            note = f"{speed:.0f} frames/s, {len(result.failed)} failed"
            on_progress(result.num_cached + result.num_extracted, total, note)
        hashes.save()
        if plan.pending or plan.needs_packing:
            _pack(manifest, cache, settings, plan)
        shutil.rmtree(parts, ignore_errors=True)
        result.seconds = time.monotonic() - started
    return result


def _clean(cache: Path) -> None:
    """Remove what killed runs left half-written, and set aside a cache that cannot be read.

    Complete part files are finished work and stay, unless their bytes have changed since.
    """
    remove_stale_tmp(cache)
    if cache.exists():
        try:
            read_index(cache)
            read_settings(cache)
        except CeflError:
            os.replace(cache, cache.with_name(cache.name + ".corrupted"))
    parts = parts_folder(cache)
    if parts.is_dir():
        for entry in parts.iterdir():
            if entry.suffix != ".h5" or entry.name.startswith(".") or _is_corrupted(entry):
                entry.unlink(missing_ok=True)


def _is_corrupted(part: Path) -> bool:
    try:
        return bool(corrupted_videos(part))
    except CeflError:
        return True


def _pack(manifest: Manifest, cache: Path, settings: ExtractionSettings, plan: ExtractPlan) -> None:
    """Pack everything that is finished into one new cache: what was cached, and the part files of pending videos.

    Raises CeflError for videos whose bytes were corrupted on disk; they are left out.
    """
    pending = {job.id for job in plan.pending}
    parts = read_videos(sorted(parts_folder(cache).glob("*.h5")))
    finished = plan.cached | {name: video.location for name, video in parts.items() if name in pending}
    order = [entry.id for entry in manifest.entries if entry.id in finished]
    order += sorted(set(finished) - set(order))
    if not order:
        return
    corrupted = pack(cache, [finished[video_id] for video_id in order], settings)
    if corrupted:
        raise CeflError(
            f"{cache}: {len(corrupted)} videos were corrupted on disk ({shorten_list(corrupted)}) and left out; "
            "run the same command with --verify to redo them"
        )
