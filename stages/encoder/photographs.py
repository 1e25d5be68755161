"""Labelled face photographs on disk: FER+ in its own layout, a folder per expression, or a CSV."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import CeflError, shorten_list
from ..manifest.csv_table import CsvTable, read_csv_table
from ..manifest.files import IMAGE_EXTENSIONS, walk
from ..manifest.labels import KNOWN_LABELS, normalize_label, sort_labels
from ..manifest.scan import label_of_folders, relative_posix

FERPLUS_LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""Columns of votes in the order of FER+; those of unknown and not-a-face (NF) follow."""
FERPLUS_FILE, FERPLUS_SPLIT_FILE = "fer2013new.csv", "label.csv"
NUM_VOTE_COLUMNS = len(FERPLUS_LABELS) + 2
SPLIT_NAMES = {
    "train": "train", "training": "train", "fer2013train": "train", "val": "val", "valid": "val", "validation": "val",
    "fer2013valid": "val", "publictest": "val", "test": "test", "fer2013test": "test", "privatetest": "test",
}  # fmt: skip
"""Split by the usual names of its folder, or of its value in a CSV, in lower case."""
VAL_FRACTION = 0.1
"""Part of the training photographs that becomes the validation split if the data have none."""
LAYOUTS = (
    "FER+ (fer2013new.csv, or label.csv in a folder per split, with its images), a folder per expression (named by a whole word: "
    "angry, happy …), or a CSV with the columns path,label[,split]"
)


@dataclass(frozen=True)
class Photographs:
    """Photographs and what their annotators said.

    ``targets`` float32 (N, C): the distribution of the votes over ``labels``, each row sums to 1. ``splits``: train, val or test.
    ``notes``: what was left out, in words.
    """

    root: Path
    layout: str
    labels: tuple[str, ...]
    paths: list[Path]
    splits: np.ndarray
    targets: np.ndarray
    notes: list[str]

    def __len__(self) -> int:
        return len(self.paths)


def read_photographs(source: Path) -> Photographs:
    """Read the list of photographs in a folder, or in a CSV.

    If there is no validation split, VAL_FRACTION of the training photographs become it, by a hash of their names. Raises
    CeflError if the layout is not known, an image is missing, or fewer than two labels are there.

    FER+ prefers its files per split, which its authors' code trains and tests on: fer2013new.csv has other votes for 4 % of the
    images.
    """
    if source.is_file():
        photographs = _read_csv(source)
    elif not source.is_dir():
        raise CeflError(f"{source}: no such folder or CSV; give the folder of the photographs: {LAYOUTS}")
    else:
        files = [folder / name for folder, listing in walk(source) for name in listing.files]
        votes = [file for file in files if file.name.lower() == FERPLUS_FILE]
        split_votes = [file for file in files if file.name.lower() == FERPLUS_SPLIT_FILE]
        images = [file for file in files if file.name.lower().endswith(IMAGE_EXTENSIONS)]
        if not images:
            hint = ""
            if votes:
                hint = "; FER+ itself has labels only: write its images with generate_training_data.py of FERPlus"
            raise CeflError(f"{source}: no images in it or below it{hint}; expected {LAYOUTS}")
        if votes or split_votes:
            photographs = _read_ferplus(source, split_votes or votes[:1], images)
        else:
            photographs = _read_folders(source, images)
    present = {photographs.labels[i] for i in np.unique(photographs.targets.argmax(axis=1))}
    if len(present) < 2:
        raise CeflError(f"{source}: photographs of {len(present)} expressions; at least two are needed: {LAYOUTS}")
    return _with_val_split(photographs)


def ferplus_distribution(votes: np.ndarray, *, majority: bool) -> np.ndarray | None:
    """Return the label distribution (8,) of one photograph's votes (10,), or None if its annotators reject it.

    As in FER+ (Barsoum et al., ICMI 2016): labels with one vote are outliers; a photograph that most annotators call
    unknown, or not a face, is left out. ``majority``: one without a label that more than half of the votes name is left out
    too, as its authors do when they validate and test.

    >>> ferplus_distribution(np.array([4, 0, 0, 1, 3, 2, 0, 0, 0, 0]), majority=False).round(2).tolist()
    [0.44, 0.0, 0.0, 0.0, 0.33, 0.22, 0.0, 0.0]
    """
    votes = np.where(votes > 1, votes, 0)
    kept = votes[: len(FERPLUS_LABELS)]
    if not kept.any() or votes.argmax() >= len(FERPLUS_LABELS) or (majority and votes.max() * 2 <= votes.sum()):
        return None
    return kept / kept.sum()


def _read_ferplus(root: Path, files: Sequence[Path], images: Sequence[Path]) -> Photographs:
    by_name: dict[tuple[str, str], Path] = {}
    for path in images:
        by_name[_split_of(path.relative_to(root).parts[:-1]), path.name] = path
        by_name.setdefault(("", path.name), path)
    paths, splits, targets, rejected, missing = [], [], [], 0, []
    for name, split, votes, where in (row for file in files for row in _ferplus_rows(root, file)):
        if not name:  # not a face: FER+ has no image of it
            rejected += 1
            continue
        distribution = ferplus_distribution(votes, majority=split != "train")
        if distribution is None:
            rejected += 1
            continue
        path = by_name.get((split, name)) or by_name.get(("", name))
        if path is None:
            missing.append(f"{name} ({where})")
            continue
        paths.append(path)
        splits.append(split)
        targets.append(distribution)
    if missing:
        raise CeflError(
            f"{root}: {len(missing)} images of its label file are missing: {shorten_list(missing, 3)}; copy the folders "
            "FER2013Train, FER2013Valid and FER2013Test completely"
        )
    labels = sort_labels(set(FERPLUS_LABELS))
    order = [FERPLUS_LABELS.index(label) for label in labels]
    notes = [f"{rejected} photographs without a clear label left out (unknown, not a face, no majority)"]
    return Photographs(root, "FER+", labels, paths, np.array(splits), np.array(targets, np.float32)[:, order], notes)


