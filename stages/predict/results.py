"""Result files of predict, those of each video as soon as it is predicted, and a CSV of all; finished videos are skipped."""

from __future__ import annotations

import hashlib
import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...cache.atomic import remove_stale_tmp, safe_name, sha256_of
from ...cache.code_hash import code_hash
from ...cache.errors import CeflError
from ...cache.ownership import (
    check_disk_space,
    check_files,
    is_recorded,
    write_owned,
    write_owned_json,
    write_owned_text,
)
from ..extract.extract_config import ExtractConfig
from ..heads.run_io import SUMS_FILE, Run
from ..manifest.files import IMAGE_EXTENSIONS
from .formats.output_formats import DEFAULT_FORMATS, FRAMES_CSV, OVERLAY, Part, for_track, parts_of
from .formats.page import PAGE
from .formats.tabular import read_frames
from .formats.video_result import VideoResult
from .outputs import LocatedFaces, from_record, to_dict, to_frame
from .predict import NO_PERSONS, FrameCounter, PersonOptions, VideoView, crop_align
from .prediction import Prediction

RESULT_SUFFIX = ".cefl"
"""Between the name of a video and the ending of its files, so that none of them is a video of the same name."""
MAX_STEM_BYTES = 150
RESULT_BYTES = 400_000
"""Free room that the timeline and the tables of a video need, about, besides the numbers of its frames."""
NUMBER_BYTES = 20
"""Of a number with all its digits in a table."""
NUM_COLUMNS = 24
"""Of the table of frames, besides the probabilities."""
ROW_BYTES = 1_000
"""Of a face track in the CSV of all videos, about."""
WRITE_INTERVAL = 1.0
"""Seconds between two writes of the CSV of all videos."""

NAMED = ("person", "name", "naming")
"""What names change of a result."""

Record = dict[str, Any]


def prediction_code() -> str:
    """Return the hash of the code of predictions, and of the page that it fills in, that this process has loaded."""
    return hashlib.sha256(f"{code_hash('stages/predict/results.py')}\n{PAGE}".encode()).hexdigest()[:16]


prediction_code()  # now: a file may be edited while a process that has loaded it runs


def output_stems(videos: Sequence[Path]) -> dict[Path, str]:
    """Return a file name without extension for each video.

    It is its own, or has a hash of its path if several have the same (also in other case) or if it is very long.
    """
    stems = {video: video.stem if video.suffix else video.name for video in videos}
    counts = Counter(_folded(stem) for stem in stems.values())
    return {
        video: stem
        if counts[_folded(stem)] == 1 and len(os.fsencode(stem)) <= MAX_STEM_BYTES
        else safe_name(str(video))
        for video, stem in stems.items()
    }


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def is_result_video(path: Path) -> bool:
    """Return whether a video has the name of an overlay video."""
    return path.name.endswith(f"{RESULT_SUFFIX}.mp4")


@dataclass(frozen=True)
class PredictOptions:
    """What decides the results of a video, besides the video."""

    run: Run
    config: ExtractConfig
    view: VideoView
    all_faces: bool = False
    calibration: bool = True
    persons: PersonOptions = NO_PERSONS

    def fingerprint(self, video: Path) -> str:
        """Return 32 hex digits that change whenever the results of this video would, but for names; '' if it cannot be read."""
        try:
            source = sha256_of(video, IMAGE_EXTENSIONS)
        except OSError:
            return ""
        values = {
            "source": source,
            "name": video.name,
            "run": sha256_of(self.run.path / SUMS_FILE),
            "config": self.config.model_dump(mode="json", exclude={"encoder"}),
            "view": asdict(self.view),
            "all_faces": self.all_faces,
            "calibration": self.calibration,
            "persons": self.persons.fingerprint(),
            "code": prediction_code(),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:32]


