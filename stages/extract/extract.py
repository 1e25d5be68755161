"""STAGE ONE as a whole: a manifest and encoder weights become a feature cache, resuming where an earlier run stopped."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cache.atomic import remove_leftovers
from ...cache.errors import CeflError
from ...cache.features import OK
from ...cache.fingerprint import ExtractionSettings
from ...cache.hdf5 import damaged_videos, pack, read_index
from ...cache.lock import writer_lock
from ..manifest.manifest import Manifest
from .extract_config import Wishes, settle
from .plan import Plan, SourceHashes, make_plan, parts_folder
from .tasks import PATIENCE, Done, Mapper, deal, forget, in_this_process, run_tasks


@dataclass
class Extraction:
    """What one run of stage one came to. ``failed`` holds (id, status, note) of every video of the manifest that is
    not ok, also of those that failed in an earlier run and have not changed since."""

    cache: Path
    videos: int
    finished: int = 0
    kept: int = 0
    frames: int = 0
    seconds: float = 0.0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    reasons: Counter = field(default_factory=Counter)

    @property
    def failed_share(self) -> float:
        return len(self.failed) / max(1, self.videos)


def extract(
    manifest: Manifest,
    wishes: Wishes,
    cache: Path,
    *,
    mapper: Mapper | None = None,
    on_plan: Callable[[Plan, ExtractionSettings], None] = lambda plan, settings: None,
    on_video: Callable[[Done], None] = lambda done: None,
    workers: int = 1,
    patience: float = PATIENCE,
    verify: bool = False,
    dry_run: bool = False,
) -> Extraction:
    """Bring ``cache`` up to date with the manifest and return what that took.

    Finished videos whose fingerprint still holds are not touched. Each newly finished video is safe on disk as a part
    file at once; at the end parts and old cache are packed into one file that replaces the old one in one step. With a
    ``mapper`` a video whose decoder gives no frame for ``patience`` seconds is given up (see stall.py). Raises CeflError
    when another process writes the same cache, or when the weights cannot be used.
    """
    settings = settle(wishes)
    with writer_lock(cache):
        if not dry_run:
            _tidy(cache)
        plan = make_plan(manifest, cache, settings, verify=verify)
        on_plan(plan, settings)
        result = Extraction(cache, len(manifest.rows), kept=len(manifest.rows) - len(plan.jobs), reasons=plan.reasons)
        result.failed = list(plan.failed)
        if dry_run:
            return result
        started = time.monotonic()
        forget(plan.jobs, parts_folder(cache))
        hashes = SourceHashes(cache)
        tasks = deal(plan.jobs, workers, wishes, settings, parts_folder(cache))
        # where the work is done in this process there is none to spare for a stalled decoder
        tasks = [replace(task, patience=patience if mapper else 0.0) for task in tasks]
        for done in run_tasks(tasks, mapper or in_this_process):
            on_video(done)
            result.finished += 1
            result.frames += done.frames
            if done.status != OK:
                result.failed.append((done.id, done.status, done.note))
            if done.source_sha256:
                hashes.remember(done.path, done.source_sha256)
        hashes.save()
        if plan.jobs or plan.loose:
            _pack(manifest, cache, settings)
        shutil.rmtree(parts_folder(cache), ignore_errors=True)
        result.seconds = time.monotonic() - started
    return result


def _tidy(cache: Path) -> None:
    """Remove what killed runs left half-written, and put a cache aside that cannot be read; whole part files stay, they
    are finished work, unless their bytes have changed since."""
    remove_leftovers(cache)
    if cache.exists():
        try:
            read_index(cache)
        except CeflError:
            os.replace(cache, cache.with_name(cache.name + ".damaged"))
    parts = parts_folder(cache)
    if parts.is_dir():
        for entry in parts.iterdir():
            if entry.suffix != ".h5" or entry.name.startswith(".") or _damaged(entry):
                entry.unlink(missing_ok=True)


def _damaged(part: Path) -> bool:
    try:
        return bool(damaged_videos(part))
    except CeflError:
        return True


def _pack(manifest: Manifest, cache: Path, settings: ExtractionSettings) -> None:
    """Put everything that is finished into one new cache; videos whose bytes were damaged on disk are said, and redone
    by the next run."""
    plan = make_plan(manifest, cache, settings)
    order = [row.id for row in manifest.rows if row.id in plan.kept]
    order += sorted(set(plan.kept) - set(order))
    if not order:
        return
    damaged = pack(cache, [plan.kept[name] for name in order], settings.to_json())
    if damaged:
        raise CeflError(
            f"{cache}: {len(damaged)} videos had changed on disk since they were written ({', '.join(damaged[:3])}); "
            "they were left out, run the same command again with --verify to redo them"
        )
