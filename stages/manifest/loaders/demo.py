"""The rendered actors: a CSV list with the apex of every video, written by the demo stage."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import CeflError
from ..scan import ScanResult
from . import csv_list

LAYOUT = """created by ceflpipe demo:
  data/demo/videos.csv
  data/demo/videos/S01/S01_anger.mp4 …"""


def scan(root: Path, labels: tuple[str, ...] = ()) -> ScanResult:
    if not (root / "videos.csv").is_file():
        raise CeflError(f"{root}: the rendered actors do not exist yet; create them with ceflpipe demo")
    return csv_list.scan(root, labels)
