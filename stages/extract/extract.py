"""Stage one: a manifest and an encoder become a feature cache, resuming where an earlier run stopped."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...cache.atomic import remove_stale_tmp
from ...cache.errors import CeflError, CorruptedError, OtherVersionError, shorten_list
from ...cache.features import VideoFailure, VideoStatus
from ...cache.fingerprint import ExtractionSettings
from ...cache.hdf5 import corrupted_videos, is_cache_file, keep_replaced, pack, read_settings, read_videos, set_aside
from ...cache.lock import writer_lock
from ...cache.ownership import check_files
from ..callbacks import Executor, ProgressCallback, ignore_progress
from ..manifest.manifest import Manifest
from .disk_space import check_extraction_space
from .extract_config import DECODE_TIMEOUT, ExtractConfig, ResolvedConfig, resolve_config
from .orientation import AUTO_ROTATION
from .plan import (
    ExtractPlan,
    FinishedVideos,
    HashCache,
    hashes_file,
    is_hashes_file,
    part_files,
    parts_folder,
    plan_extraction,
    read_finished,
)
from .tasks import ResolveTask, is_marker_name, make_tasks, part_name, resolve_task, run_on_gpus


@dataclass
class ExtractResult:
    """Outcome of one run of stage one.

    ``num_videos``: videos in the manifest; ``num_extracted`` and ``num_frames``: extracted in this run; ``num_cached``: not
    tried again; ``seconds``: duration; ``reasons``: why videos were pending, with counts. ``failed``: every video of the
    manifest that is not ok, also those that failed in an earlier run and have not changed since. ``notes``: id and note of
    the videos extracted in this run that are ok but for something to be known. ``device``: cpu or cuda. ``encode_seconds``,
    ``encoded_crops``: see ExtractMonitor, of all workers. ``restarts``: see GpuPool.
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
    device: str = ""
    encode_seconds: float = 0.0
    encoded_crops: int = 0
    restarts: list[str] = field(default_factory=list)

    @property
    def encode_ms(self) -> float | None:
        """Milliseconds of processor time of the encoder for a crop; None if nothing was encoded, or not on a processor."""
        return 1e3 * self.encode_seconds / self.encoded_crops if self.encoded_crops and self.device == "cpu" else None

    @property
    def failed_fraction(self) -> float:
        return len(self.failed) / max(1, self.num_videos)


Redo = Literal["", "settings", "all"]
"""Finished videos that may be extracted again: none; those with other settings; those made by other code too."""


