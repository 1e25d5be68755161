"""Extraction plan: which videos are cached, which are pending, and why."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.atomic import read_json, sha256_of, write_json
from ...cache.errors import CeflError
from ...cache.features import VideoStatus
from ...cache.fingerprint import ExtractionSettings, describe_diff, fingerprint
from ...cache.hdf5 import VideoLocation, corrupted_videos, read_index, read_settings
from ..manifest.manifest import Manifest, VideoEntry
from .extractor import VideoJob
from .video_reader import IMAGE_EXTENSIONS


@dataclass
class ExtractPlan:
    """``kept``: finished videos by id, with where they lie; ``jobs``: what remains; ``reasons``: why, with counts.

    ``failed``: (id, status, note) of videos for which there is nothing to try: the file is missing, or it was tried
    before and is still the same. ``loose``: some kept video lies in a part file, so the cache must be packed.
    """

    cached: dict[str, VideoLocation] = field(default_factory=dict)
    pending: list[VideoJob] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    needs_packing: bool = False


def parts_folder(cache: Path) -> Path:
    return cache.with_name(cache.name + ".parts")


def plan_extraction(
    manifest: Manifest, cache: Path, settings: ExtractionSettings, *, verify: bool = False
) -> ExtractPlan:
    """Compare what is wanted with what the cache and the part files of earlier runs hold.

    A source file whose size and time have not changed since it was last hashed is not read again, unless ``verify``, which
    also compares all features with their checksums.
    """
    plan = ExtractPlan()
    finished = _finished_videos(cache)
    hurt = set(corrupted_videos(cache)) if verify and cache.exists() else set()
    changed_settings = _diff_settings(cache, settings)
    hashes = HashCache(cache, trust=not verify)
    for row in manifest.entries:
        path = manifest.video_path(row)
        entry, made_with, source, status, note = finished.get(row.id, (None, "", "", "", ""))
        if not path.exists():
            plan.failed.append((row.id, VideoStatus.MISSING, f"{path}: no such file"))
            plan.reasons["missing on disk"] += 1
            # a drive that is not there today takes no finished features with it
            if entry and made_with == fingerprint(settings, source, row.rotation, row.region):
                plan.cached[row.id] = entry
                plan.needs_packing = plan.needs_packing or entry.path != cache
            continue
        if entry and entry.path == cache and row.id in hurt:
            plan.reasons["damaged in the cache"] += 1
            plan.pending.append(VideoJob(row.id, path, row.rotation, row.region))
            continue
        if entry and made_with == fingerprint(settings, hashes.get(path), row.rotation, row.region):
            plan.cached[row.id] = entry
            plan.needs_packing = plan.needs_packing or entry.path != cache
            if status != VideoStatus.OK:
                plan.failed.append((row.id, status, note))
            continue
        plan.reasons["new" if not entry else f"made otherwise ({changed_settings})"] += 1
        plan.pending.append(VideoJob(row.id, path, row.rotation, row.region))
    hashes.save()
    _keep_unlisted(plan, manifest.entries, finished, cache, settings)
    return plan


def _finished_videos(cache: Path) -> dict[str, tuple[VideoLocation, str, str, str, str]]:
    """Return (where, fingerprint, hash of the source, status, note) of every finished video by id.

    A part file beats the packed cache.
    """
    found: dict[str, tuple[VideoLocation, str, str, str, str]] = {}
    files = [cache] if cache.exists() else []
    if parts_folder(cache).is_dir():
        files += sorted(parts_folder(cache).glob("*.h5"))
    for file in files:
        index = read_index(file)
        for row, name in enumerate(index.id):
            found[name] = (
                VideoLocation(file, row), index.fingerprint[row], index.source_sha256[row], index.status[row], index.note[row]
            )  # fmt: skip
    return found


def _keep_unlisted(
    plan: ExtractPlan,
    rows: tuple[VideoEntry, ...],
    finished: dict[str, tuple[VideoLocation, str, str, str, str]],
    cache: Path,
    settings: ExtractionSettings,
) -> None:
    """Keep videos that the manifest does not list now, as long as they were made the same way: a night's work."""
    if not cache.exists() or read_settings(cache) != settings:
        return
    listed = {row.id for row in rows}
    for name in sorted(set(finished) - listed):
        if finished[name][0].path == cache:
            plan.cached[name] = finished[name][0]


def _diff_settings(cache: Path, settings: ExtractionSettings) -> str:
    if not cache.exists():
        return "by an earlier run"
    return describe_diff(read_settings(cache), settings)


class HashCache:
    """Remembers SHA-256 by path, size and modification time, so that a finished data set is not read again.

    Kept beside the cache (NAME.h5.sources.json) and not in it: times differ between copies of the same data. Losing
    the file costs only the time to hash again.
    """

    def __init__(self, cache: Path, *, trust: bool = True) -> None:
        self._file = cache.with_name(cache.name + ".sources.json")
        self._known: dict[str, list] = {}
        self._changed = False
        if trust and self._file.exists():
            try:
                self._known = read_json(self._file, "hashes of sources")
            except CeflError:
                self._known = {}

    def get(self, path: Path) -> str:
        """Return a source's hash; an empty text where it cannot be read: whoever tries to decode it will say why."""
        try:
            return self._get(path)
        except OSError:
            return ""

    def _get(self, path: Path) -> str:
        stamp = _stamp(path)
        known = self._known.get(str(path))
        if known and known[:-1] == stamp:
            return known[-1]
        self._known[str(path)] = [*stamp, sha256_of(path, IMAGE_EXTENSIONS)]
        self._changed = True
        return self._known[str(path)][-1]

    def put(self, path: Path, sha256: str) -> None:
        self._known[str(path)] = [*_stamp(path), sha256]
        self._changed = True

    def save(self) -> None:
        if self._changed:
            write_json(self._file, self._known)


def _stamp(path: Path) -> list[int]:
    """Return what changes when a file does: size and time; of a folder also the number and sizes of its pictures."""
    status = path.stat()
    if not path.is_dir():
        return [status.st_size, status.st_mtime_ns]
    with os.scandir(path) as listing:
        files = [entry.stat() for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    return [len(files), sum(f.st_size for f in files), max([status.st_mtime_ns, *(f.st_mtime_ns for f in files)])]
