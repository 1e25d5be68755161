"""Extraction plan: which videos are cached, which are pending, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cache.atomic import read_json, sha256_of, write_json
from ...cache.errors import CeflError
from ...cache.features import VideoFailure, VideoStatus
from ...cache.fingerprint import ExtractionSettings, describe_diff, detection_fingerprint, fingerprint
from ...cache.hdf5 import CachedVideo, VideoLocation, corrupted_videos, read_videos
from ...cache.ownership import holds_json
from ..manifest.files import IMAGE_EXTENSIONS
from ..manifest.manifest import Manifest, VideoEntry
from .extractor import is_usable_track
from .face_tracks import VideoJob
from .orientation import AUTO_ROTATION
from .tasks import is_part_name, stage_code
from .video_reader import decoder_version

_PARTS = ".parts"


@dataclass
class FinishedVideos:
    """The videos that earlier runs have finished, by id: those in the feature cache, and those in part files beside it."""

    cache: Path
    in_cache: dict[str, CachedVideo]
    in_parts: dict[str, CachedVideo]

    @property
    def settings(self) -> ExtractionSettings | None:
        """Settings of the feature cache, or of an interrupted first run; None if nothing is finished."""
        videos = (*self.in_cache.values(), *self.in_parts.values())
        return videos[0].settings if videos else None


@dataclass
class KnownDetections:
    """Finished videos of several feature caches whose face tracks may be used again, by id; the first cache counts first.

    ``skipped``: caches that cannot be read, and why.
    """

    videos: dict[str, list[CachedVideo]] = field(default_factory=dict)
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, videos: dict[str, CachedVideo]) -> None:
        for video_id, video in videos.items():
            self.videos.setdefault(video_id, []).append(video)


def read_detections(finished: FinishedVideos, caches: Sequence[Path]) -> KnownDetections:
    """Read the indexes of the cache itself and of other ``caches``, with the part files beside each."""
    known = KnownDetections()
    known.add(finished.in_parts)
    known.add(finished.in_cache)
    for cache in caches:
        try:
            other = read_finished(cache) if cache.absolute() != finished.cache.absolute() else None
        except CeflError as error:
            known.skipped.append((cache, str(error)))
            continue
        if other:
            known.add(other.in_parts)
            known.add(other.in_cache)
    return known


@dataclass
class ExtractPlan:
    """``cached``: locations of finished videos by id; ``pending``: videos to extract; ``reasons``: why, with counts.

    ``failed``: videos that are not tried: their file is missing or cannot be read, or has failed before and nothing that could
    help has changed. ``needs_packing``: some cached video is in a part file. ``outdated``: finished videos that would be
    extracted again, or dropped, only because the settings differ, by what differs. ``other_code``: cached videos by
    the hash of the code that made them, if it is another than today's. ``set_aside``: damaged files and their new names.
    ``known_tracks``: pending videos whose faces are known, by the feature cache that has them; ``skipped_caches``: those
    that cannot be read, and why.
    """

    cached: dict[str, VideoLocation] = field(default_factory=dict)
    pending: list[VideoJob] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)
    failed: list[VideoFailure] = field(default_factory=list)
    needs_packing: bool = False
    outdated: Counter = field(default_factory=Counter)
    other_code: Counter = field(default_factory=Counter)
    set_aside: list[tuple[Path, Path]] = field(default_factory=list)
    known_tracks: Counter[Path] = field(default_factory=Counter)
    skipped_caches: list[tuple[Path, str]] = field(default_factory=list)

    def add_cached(self, video_id: str, video: CachedVideo, cache: Path, code: str) -> None:
        self.cached[video_id] = video.location
        self.needs_packing = self.needs_packing or video.location.path != cache
        if video.code_hash != code:
            self.other_code[video.code_hash] += 1


def parts_folder(cache: Path) -> Path:
    return cache.with_name(cache.name + _PARTS)


def part_files(cache: Path) -> list[Path]:
    """Return the part files beside a feature cache; other files in their folder are not ours."""
    return sorted(file for file in parts_folder(cache).glob("*.h5") if is_part_name(file.name))


def cache_of_part(file: Path) -> Path | None:
    """Return the feature cache that a part file is beside, None for a file that is no part file."""
    name = file.parent.name
    return file.parent.with_name(name.removesuffix(_PARTS)) if name.endswith(_PARTS) else None


def read_finished(cache: Path) -> FinishedVideos:
    """Read the index of the feature cache and of the part files of earlier runs; raises CeflError if one cannot be read."""
    in_cache = read_videos([cache] if os.path.lexists(cache) else [])
    return FinishedVideos(cache, in_cache, read_videos(part_files(cache)))


def plan_extraction(
    manifest: Manifest,
    finished: FinishedVideos,
    settings: ExtractionSettings,
    *,
    verify: bool = False,
    retry_failed: bool = False,
    redo_code: bool = False,
    detections: Sequence[Path] | None = (),
) -> ExtractPlan:
    """Compare the manifest and the settings with what is finished.

    A source file whose size and modification time are unchanged since it was last hashed is not read again. With
    ``verify`` it is, and all features are compared with their checksums. ``retry_failed``: try videos that failed before;
    without it they are tried if their file, the decoder or the code has changed. ``redo_code``: extract
    videos again that other code has made. ``detections``: other feature caches of the same videos, whose face tracks are
    used where they still hold, as that of the cache itself is; None: the faces of all pending videos are found again.
    """
    return _Planner(manifest, finished, settings, verify, retry_failed, redo_code, detections).plan()


class _Planner:
    """Decides for each video whether it is cached, pending or failed."""

    def __init__(
        self,
        manifest: Manifest,
        finished: FinishedVideos,
        settings: ExtractionSettings,
        verify: bool,
        retry_failed: bool,
        redo_code: bool,
        detections: Sequence[Path] | None,
    ) -> None:
        self._manifest, self._finished, self._settings = manifest, finished, settings
        self._retry_failed, self._redo_code = retry_failed, redo_code
        self._code = stage_code()
        self._corrupted = set(corrupted_videos(finished.cache)) if verify and finished.in_cache else set()
        self._hashes = HashCache(finished.cache, detections or (), trust=not verify)
        reuses = detections is not None and bool(settings.detector)
        self._known = read_detections(finished, detections or ()) if reuses else KnownDetections()
        self._plan = ExtractPlan(skipped_caches=self._known.skipped)

    def plan(self) -> ExtractPlan:
        for entry in self._manifest.entries:
            reason = self._add(entry)
            if reason:
                self._plan.reasons[reason] += 1
        self._hashes.save()
        self._add_unlisted()
        return self._plan

    def _add(self, entry: VideoEntry) -> str:
        """Add a video to the plan and return the reason, '' if it is cached."""
        versions = self._versions(entry.id)
        try:
            path = self._manifest.video_path(entry)
            if not path.exists():
                # the features of a drive that is not mounted today are kept
                return self._add_unavailable(entry, versions, VideoStatus.MISSING, f"{path}: no such file")
        except CeflError as error:  # a link that leads out
            return self._add_unavailable(entry, versions, VideoStatus.MISSING, str(error))
        except OSError as error:
            return self._add_unavailable(entry, versions, VideoStatus.UNREADABLE, _describe_os_error(error))
        if not versions:
            return self._add_pending(entry, path, "new")
        try:
            source = self._hashes.get(path)
        except OSError as error:
            return self._add_unavailable(entry, versions, VideoStatus.UNREADABLE, _describe_os_error(error))
        video = next((video for video in versions if _is_valid(video, self._settings, source, entry)), None)
        if video is None:
            return self._add_pending(entry, path, self._describe_change(versions[0], source, entry))
        if video.location.path == self._finished.cache and entry.id in self._corrupted:
            return self._add_pending(entry, path, "corrupted in the feature cache")
        if video.status != VideoStatus.OK and (reason := self._retry_reason(video)):
            return self._add_pending(entry, path, reason)
        if video.code_hash != self._code and self._redo_code:
            return self._add_pending(
                entry, path, f"made by other code of stage one ({_describe_code(video, self._code)})"
            )
        self._plan.add_cached(entry.id, video, self._finished.cache, self._code)
        if video.status != VideoStatus.OK:
            self._plan.failed.append(VideoFailure(entry.id, video.status, video.note))
        return ""

    def _versions(self, video_id: str) -> list[CachedVideo]:
        """Return what is finished of a video, the part file first: it is newer."""
        return [videos[video_id] for videos in (self._finished.in_parts, self._finished.in_cache) if video_id in videos]

    def _add_pending(self, entry: VideoEntry, path: Path, reason: str) -> str:
        job = VideoJob(entry.id, path, entry.rotation, entry.region)
        track = self._find_track(entry, path)
        if track:
            file = track.location.path
            job = replace(job, detections=file, detection=track.detection)
            self._plan.known_tracks[cache_of_part(file) or file] += 1
        self._plan.pending.append(job)
        return reason

    def _find_track(self, entry: VideoEntry, path: Path) -> CachedVideo | None:
        """Return a finished video of the same source whose face track is the one that would be found again, or None."""
        candidates = self._known.videos.get(entry.id)
        if not candidates:
            return None
        try:
            source = self._hashes.get(path)
        except OSError:  # the worker will report it
            return None
        expected = detection_fingerprint(self._settings, source, entry.rotation, entry.region)
        usable = (
            video
            for video in candidates
            if is_usable_track(video.status, video.detection, expected, video.detection_code, video.decoder)
        )
        return next(usable, None)

    def _add_unavailable(self, entry: VideoEntry, versions: list[CachedVideo], status: VideoStatus, note: str) -> str:
        """Add a video whose file cannot be compared with its features; these are kept if they have the right settings."""
        self._plan.failed.append(VideoFailure(entry.id, status, note))
        for video in versions:
            if _is_valid(video, self._settings, video.source_sha256, entry):
                self._plan.add_cached(entry.id, video, self._finished.cache, self._code)
                break
        return "missing" if status == VideoStatus.MISSING else "cannot be read"

    def _add_unlisted(self) -> None:
        """Keep videos that the manifest does not list now: they would take long to extract again."""
        listed = {entry.id for entry in self._manifest.entries}
        for video_id in sorted({*self._finished.in_cache, *self._finished.in_parts} - listed):
            for video in self._versions(video_id):
                if video.settings == self._settings:
                    self._plan.add_cached(video_id, video, self._finished.cache, self._code)
                    break
        pending = {job.id for job in self._plan.pending}
        for video_id, video in self._finished.in_cache.items():
            if video_id not in self._plan.cached and video_id not in pending and video.settings != self._settings:
                self._add_outdated(video, describe_diff(video.settings, self._settings))  # packing would drop it

    def _add_outdated(self, video: CachedVideo, difference: str) -> None:
        if video.status != VideoStatus.UNREADABLE:  # it has no features
            self._plan.outdated[difference] += 1

    def _describe_change(self, video: CachedVideo, source_sha256: str, entry: VideoEntry) -> str:
        """Return why a video is extracted again whose fingerprint has changed; count it if only the settings differ."""
        rotations = {entry.rotation: "", **_OTHER_ROTATION.get(entry.rotation, {})}
        for rotation, difference in rotations.items():
            if _is_valid(video, video.settings, source_sha256, replace(entry, rotation=rotation)):
                changes = [describe_diff(video.settings, self._settings), difference]
                text = "; ".join(filter(None, changes))
                self._add_outdated(video, text)
                return f"settings changed ({text})"
        return "source file, rotation or region changed"

    def _retry_reason(self, video: CachedVideo) -> str:
        """Return why a video is tried again that is not ok, '' if nothing could help."""
        if self._retry_failed:
            return f"{video.status} before"
        if video.status != VideoStatus.UNREADABLE:  # it has features
            return ""
        if video.decoder != decoder_version():
            return f"unreadable before, by {video.decoder or 'another decoder'}"
        if video.code_hash != self._code:
            return f"unreadable before, by other code of stage one ({_describe_code(video, self._code)})"
        return ""


_OTHER_ROTATION = {
    "": {AUTO_ROTATION: "rotation auto, now manifest"},
    AUTO_ROTATION: {"": "rotation manifest, now auto"},
}
"""What another --rotation would have written in the place of a rotation, and how to say so."""


def _is_valid(video: CachedVideo, settings: ExtractionSettings, source_sha256: str, entry: VideoEntry) -> bool:
    return video.fingerprint == fingerprint(settings, source_sha256, entry.rotation, entry.region)


def _describe_os_error(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _describe_code(video: CachedVideo, code: str) -> str:
    return f"{video.code_hash or 'unknown'}, now {code}"


class HashCache:
    """SHA-256 of source files by path, size and modification time, so that an unchanged data set is not read again.

    It is saved next to the feature cache (NAME.h5.sources.json), not in it: times differ between copies of the same data.
    Without the file all sources are hashed again. ``others``: feature caches whose hashes are known too.
    """

    def __init__(self, cache: Path, others: Sequence[Path] = (), *, trust: bool = True) -> None:
        self._file = hashes_file(cache)
        self._hashes: dict[str, list] = {}
        self._changed = False
        for file in (*map(hashes_file, others), self._file) if trust else ():
            with suppress(CeflError):
                content = read_json(file, "hashes of sources") if file.exists() else {}
                self._hashes |= content if isinstance(content, dict) else {}

    def get(self, path: Path) -> str:
        """Return the hash of a source; raises OSError if it cannot be read."""
        stamp = _stamp(path)
        known = self._hashes.get(str(path))
        if not known or known[:-1] != stamp:
            self._set(path, stamp, sha256_of(path, IMAGE_EXTENSIONS))
        return self._hashes[str(path)][-1]

    def put(self, path: Path, sha256: str) -> None:
        self._set(path, _stamp(path), sha256)

    def save(self) -> None:
        if self._changed:
            write_json(self._file, self._hashes)

    def _set(self, path: Path, stamp: list[int], sha256: str) -> None:
        self._hashes[str(path)] = [*stamp, sha256]
        self._changed = True


def hashes_file(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.sources.json")


def is_hashes_file(path: Path) -> bool:
    """Return whether a HashCache wrote a file."""
    return holds_json(path, lambda hashes: all(len(known[-1]) == 64 for known in dict(hashes).values()))


def _stamp(path: Path) -> list[int]:
    """Return size and modification time of a file; of a folder the number, total size and last time of its images."""
    status = path.stat()
    if not path.is_dir():
        return [status.st_size, status.st_mtime_ns]
    with os.scandir(path) as listing:
        files = [entry.stat() for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    return [len(files), sum(f.st_size for f in files), max([status.st_mtime_ns, *(f.st_mtime_ns for f in files)])]
