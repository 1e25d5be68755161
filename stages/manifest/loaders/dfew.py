"""DFEW: film clips known by number, with five official folds; the videos, or their aligned faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....cache.errors import CeflError
from ..annotations import add_listed_videos, find_fold_lists, index_crops_by_number, index_videos_by_number, read_folds
from ..scan import ScanResult, label_of, relative_posix

LAYOUT = """the folder of DFEW (DFEW-part2), or its parent:
  EmoLabel_DataSplit/train(single-labeled)/set_1.csv … set_5.csv
  EmoLabel_DataSplit/test(single-labeled)/set_1.csv …      (other spellings are accepted, e.g. train_set_1.csv)
  Clip/original/….mp4                 the videos, also in subfolders, with or without leading zeros
only with extract: {input: crops}:
  Clip/clip_224x224/00001/*.jpg       (also jpg_256, clip_jpg_256; options.crop_folder names another)"""
EMOTIONS = {1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust", 7: "fear"}
NUM_FOLDS = 5
CROP_FOLDERS = ("clip_224x224", "jpg_256", "clip_jpg_256", "clip_224x224_avi")
_SIXTEEN_FRAMES = "clip_224x224_16f"


@dataclass(frozen=True)
class Options:
    """``crop_folder``: the folder of the crops, e.g. clip_224x224_16f; empty for the usual ones. ``emotions``: label by the
    code of the lists."""

    crop_folder: str = ""
    emotions: dict[int, str] = field(default_factory=EMOTIONS.copy)


def scan(root: Path, labels: tuple[str, ...], options: Options, input: Literal["video", "crops"]) -> ScanResult:
    """List every clip of the official lists; one without a file stays listed and counts as a failed clip.

    ``input``: the videos, or the aligned faces of DFEW. Raises CeflError if there are no lists or no crops, or if the labels
    of the lists are numbered from 0.
    """
    result = ScanResult()
    lists = find_fold_lists(root, (".csv", ".txt"), lambda path: "multi" not in path)
    if not lists:
        raise CeflError(
            f"{root}: no lists of the five folds below it (EmoLabel_DataSplit/test(single-labeled)/set_1.csv …); they "
            f"are distributed with DFEW and contain the labels; expected\n{LAYOUT}"
        )
    codes: set[str] = set()

    def label_of_code(code: str) -> str | None:
        codes.add(code)
        return options.emotions.get(int(code)) if code.isdecimal() else label_of(code, labels)

    clips = read_folds(root, lists, NUM_FOLDS, label_of_code, result)
    if "0" in codes and str(max(options.emotions)) not in codes:
        raise CeflError(
            f"{root}: the labels of the lists are numbered from 0, those of DFEW from 1 to 7; use the original lists, "
            "or set options.emotions in configs/dfew.yaml"
        )
    if input == "crops":
        names = (options.crop_folder,) if options.crop_folder else CROP_FOLDERS
        folder, files = index_crops_by_number(root, names)
        if folder is None:
            raise CeflError(
                f"{root}: no folder of crops below it; searched for {', '.join(names)}; "
                "set another name with options.crop_folder in configs/dfew.yaml"
            )
        result.notes.append(f"crops are read from {relative_posix(folder, root)}")
        expected_path = f"{relative_posix(folder, root)}/{{:05d}}"
    else:
        files = index_videos_by_number(root, (*CROP_FOLDERS, _SIXTEEN_FRAMES))
        expected_path = "Clip/original/{:05d}.mp4"
    add_listed_videos(result, root, clips, files, expected_path=expected_path, labels=labels)
    return result
