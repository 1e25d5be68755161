"""Where do the files of videos lie that are known by a number alone, padded with zeros or not?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .scan import Scan, relative
from .table import Row
from .walk import VIDEO_ENDINGS, find_files, has_image, listing, search

TWICE = "a second file of a video that is listed already"


def numbered_files(root: Path, passed_over: Sequence[str] = ()) -> dict[int, list[Path]]:
    """Return the video files below ``root`` by number; those in folders of the names ``passed_over`` do not count."""
    names = {name.lower() for name in passed_over}
    files: dict[int, list[Path]] = {}
    for file in find_files(root, VIDEO_ENDINGS):
        above = {part.lower() for part in file.relative_to(root).parts[:-1]} if names else set()
        if file.stem.isdecimal() and not names & above:
            files.setdefault(int(file.stem), []).append(file)
    return files


def numbered_folders(root: Path, names: Sequence[str]) -> tuple[Path | None, dict[int, list[Path]]]:
    """Return the first folder of one of the ``names`` that holds crops, and the crops of each video by its number.

    The crops of a video are a folder of pictures, or in some copies a video file.
    """
    for name in names:
        for home in search(root, lambda folder, inside, name=name: folder.name.lower() == name.lower()):
            holders = search(home, lambda folder, inside: any(inner.isdecimal() for inner in inside.folders))
            found: dict[int, list[Path]] = {}
            for holder in holders:
                for inner in listing(holder).folders:
                    if inner.isdecimal() and has_image(holder / inner):
                        found.setdefault(int(inner), []).append(holder / inner)
            found = found or numbered_files(home)
            if found:
                return (holders[0] if holders else home), found
    return None, {}


def list_numbered(
    root: Path,
    listed: Mapping[int, tuple[str, str]],
    files: Mapping[int, list[Path]],
    place: str,
    labels: tuple[str, ...],
    found: Scan,
) -> None:
    """Add a row for every video of the lists (label and fold by number), whether its file is there or not.

    ``place`` is where the file should be when it is not there, e.g. clips/{:05d}.mp4: a video that is missing stays in
    the manifest, so that it counts as an error instead of vanishing from the score.
    """
    for number, (label, fold) in listed.items():
        there = files.get(number)
        path = relative(there[0], root) if there else place.format(number)
        if found.add(Row(f"{number:05d}", path, label, fold=fold), labels) and not there:
            found.missing.append(f"{number:05d} ({path})")
    for number in sorted(files):
        first, *others = files[number]
        if number not in listed:
            found.leave_out(
                relative(first, root), "in none of the lists of folds, which hold the videos with a single label"
            )
        for other in others:
            found.leave_out(relative(other, root), TWICE)