class ResultFolder:
    """A folder with NAME.cefl.json (a list of ``to_dict``), NAME.cefl.csv and the files of ``formats`` of every video NAME.

    A timeline of a face track with a number is NAME.cefl.track1.png and so on. From the JSON and the CSV, which every video
    has, the files of another format are made without predicting again.
    """

    def __init__(
        self, folder: Path, videos: Sequence[Path], options: PredictOptions, formats: Sequence[str] = DEFAULT_FORMATS
    ) -> None:
        self._folder, self._videos, self._options = folder, videos, options
        self._parts, self._overlay = parts_of(formats), OVERLAY in formats
        self._stems = output_stems(videos)
        self._renamed: set[Path] = set()
        self._existing: dict[str, list[str]] = {}
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            stem, separator, _ = name.rpartition(f"{RESULT_SUFFIX}.")
            if separator:
                self._existing.setdefault(stem, []).append(name)

    def for_video(self, video: Path) -> ResultFolder:
        """Return the same folder for one of its videos, for the worker that predicts it."""
        other, stem = copy(self), self._stems[video]
        other._videos, other._stems = [video], {video: stem}
        other._existing = {stem: self._existing.get(stem, [])}
        return other

    def check(self, inputs: Iterable[Path], *, force: bool) -> str:
        """Check before work begins that all files may and can be written; see ownership.check_files."""
        paths: dict[Path, None] = {}
        for stem in self._stems.values():
            written = [self._json(stem), *(self._path(stem, part) for part in self._parts if not part.per_track)]
            paths |= dict.fromkeys(written)
            endings = tuple(part.suffix for part in self._parts if part.per_track)
            paths |= {self._folder / name: None for name in self._existing.get(stem, ()) if name.endswith(endings)}
        return check_files(list(paths), "--out", inputs=inputs, force=force)

    def check_disk_space(self, videos: Sequence[Path], num_frames: int) -> None:
        """Raise CeflError if the disk has no room for the results of these videos, which have so many frames in all.

        An overlay video is about as large as the video, and of several faces each has its tables: here it counts as one.
        """
        numbers = num_frames * (len(self._options.run.labels) + NUM_COLUMNS)
        overlays = sum(map(_source_bytes, videos)) if self._overlay else 0
        required = RESULT_BYTES * len(videos) + NUMBER_BYTES * numbers * len(self._parts) + overlays
        check_disk_space(self._folder, "--out", required)

    def finished(self, video: Path, *, read_only: bool = False) -> list[Record] | None:
        """Return the results of a video if its JSON and its CSV are there, unchanged, and of this video and these options.

        Videos without a prediction are tried again. If other names were given, the results have these, and all files of the
        video are ``missing``. ``read_only``: write nothing, not even the path in the JSON if it is another one.
        """
        stem = self._stems[video]
        path = self._json(stem)
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
            fingerprints = {record.pop("fingerprint") for record in records}
            failed = any(record["failure"] for record in records)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if failed or not all(map(_is_intact, (path, self._path(stem, FRAMES_CSV)))):
            return None
        if fingerprints != {self._options.fingerprint(video)}:
            return None
        if any(record["path"] != str(video) for record in records):  # the same video by another path
            for record in records:
                record["path"] = str(video)
            if not read_only:
                self._write_json(stem, records, fingerprints.pop())
        return self._with_names(video, records)

    def _with_names(self, video: Path, records: list[Record]) -> list[Record]:
        """Return the results of a finished video with the names that are given now."""
        if not self._options.persons.names.of(video) and not any(record["name"] for record in records):
            return records
        named = self._options.persons.named(video, self._predictions(video, records))
        if all(
            all(record[key] == getattr(each, key) for key in NAMED) for record, each in zip(records, named, strict=True)
        ):
            return records
        self._renamed.add(video)
        return [to_dict(each, self._options.run.labels) for each in named]

    def missing(self, video: Path, records: Sequence[Record]) -> list[Part]:
        """Return the files that a finished video should have and has not, or not as they were written."""
        stem = self._stems[video]
        if video in self._renamed:
            return list(self._parts)
        tracks = [record["track"] for record in records]
        return [
            part
            for part in self._parts
            if not all(
                _is_intact(self._path(stem, part, track)) for track in (tracks if part.per_track else tracks[:1])
            )
        ]

    def complete(
        self, video: Path, records: Sequence[Record], missing: Sequence[Part], counter: FrameCounter | None = None
    ) -> None:
        """Write the ``missing`` files of a finished video from its JSON and its CSV, and the JSON last if names changed.

        Raises CeflError if the video has to be read for that and cannot be any more.
        """
        if not missing:
            return
        self._write_parts(video, self._predictions(video, records), missing, counter)
        if video in self._renamed:
            self._write_json(self._stems[video], records, self._options.fingerprint(video))

    def _predictions(self, video: Path, records: Sequence[Record]) -> list[Prediction]:
        """Return the predictions of a finished video from its JSON and its CSV."""
        table = read_frames(self._path(self._stems[video], FRAMES_CSV))
        labels = self._options.run.labels
        return [from_record(record, table[table["track"] == record["track"]], labels) for record in records]

    def write(
        self, video: Path, results: Sequence[Prediction], fingerprint: str, counter: FrameCounter | None = None
    ) -> None:
        """Write the files of a video, the JSON last; ``counter`` counts frames of the overlay video.

        ``fingerprint``: that of the video before it was read. Raises CeflError if the overlay video cannot be drawn.
        """
        stem = self._stems[video]
        records = [to_dict(result, self._options.run.labels) for result in results]
        self._json(stem).unlink(missing_ok=True)  # without it the other files do not count as finished
        predictions = [result for result in results if not result.failure]
        written = self._write_parts(video, predictions, self._parts, counter) if predictions else []
        for name in self._existing.get(stem, ()):  # of faces that are no longer there, or of earlier results
            path = self._folder / name
            if path not in written and path.is_file() and is_recorded(path):
                path.unlink()
        self._write_json(stem, records, fingerprint)

    def _write_parts(
        self, video: Path, predictions: Sequence[Prediction], parts: Sequence[Part], counter: FrameCounter | None
    ) -> list[Path]:
        """Write files of a video and return their paths."""
        options, stem, written = self._options, self._stems[video], []
        align = crop_align(options.config)
        located = LocatedFaces(predictions, align, options.view)
        result = VideoResult(video, predictions, options.run.labels, align, options.view, counter, located)
        for part in parts:
            for track in [prediction.track for prediction in predictions] if part.per_track else [0]:
                target = self._path(stem, part, track)
                with write_owned(target) as temporary:
                    part.write(for_track(result, track) if part.per_track else result, temporary, target)
                written.append(target)
        return written

    def _write_json(self, stem: str, records: Sequence[Record], fingerprint: str) -> None:
        write_owned_json(self._json(stem), [record | {"fingerprint": fingerprint} for record in records])

    def _path(self, stem: str, part: Part, track: int = 0) -> Path:
        numbered = f".track{track}" if part.per_track and track else ""
        return self._folder / f"{stem}{RESULT_SUFFIX}{numbered}{part.suffix}"

    def _json(self, stem: str) -> Path:
        return self._folder / f"{stem}{RESULT_SUFFIX}.json"


