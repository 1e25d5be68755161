"""A CSV list: path,label and whatever of subject,split,fold,apex is known."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import CeflError
from ..manifest import read_manifest
from ..scan import ScanResult

LAYOUT = """a CSV with a header, a line per video, paths relative to the CSV's folder:
  path,label,subject,split,fold,apex
  clips/one.mp4,happiness,S01,,,42      (only path and label are needed)"""


def scan(root: Path, labels: tuple[str, ...] = ()) -> ScanResult:
    """Read ``root/videos.csv``."""
    listing = root / "videos.csv"
    if not listing.is_file():
        raise CeflError(f"{listing}: no such file; expected {LAYOUT}")
    return ScanResult(entries=list(read_manifest(listing, labels=labels or None).entries))
