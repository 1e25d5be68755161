"""Number of frames of each video of a manifest, counted by decoding."""

from __future__ import annotations

from ...cache.errors import CeflError
from ..callbacks import ProgressCallback, ignore_progress
from ..manifest.manifest import Manifest
from .video_reader import DecodeError, count_frames


def count_manifest_frames(manifest: Manifest, on_progress: ProgressCallback = ignore_progress) -> dict[str, int | str]:
    """Return the number of frames by id, or the reason why a video cannot be read; videos that do not exist are left out."""
    counts: dict[str, int | str] = {}
    for number, entry in enumerate(manifest.entries, start=1):
        try:
            path = manifest.video_path(entry)
            if path.exists():
                counts[entry.id] = count_frames(path)
        except (DecodeError, CeflError) as error:
            counts[entry.id] = str(error)
        on_progress(number, len(manifest.entries))
    return counts
