"""DFEW: film clips known by a number; five official folds; the videos, or the aligned faces that come with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError
from ..annotations import add_listed_videos, find_fold_lists, index_crops_by_number, index_videos_by_number, read_folds
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of DFEW (DFEW-part2), or one above it:
  EmoLabel_DataSplit/train(single-labeled)/set_1.csv … set_5.csv
  EmoLabel_DataSplit/test(single-labeled)/set_1.csv …      (train_set_1.csv and other spellings will do)
  Clip/original/….mp4                 the videos, also in folders below, numbers padded or not
only with options: {use: crops}:
  Clip/clip_224x224/00001/*.jpg       (also jpg_256, clip_jpg_256; options.crops names another)"""
FOLDS = 5
CROPS = ("clip_224x224", "jpg_256", "clip_jpg_256", "clip_224x224_avi")
_SIXTEEN = "clip_224x224_16f"


@dataclass(frozen=True)
class Options:
    """``use``: videos, or crops (then extract: {faces: given}). ``crops``: the folder of the crops, e.g.
    clip_224x224_16f; empty for the usual ones. ``emotions``: label by the code of the lists."""

    use: Literal["videos", "crops"] = "videos"
    crops: str = ""
    emotions: dict[int, str] = field(
        default_factory=lambda: {
            1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust", 7: "fear"
        }
    )  # fmt: skip


def scan(root: Path, labels: tuple[str, ...], options: Options) -> ScanResult:
    """List every clip of the official lists; one whose file is not there stays listed, as a clip that fails.

    Raises CeflError when there are no lists, or their labels are counted from 0.
    """
    found = ScanResult()
    lists = find_fold_lists(root, (".csv", ".txt"), lambda path: "multi" not in path)
    if not lists:
        raise CeflError(
            f"{root}: no lists of the five folds below it (EmoLabel_DataSplit/test(single-labeled)/set_1.csv …); they "
            f"come with DFEW and hold the labels; expected\n{LAYOUT}"
        )
    seen: set[str] = set()

    def label_of_code(word: str) -> str | None:
        seen.add(word)
        return options.emotions.get(int(word)) if word.isdecimal() else label_of(word, labels)

    clips = read_folds(root, lists, FOLDS, label_of_code, found)
    if "0" in seen and str(max(options.emotions)) not in seen:
        raise CeflError(
            f"{root}: the lists' labels run from 0; DFEW's own run from 1 to 7, so these have been renumbered"
        )
    if options.use == "crops":
        names = (options.crops,) if options.crops else CROPS
        home, files = index_crops_by_number(root, names)
        if home is None:
            raise CeflError(f"{root}: no folder of crops below it; looked for {', '.join(names)}")
        found.notes.append(f"crops are taken from {relative_posix(home, root)}")
        place = f"{relative_posix(home, root)}/{{:05d}}"
    else:
        files, place = index_videos_by_number(root, (*CROPS, _SIXTEEN)), "Clip/original/{:05d}.mp4"
    add_listed_videos(root, clips, files, place, labels, found)
    return found
