"""Shards of a data set for job queues (Slurm arrays), and merging their feature caches."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.atomic import remove_stale_tmp
from ...cache.errors import CeflError, CorruptedError, OtherVersionError, shorten_list
from ...cache.features import VideoFailure, VideoStatus
from ...cache.fingerprint import ExtractionSettings, describe_diff
from ...cache.hdf5 import is_cache_file, keep_replaced, pack, read_index, read_settings, read_videos
from ...cache.lock import writer_lock
from ...cache.ownership import check_files
from ..manifest.manifest import Manifest


def parse_shard(text: str) -> tuple[int, int]:
    """Parse '3/16' to (3, 16), the third of sixteen shards; raises CeflError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise CeflError(f"--shard {text}: write i/N with i from 1 to N, such as 3/16")
    return number, count


def select_shard(manifest: Manifest, number: int, count: int) -> Manifest:
    """Return every ``count``-th video of the manifest, starting with the ``number``-th (from 1)."""
    return replace(manifest, entries=manifest.entries[number - 1 :: count])


def shard_cache(cache: Path, number: int, count: int) -> Path:
    return cache.with_name(f"{cache.stem}.shard-{number}-of-{count}{cache.suffix}")


def merge_shards(manifest: Manifest, cache: Path) -> list[VideoFailure]:
    """Merge the feature caches of all shards into ``cache``, byte for byte what one run over all videos would have written.

    Returns every video of the manifest that is not ok. A cache that holds other videos too, or is damaged, is kept under
    another name. Raises CeflError if a shard is missing, the settings of the shards differ, or a video is corrupted.
    """
    shards = _find_shards(cache)
    size = sum(shard.stat().st_size for shard in shards)
    check_files([cache], "--out", inputs=shards, is_ours=is_cache_file, force=None, required_bytes=size)
    settings = _common_settings(shards)
    videos = read_videos(shards)
    failed: list[VideoFailure] = []
    for entry in manifest.entries:
        video = videos.get(entry.id)
        if video is None:
            failed.append(VideoFailure(entry.id, VideoStatus.MISSING, "in none of the shards"))
        elif video.status != VideoStatus.OK:
            failed.append(VideoFailure(entry.id, video.status, video.note))
    locations = [videos[entry.id].location for entry in manifest.entries if entry.id in videos]
    with writer_lock(cache) as lock:
        remove_stale_tmp(cache)
        if os.path.lexists(cache) and _has_others(cache, videos):
            keep_replaced(cache, "old")
        lock.check()
        corrupted = pack(cache, locations, settings)
    if corrupted:
        raise CeflError(
            f"{cache}: {len(corrupted)} videos of its shards were corrupted on disk ({shorten_list(corrupted)}) and left out; "
            "extract their shards again with --verify"
        )
    return failed


def _has_others(cache: Path, videos: Container[str]) -> bool:
    """Return whether a feature cache has other videos than these, or cannot be read."""
    try:
        return any(video_id not in videos for video_id in read_index(cache).id)
    except (CorruptedError, OtherVersionError):
        return True


def _common_settings(shards: Sequence[Path]) -> ExtractionSettings:
    """Return the settings of all shards; raises CeflError naming the shards that differ from most, and in what."""
    settings = {path: read_settings(path) for path in shards}
    common = Counter(settings.values()).most_common(1)[0][0]
    differing = [
        f"{path.name} has {describe_diff(shard_settings, common, 'the others')}"
        for path, shard_settings in settings.items()
        if shard_settings != common
    ]
    if differing:
        raise CeflError(
            f"{len(differing)} of {len(shards)} shards were made with other settings: {shorten_list(differing)}; extract them "
            f"again with --redo and the settings of the others, such as --precision {common.precision}"
        )
    return common


def _find_shards(cache: Path) -> list[Path]:
    pattern = re.compile(re.escape(cache.stem) + r"\.shard-(\d+)-of-(\d+)" + re.escape(cache.suffix))
    files = sorted(cache.parent.iterdir()) if cache.parent.is_dir() else []
    shards = {(int(m[2]), int(m[1])): path for path in files if (m := pattern.fullmatch(path.name))}
    counts = sorted({count for count, _ in shards})
    if not counts:
        raise CeflError(f"{cache}: no shards next to it; extract them with ceflpipe extract --shard 1/2, then 2/2")
    if len(counts) > 1:
        raise CeflError(
            f"{cache}: found shards of {' and of '.join(map(str, counts))}; remove those that do not belong together"
        )
    missing = [number for number in range(1, counts[0] + 1) if (counts[0], number) not in shards]
    if missing:
        raise CeflError(
            f"{cache}: {len(missing)} of {counts[0]} shards are missing, the first is {missing[0]}; "
            f"extract it with ceflpipe extract --shard {missing[0]}/{counts[0]}"
        )
    return [shards[key] for key in sorted(shards)]