def _is_intact(path: Path) -> bool:
    """Return whether a file is there as ceflpipe wrote it."""
    return path.is_file() and is_recorded(path)


class ResultTable:
    """The CSV of all videos, written again as results come: after a kill it has those of a second before, all of them whole.

    Rows are in the order of the videos, in whichever order these are finished.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._records: dict[int, list[Record]] = {}
        self._path, self._labels = path, labels
        self._next, self._changed = time.monotonic() + WRITE_INTERVAL, False

    def add(self, number: int, records: list[Record]) -> None:
        """Add the results of the video of this number."""
        self._records[number] = records
        self._changed = True
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write what has been added since the last time."""
        if not self._changed:
            return
        started = time.monotonic()
        remove_stale_tmp(self._path)
        records = [record for number in sorted(self._records) for record in self._records[number]]
        write_owned_text(self._path, to_frame(records, self._labels).to_csv(index=False))
        self._changed = False
        # at most a twentieth of the time goes into writing, however many rows there are
        self._next = time.monotonic() + max(WRITE_INTERVAL, 20 * (time.monotonic() - started))


def _source_bytes(video: Path) -> int:
    """Return the size of a video file, or of the files in a folder of images; 0 if there is none."""
    files = video.iterdir() if video.is_dir() else [video]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_outside_videos(target: Path, videos: Sequence[Path], option: str) -> None:
    """Raise CeflError if a file in the folder ``target`` would become a frame of a video that is a folder of images."""
    real = Path(os.path.realpath(target))
    for video in videos:
        if video.is_dir() and real.is_relative_to(os.path.realpath(video)):
            raise CeflError(
                f"{target}: is in the folder of images {video}, an input of this command; give {option} another path"
            )
