"""AFEW 8.0 (EmotiW): film clips in a folder per split and expression; aligned faces come with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError
from ..files import find_folders, has_image, list_folder
from ..scan import ScanResult, relative_posix
from ..splits import scan_splits

LAYOUT = """the folder that holds both splits (Train_AFEW, Train, train_afew … and Val_AFEW, Val …), or one above it:
  Train_AFEW/Angry/013736360.avi …       Angry Disgust Fear Happy Neutral Sad Surprise
  Val_AFEW/Angry/…
only with options: {use: crops}, the aligned faces that come with AFEW:
  Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/013736360/000.jpg …
  Val_AFEW/AlignedFaces_LBPTOP_Points_Val/Faces/…"""
ARCHIVE = "AlignedFaces_LBPTOP_Points"
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Options:
    """``use``: videos, or crops for the aligned faces that come with AFEW (then extract: {faces: given})."""

    use: Literal["videos", "crops"] = "videos"


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List the clips of both splits; the folder names the label. Test clips carry none and are left out.

    Raises CeflError when crops are asked for and there are none.
    """
    found = scan_splits(root, _split_of, labels)
    return _crops_instead(root, found) if options.use == "crops" and found.entries else found


def _split_of(name: str) -> str | None:
    return _SPLITS.get(re.sub(r"[\W_]*(afew|emotiw)[\W_]*[\d.]*|[\W_]+$", "", name.lower()))


def _crops_instead(root: Path, found: ScanResult) -> ScanResult:
    homes = _crop_homes(root)
    if not homes:
        raise CeflError(
            f"{root}: no folder {ARCHIVE}…/Faces below it; unpack the zip files of that name in "
            "Train_AFEW and Val_AFEW, or take the videos with options: {use: videos}"
        )
    crops = ScanResult(skipped=found.skipped, notes=found.notes)
    named: set[Path] = set()
    for row in found.entries:
        video = root / row.path
        places = [home / video.stem for home in homes.get(row.split, [])]
        # where there is none, the clip stays listed with the place where its faces should be, so that it counts as an error
        folder = next(filter(Path.is_dir, places), (places or [video.parents[1] / ARCHIVE / "Faces" / video.stem])[0])
        if not folder.is_dir() or not has_image(folder):
            crops.missing.append(f"{row.id}: no aligned faces")
        named.add(folder)
        crops.add(replace(row, path=relative_posix(folder, root)))
    for folder in (home / name for split in homes.values() for home in split for name in list_folder(home).folders):
        if folder not in named:
            crops.skip(
                relative_posix(folder, root), "aligned faces of no clip in the folders of expressions, so no label"
            )
    return crops


def _crop_homes(root: Path) -> dict[str, list[Path]]:
    """Return the Faces/ folders by split: as their archive's name says, else as the folder above it does."""
    homes: dict[str, list[Path]] = {}
    for home in find_folders(root, lambda folder, inside: folder.name.lower() == "faces" and bool(inside.folders)):
        above = [part.name.lower() for part in home.parents if part.is_relative_to(root)]
        archive = next((name for name in above if name.startswith(ARCHIVE.lower())), "")
        split = next((s for s in ("val", "test") if s in archive), None)
        split = split or next((s for name in above if (s := _split_of(name))), "train")
        homes.setdefault(split, []).append(home)
    return homes