def extract_features(
    manifest: Manifest,
    config: ExtractConfig,
    cache: Path,
    *,
    executor: Executor | None = None,
    workers: int = 1,
    gpus: tuple[str, ...] = (),
    resolve_on_workers: bool = False,
    decode_timeout: float = DECODE_TIMEOUT,
    verify: bool = False,
    retry_failed: bool = False,
    redo: Redo = "",
    detections: Sequence[Path] | None = (),
    dry_run: bool = False,
    on_plan: Callable[[ExtractPlan, ResolvedConfig], None] | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ExtractResult:
    """Bring ``cache`` up to date with the manifest.

    Videos whose fingerprint still holds are not touched. Each newly finished video is safe on disk as a part file at
    once; at the end parts and the old cache are packed into one file that replaces the old one in one step. With an
    ``executor`` a video whose decoder gives no frame for ``decode_timeout`` seconds is stopped and reported as stalled
    (without an executor there is no separate process to end). ``gpus``: devices of this machine, such as cuda:0, that encode for
    the workers of the executor, see run_on_gpus. ``resolve_on_workers``: its workers are other machines, so one
    of them says what ``auto`` is. ``retry_failed``, ``detections``: see plan_extraction. ``on_progress`` counts videos.

    Raises CeflError if finished videos have other settings and ``redo`` does not allow to extract them again, if another
    process writes the same cache or has it open, if the disk has no room for it, or if the encoder cannot be used.
    """
    option = "" if config.keep == "crops" else "--out"  # crops have one place
    check_files([cache], option, is_ours=is_cache_file, force=None)
    check_files([hashes_file(cache)], option, is_ours=is_hashes_file, force=None)
    if os.path.lexists(parts := parts_folder(cache)) and not parts.is_dir():
        raise CeflError(f"{parts}: is a file, and has the name of the folder of part files; move it away")
    if config.rotation == "auto":
        entries = (replace(entry, rotation=entry.rotation or AUTO_ROTATION) for entry in manifest.entries)
        manifest = replace(manifest, entries=tuple(entries))
    with writer_lock(cache) as lock:
        aside = [] if dry_run else _clean(cache, redo)
        finished = read_finished(cache)
        if resolve_on_workers and executor:
            resolved = _resolve_on_worker(config, finished.settings, executor)
        else:
            resolved = resolve_config(config, finished.settings)
        settings = resolved.settings
        plan = plan_extraction(
            manifest, finished, settings, verify=verify, retry_failed=retry_failed, redo_code=redo == "all",
            detections=detections,
        )  # fmt: skip
        plan.set_aside = aside
        if on_plan:
            on_plan(plan, resolved)
        total = len(manifest.entries)
        result = ExtractResult(cache, total, num_cached=total - len(plan.pending), reasons=plan.reasons)
        result.failed, result.device = list(plan.failed), resolved.config.device.partition(":")[0]
        if dry_run:
            return result
        if plan.outdated and not redo:
            raise CeflError(
                f"{cache}: {plan.outdated.total()} finished videos have other settings ({_shorten(plan.outdated)}); pass --redo "
                "to extract them again, or give the settings they have. Nothing was done"
            )
        if plan.pending or plan.needs_packing:
            kept = [file for file in (cache, *part_files(cache)) if file.is_file()]
            itemsize = np.dtype(settings.dtype).itemsize
            check_extraction_space(cache, kept, plan.pending, settings.width, executor or map, itemsize, option)
        started = time.monotonic()
        hashes = HashCache(cache)
        timeout = decode_timeout if executor else 0.0
        tasks = make_tasks(plan.pending, workers, resolved.config, settings, parts_folder(cache), timeout)
        written = set()
        on_progress(result.num_cached, total)
        for video in run_on_gpus(tasks, executor or map, gpus if executor else (), result.restarts):
            result.num_extracted += 1
            result.num_frames += video.num_frames
            result.encode_seconds += video.encode_seconds
            result.encoded_crops += video.encoded_crops
            if video.status != VideoStatus.OK:
                result.failed.append(VideoFailure(video.id, video.status, video.note))
            elif video.note:
                result.notes.append((video.id, video.note))
            if video.written:
                written.add(video.id)
                hashes.put(video.path, video.source_sha256)
            speed = result.num_frames / max(1e-9, time.monotonic() - started)
            note = f"{speed:.0f} frames/s, {len(result.failed)} failed"
            on_progress(result.num_cached + result.num_extracted, total, note)
        hashes.save()
        if plan.pending or plan.needs_packing:
            lock.check()
            _pack(manifest, finished, settings, plan, written)
        _remove_markers(parts_folder(cache))
        result.seconds = time.monotonic() - started
    return result


def _resolve_on_worker(config: ExtractConfig, cached: ExtractionSettings | None, executor: Executor) -> ResolvedConfig:
    (outcome,) = executor(resolve_task, [ResolveTask(config, cached)])
    if isinstance(outcome, ResolvedConfig):
        return outcome
    raise CeflError(f"no worker could say what it computes with: {outcome[1]}; start the workers again")


def _shorten(differences: Counter) -> str:
    """Return what differs and, if that is not the same for all videos, in how many."""
    if len(differences) == 1:
        return next(iter(differences))
    return shorten_list([f"{number} of them {text}" for text, number in differences.most_common()])


def _clean(cache: Path, redo: Redo) -> list[tuple[Path, Path]]:
    """Remove what killed runs left half-written; rename files whose content is damaged, and return their old and new names.

    Complete part files are finished work and stay. With ``redo`` files of another version are renamed too. Raises CeflError if
    a file cannot be read for another reason.
    """
    remove_stale_tmp(cache)
    aside = []
    parts = parts_folder(cache)
    _remove_markers(parts)
    for file in [cache, *part_files(cache)]:
        try:
            # a video that is damaged in the cache costs itself only, and is found when the cache is packed or verified
            reason = "corrupted" if file != cache and corrupted_videos(file) else ""
            if os.path.lexists(file):
                read_settings(file)
        except CorruptedError:
            reason = "corrupted"
        except OtherVersionError:
            if not redo:
                raise
            reason = "old"
        if reason:
            aside.append(
                (file, set_aside(file, cache if file == cache else cache.with_name(f"{cache.name}.part"), reason))
            )
    return aside


def _remove_markers(parts: Path) -> None:
    """Remove what workers left in the folder of part files besides these, and the folder if it is empty then."""
    for entry in parts.iterdir() if parts.is_dir() else ():
        if is_marker_name(entry.name):
            entry.unlink(missing_ok=True)
    with suppress(OSError):
        parts.rmdir()


def _pack(
    manifest: Manifest, finished: FinishedVideos, settings: ExtractionSettings, plan: ExtractPlan, written: set[str]
) -> None:
    """Pack everything that is finished into one new cache: what was cached, and the part files that were ``written``.

    Then the packed part files are removed. Raises CeflError for videos whose bytes were corrupted on disk; they are left out.
    """
    cache = finished.cache
    new_parts = read_videos(parts_folder(cache) / part_name(video_id) for video_id in sorted(written))
    locations = plan.cached | {name: video.location for name, video in new_parts.items()}
    order = [entry.id for entry in manifest.entries if entry.id in locations]
    order += sorted(set(locations) - set(order))
    if not order:
        return
    if plan.outdated and not set(finished.in_cache) <= set(order):  # videos are not listed now, or failed
        keep_replaced(cache, "old")
    corrupted = pack(cache, [locations[video_id] for video_id in order], settings)
    if corrupted:
        raise CeflError(
            f"{cache}: {len(corrupted)} videos were corrupted on disk ({shorten_list(corrupted)}) and left out; "
            "run the same command with --verify to redo them"
        )
    for location in locations.values():
        if location.path != cache:
            location.path.unlink()
