"""A CSV list with the columns of a manifest."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import CeflError
from ..manifest import read_manifest
from ..scan import ScanResult

LAYOUT = """a CSV with a header and a line per video; paths are relative to the folder of the CSV:
  path,label,subject,split,fold,apex
  clips/one.mp4,happiness,S01,,,42      (only path and label are required)"""


def scan(root: Path, labels: tuple[str, ...] = (), *, allow_external_paths: bool = False) -> ScanResult:
    """Read ``root/videos.csv``."""
    file = root / "videos.csv"
    if not file.is_file():
        raise CeflError(f"{file}: no such file; expected {LAYOUT}")
    manifest = read_manifest(file, labels=labels or None, allow_external_paths=allow_external_paths)
    return ScanResult(entries=list(manifest.entries))