def _ferplus_rows(root: Path, file: Path) -> Iterator[tuple[str, str, np.ndarray, str]]:
    """Yield (image name, split, votes (10,), place in the file) of each line of a label file of FER+."""
    per_split = file.name.lower() == FERPLUS_SPLIT_FILE
    split_of_file = _split_of(file.relative_to(root).parts[:-1]) or "train"
    text = file.read_text(encoding="utf-8-sig")
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        where = f"{file.name}, line {number}"
        if not per_split and number == 1:
            continue
        cells = row[-NUM_VOTE_COLUMNS:]
        if len(row) != NUM_VOTE_COLUMNS + 2 or not all(cell.strip().isdecimal() for cell in cells):
            raise CeflError(
                f"{file}: line {number}: expected an image, its box or split, and ten numbers of votes; found {','.join(row)}"
            )
        votes = np.array([int(cell) for cell in cells])
        split = split_of_file if per_split else SPLIT_NAMES.get(row[0].strip().lower(), "")
        if not split:
            raise CeflError(
                f"{file}: line {number}: unknown usage {row[0]}; expected Training, PublicTest or PrivateTest"
            )
        yield (row[0] if per_split else row[1]).strip(), split, votes, where


def _read_folders(root: Path, images: Sequence[Path]) -> Photographs:
    labels, splits, paths, unlabelled = [], [], [], []
    for path in images:
        folders = path.relative_to(root).parts[:-1]
        label = label_of_folders(folders, ())
        if label is None:
            unlabelled.append(path)
            continue
        labels.append(label)
        splits.append(_split_of(folders) or "train")
        paths.append(path)
    if not paths:
        names = sorted({path.relative_to(root).parts[0] for path in unlabelled if path.parent != root})
        listing = f"found {shorten_list(names, 8)}" if names else "no folders are in it"
        raise CeflError(
            f"{root}: no folder is named after an expression ({listing}); rename them (angry, happy …), or give a CSV with the "
            "columns path,label: numbers mean other labels in every data set"
        )
    notes = []
    if unlabelled:
        examples = shorten_list([relative_posix(path, root) for path in unlabelled], 3)
        notes.append(f"{len(unlabelled)} images in no folder of an expression left out: {examples}")
    return _one_hot(root, "a folder per expression", labels, splits, paths, notes)


def _read_csv(file: Path) -> Photographs:
    root = file.parent
    table = read_csv_table(file, ("label", "path", "split"), lambda name: (root / name).exists())
    if not {"label", "path"} <= set(table.columns):
        raise CeflError(f"{file}: columns {', '.join(table.columns)}; expected path,label[,split]")
    rows = list(_csv_rows(file, table))
    missing = [str(path) for path, _, _ in rows if not path.is_file()]
    if missing:
        raise CeflError(
            f"{file}: {len(missing)} images are not there: {shorten_list(missing, 3)}; paths are relative to {root}"
        )
    paths, labels, splits = zip(*rows, strict=True)
    return _one_hot(root, "CSV", labels, splits, paths, [])


def _csv_rows(file: Path, table: CsvTable) -> Iterator[tuple[Path, str, str]]:
    columns = (table.column("path"), table.column("label"), table.column("split"), table.lines)
    for path, text, split, line in zip(*columns, strict=True):
        label = normalize_label(text)
        if label is None:
            raise CeflError(f"{file}: line {line}: unknown label {text}; use {', '.join(KNOWN_LABELS)}")
        if split and split.lower() not in SPLIT_NAMES:
            raise CeflError(f"{file}: line {line}: unknown split {split}; use train, val or test, or leave it empty")
        yield file.parent / path.replace("\\", "/"), label, SPLIT_NAMES.get(split.lower(), "train")


def _one_hot(
    root: Path, layout: str, labels: Sequence[str], splits: Sequence[str], paths: Sequence[Path], notes: list[str]
) -> Photographs:
    names = sort_labels(set(labels))
    targets = np.eye(len(names), dtype=np.float32)[[names.index(label) for label in labels]]
    return Photographs(root, layout, names, list(paths), np.array(splits), targets, notes)


def _split_of(folders: Sequence[str]) -> str:
    return next((SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES), "")


def _with_val_split(photographs: Photographs) -> Photographs:
    splits = photographs.splits.astype("<U5")
    if not (splits == "train").any():
        raise CeflError(f"{photographs.root}: no photograph of a training split; found {', '.join(np.unique(splits))}")
    if (splits == "val").any():
        return photographs
    names = [relative_posix(path, photographs.root) if path.is_relative_to(photographs.root) else str(path)
             for path in photographs.paths]  # fmt: skip
    draws = np.array(
        [int(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8], 16) / 16**8 for name in names]
    )
    chosen = (splits == "train") & (draws < VAL_FRACTION)
    if not chosen.any():  # a handful of photographs
        chosen[np.flatnonzero(splits == "train")[:: round(1 / VAL_FRACTION)]] = True
    splits[chosen] = "val"
    notes = [
        *photographs.notes,
        f"no validation split: {chosen.sum()} of the training photographs, by a hash of their names",
    ]
    return Photographs(
        photographs.root, photographs.layout, photographs.labels, photographs.paths, splits, photographs.targets, notes
    )
