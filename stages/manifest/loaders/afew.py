"""AFEW 8.0 (EmotiW): film clips in a folder per split and expression, with aligned faces."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError
from ..files import find_folders, has_image, list_folder
from ..scan import ScanResult, relative_posix
from ..splits import SPLIT_NAMES, scan_splits

LAYOUT = """the folder that contains both splits (Train_AFEW, Train, train_afew … and Val_AFEW, Val …), or its parent:
  Train_AFEW/Angry/013736360.avi …       Angry Disgust Fear Happy Neutral Sad Surprise
  Val_AFEW/Angry/…
only with extract: {input: crops}, the aligned faces that are distributed with AFEW:
  Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/013736360/000.jpg …
  Val_AFEW/AlignedFaces_LBPTOP_Points_Val/Faces/…"""
ARCHIVE = "AlignedFaces_LBPTOP_Points"


def scan(root: Path, labels: tuple[str, ...], input: Literal["video", "crops"]) -> ScanResult:
    """List the clips of both splits; the folder names the label. Test clips have none and are skipped.

    ``input``: the videos, or the aligned faces of AFEW. Raises CeflError if there are no aligned faces.
    """
    result = scan_splits(root, _split_of, labels)
    return _replace_by_crops(root, result) if input == "crops" and result.entries else result


def _split_of(name: str) -> str | None:
    return SPLIT_NAMES.get(re.sub(r"[\W_]*(afew|emotiw)[\W_]*[\d.]*|[\W_]+$", "", name.lower()))


def _replace_by_crops(root: Path, videos: ScanResult) -> ScanResult:
    face_folders = _face_folders(root)
    if not face_folders:
        raise CeflError(
            f"{root}: no folder {ARCHIVE}…/Faces below it; unpack the zip files of that name in "
            "Train_AFEW and Val_AFEW, or use the videos with extract: {input: video}"
        )
    result = ScanResult(skipped=videos.skipped, notes=videos.notes)
    used: set[Path] = set()
    for entry in videos.entries:
        video = root / entry.path
        candidates = [faces / video.stem for faces in face_folders.get(entry.split, [])]
        candidates = candidates or [video.parents[1] / ARCHIVE / "Faces" / video.stem]
        # a clip without faces stays listed, with the expected path of its faces, so that it counts as an error
        folder = next(filter(Path.is_dir, candidates), candidates[0])
        if not folder.is_dir() or not has_image(folder):
            result.missing.append(f"{entry.id}: no aligned faces")
        used.add(folder)
        result.add(replace(entry, path=relative_posix(folder, root)))
    for faces in (folder for folders in face_folders.values() for folder in folders):
        for folder in (faces / name for name in list_folder(faces).folders):
            if folder not in used:
                result.skip(relative_posix(folder, root), "aligned faces without a clip in a folder of an expression")
    return result


def _face_folders(root: Path) -> dict[str, list[Path]]:
    """Return the Faces/ folders by split, which the name of the archive or of a parent folder gives."""
    result: dict[str, list[Path]] = {}
    for faces in find_folders(root, lambda folder, listing: folder.name.lower() == "faces" and bool(listing.folders)):
        parents = [parent.name.lower() for parent in faces.parents if parent.is_relative_to(root)]
        archive = next((name for name in parents if name.startswith(ARCHIVE.lower())), "")
        split = next((split for split in ("val", "test") if split in archive), None)
        split = split or next(filter(None, map(_split_of, parents)), "train")
        result.setdefault(split, []).append(faces)
    return result
