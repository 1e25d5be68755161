"""Extraction plan: which videos are cached, which are pending, and why."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.atomic import read_json, sha256_of, write_json
from ...cache.errors import CeflError
from ...cache.features import VideoFailure, VideoStatus
from ...cache.fingerprint import ExtractionSettings, describe_diff, fingerprint
from ...cache.hdf5 import CachedVideo, VideoLocation, corrupted_videos, read_settings, read_videos
from ..manifest.files import IMAGE_EXTENSIONS
from ..manifest.manifest import Manifest, VideoEntry
from .extractor import VideoJob


@dataclass
class ExtractPlan:
    """``cached``: locations of finished videos by id; ``pending``: videos to extract; ``reasons``: why, with counts.

    ``failed``: videos that are not tried: their file is missing, or has failed before and is
    unchanged. ``needs_packing``: some cached video is in a part file.
    """

    cached: dict[str, VideoLocation] = field(default_factory=dict)
    pending: list[VideoJob] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    failed: list[VideoFailure] = field(default_factory=list)
    needs_packing: bool = False

    def add_cached(self, video_id: str, location: VideoLocation, cache: Path) -> None:
        self.cached[video_id] = location
        self.needs_packing = self.needs_packing or location.path != cache


def parts_folder(cache: Path) -> Path:
    return cache.with_name(cache.name + ".parts")


def plan_extraction(
    manifest: Manifest, cache: Path, settings: ExtractionSettings, *, verify: bool = False
) -> ExtractPlan:
    """Compare the manifest and the settings with the feature cache and the part files of earlier runs.

    A source file whose size and modification time are unchanged since it was last hashed is not read again. With
    ``verify`` it is, and all features are compared with their checksums.
    """
    plan = ExtractPlan()
    cached = _cached_videos(cache)
    corrupted = set(corrupted_videos(cache)) if verify and cache.exists() else set()
    changes = _describe_changes(cache, settings)
    hashes = HashCache(cache, trust=not verify)
    for entry in manifest.entries:
        video, path = cached.get(entry.id), None
        try:
            path = manifest.video_path(entry)
            failure = "" if path.exists() else f"{path}: no such file"
        except CeflError as error:
            failure = str(error)
        if path is None or failure:
            plan.failed.append(VideoFailure(entry.id, VideoStatus.MISSING, failure))
            plan.reasons["missing"] += 1
            # the features of a drive that is not mounted today are kept
            if video and _is_valid(video, settings, video.source_sha256, entry):
                plan.add_cached(entry.id, video.location, cache)
            continue
        if not video:
            reason = "new"
        elif video.location.path == cache and entry.id in corrupted:
            reason = "corrupted in the feature cache"
        elif not _is_valid(video, settings, hashes.get(path), entry):
            reason = changes
        else:
            plan.add_cached(entry.id, video.location, cache)
            if video.status != VideoStatus.OK:
                plan.failed.append(VideoFailure(entry.id, video.status, video.note))
            continue
        plan.reasons[reason] += 1
        plan.pending.append(VideoJob(entry.id, path, entry.rotation, entry.region))
    hashes.save()
    if cache.exists() and read_settings(cache) == settings:
        # videos that the manifest does not list now would take long to extract again
        unlisted = sorted(set(cached) - {entry.id for entry in manifest.entries})
        plan.cached |= {name: cached[name].location for name in unlisted if cached[name].location.path == cache}
    return plan


def _cached_videos(cache: Path) -> dict[str, CachedVideo]:
    """Return every finished video by id; a part file takes precedence over the feature cache."""
    return read_videos([*([cache] if cache.exists() else []), *sorted(parts_folder(cache).glob("*.h5"))])


def _is_valid(video: CachedVideo, settings: ExtractionSettings, source_sha256: str, entry: VideoEntry) -> bool:
    return video.fingerprint == fingerprint(settings, source_sha256, entry.rotation, entry.region)


def _describe_changes(cache: Path, settings: ExtractionSettings) -> str:
    """Return the reason for extracting a video again whose fingerprint has changed."""
    if not cache.exists():
        return "settings or source file changed since an interrupted run"
    old_settings = read_settings(cache)
    if old_settings == settings:
        return "source file, rotation or region changed"
    return f"settings changed ({describe_diff(old_settings, settings)})"


class HashCache:
    """SHA-256 of source files by path, size and modification time, so that an unchanged data set is not read again.

    It is saved next to the feature cache (NAME.h5.sources.json), not in it: times differ between copies of the same data.
    Without the file all sources are hashed again.
    """

    def __init__(self, cache: Path, *, trust: bool = True) -> None:
        self._file = cache.with_name(cache.name + ".sources.json")
        self._hashes: dict[str, list] = {}
        self._changed = False
        if trust and self._file.exists():
            with suppress(CeflError):
                self._hashes = read_json(self._file, "hashes of sources")

    def get(self, path: Path) -> str:
        """Return the hash of a source, or '' if it cannot be read; decoding it will report the reason."""
        try:
            stamp = _stamp(path)
            known = self._hashes.get(str(path))
            if not known or known[:-1] != stamp:
                self._set(path, stamp, sha256_of(path, IMAGE_EXTENSIONS))
        except OSError:
            return ""
        return self._hashes[str(path)][-1]

    def put(self, path: Path, sha256: str) -> None:
        self._set(path, _stamp(path), sha256)

    def save(self) -> None:
        if self._changed:
            write_json(self._file, self._hashes)

    def _set(self, path: Path, stamp: list[int], sha256: str) -> None:
        self._hashes[str(path)] = [*stamp, sha256]
        self._changed = True


def _stamp(path: Path) -> list[int]:
    """Return size and modification time of a file; of a folder the number, total size and last time of its images."""
    status = path.stat()
    if not path.is_dir():
        return [status.st_size, status.st_mtime_ns]
    with os.scandir(path) as listing:
        files = [entry.stat() for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    return [len(files), sum(f.st_size for f in files), max([status.st_mtime_ns, *(f.st_mtime_ns for f in files)])]
