"""Overlay video: box, landmarks, label and intensity drawn into each frame, as mp4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from ...cache.atomic import atomic_write
from ...cache.errors import CeflError
from ...cache.features import FrameStatus
from ..extract.video_reader import DecodeError, open_video
from ..plots.style import QUALITATIVE
from .outputs import frame_table
from .predict import TrackedPrediction

MIN_SIDE = 480
"""Pixels of the shorter side; smaller videos are enlarged so that words can be read on them."""
MAX_INTENSITY_ROWS = 4
"""Rows of intensity under the picture; further people have their boxes only."""
ORANGE, WHITE, DARK, GREY = (232, 89, 12), (255, 255, 255), (24, 27, 34), (150, 156, 170)


def write_overlay_video(
    path: Path,
    results: Sequence[TrackedPrediction],
    labels: Sequence[str],
    out: Path,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Write ``out``, the video without its sound, with every person's box, landmarks, label and intensity drawn in.

    Frames stream through one by one. Raises CeflError where OpenCV cannot write mp4 or the video can no longer be read.
    """
    people = [_FaceOverlay(result, labels) for result in results if not result.prediction.failure]
    video = open_video(path)
    writer: _OverlayWriter | None = None
    with atomic_write(out.with_suffix(".mp4")) as temporary:
        moving = temporary.with_suffix(".mp4")
        try:
            for number, picture in enumerate(video.frames()):
                writer = writer or _OverlayWriter(moving, video.fps, picture.shape, people)
                writer.write(picture, number)
                on_frame()
            if writer is None:
                raise CeflError(f"{path}: no frame can be decoded")
            writer.close()
            moving.rename(temporary)
        except DecodeError as reason:
            raise CeflError(f"{path}: {reason}") from None
        finally:
            moving.unlink(missing_ok=True)


class _FaceOverlay:
    """What to draw of one person in each frame of the file."""

    def __init__(self, result: TrackedPrediction, labels: Sequence[str]) -> None:
        self.prediction, self.track = result.prediction, result.track
        self._frames: pd.DataFrame = frame_table(self.prediction, labels)
        shares = self._frames[[f"p_{label}" for label in labels]].to_numpy()
        known = np.isfinite(shares).all(axis=1)
        leading = np.where(known, np.nan_to_num(shares).argmax(axis=1), -1)
        self.words = [
            "" if best < 0 else f"{labels[best]} {100 * shares[i, best]:.0f} %" for i, best in enumerate(leading)
        ]
        self.intensity = np.nan_to_num(self._frames["intensity"].to_numpy())
        highest = self.intensity.max() if len(self.intensity) else 0.0
        self.height = self.intensity / highest if highest else self.intensity
        person = self.prediction.person
        self.colour = _rgb(QUALITATIVE[(person - 1) % len(QUALITATIVE)]) if person else ORANGE
        self.quiet = self.colour if person else GREY
        self.name = f"{person}: " if person else ""

    def at(self, number: int) -> int | None:
        """Return the person's own frame for a frame of the file, None where they are not there."""
        place = number - self.track.first_frame
        return place if 0 <= place < len(self.words) else None


class _OverlayWriter:
    """Draws frames and hands them to OpenCV; a footer under the picture has the intensity of all the time."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...], people: Sequence[_FaceOverlay]) -> None:
        self._people = people
        self._zoom = max(1.0, MIN_SIDE / min(shape[:2]))
        # most encoders want even sides
        self._width, self._height = (2 * round(side * self._zoom / 2) for side in (shape[1], shape[0]))
        self._unit = max(12, min(self._width, self._height) // 28)
        self._font = ImageFont.load_default(self._unit)
        mapped = [person for person in people if person.intensity.any()]
        self._total = max([1, *(person.track.first_frame + len(person.words) for person in people)])
        self._footers = [self._footer(person) for person in mapped[:MAX_INTENSITY_ROWS]]
        self._row = 2 * self._unit
        size = (self._width, self._height + self._row * len(self._footers))
        self._video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._video.isOpened():
            raise CeflError(f"{path.parent}: OpenCV cannot write mp4 here; leave out --render")

    def write(self, picture: np.ndarray, number: int) -> None:
        canvas = np.ascontiguousarray(cv2.resize(picture, (self._width, self._height), interpolation=cv2.INTER_LINEAR))
        line = max(1, self._unit // 8)
        tags = []
        for person in self._people:
            place = person.at(number)
            if place is None or not np.isfinite(person.track.box[place]).all():
                continue
            sure = person.track.frame_status[place] == FrameStatus.DETECTED
            box = (person.track.box[place] * self._zoom).round().astype(int)
            cv2.rectangle(
                canvas,
                tuple(box[:2].tolist()),
                tuple(box[2:].tolist()),
                person.colour,
                line if sure else 1,
                cv2.LINE_AA,
            )
            for point in person.track.landmarks[place]:
                if np.isfinite(point).all():
                    cv2.circle(
                        canvas,
                        tuple((point * self._zoom).round().astype(int).tolist()),
                        line + 1,
                        WHITE,
                        -1,
                        cv2.LINE_AA,
                    )
            tags.append(
                (
                    box,
                    f"{person.name}{person.words[place]}" if person.words[place] else f"{person.name}?",
                    person.colour,
                )
            )
        frame = self._with_tags(canvas, tags)
        rows = [self._with_playhead(footer, number) for footer in self._footers]
        self._video.write(np.ascontiguousarray(np.vstack([frame, *rows])[:, :, ::-1]))

    def close(self) -> None:
        self._video.release()

    def _with_tags(self, canvas: np.ndarray, tags: list[tuple[np.ndarray, str, tuple[int, ...]]]) -> np.ndarray:
        image = Image.fromarray(canvas)
        draw = ImageDraw.Draw(image)
        for box, words, colour in tags:
            left, top, right, bottom = draw.textbbox((0, 0), words, font=self._font)
            pad = self._unit // 4
            wide, tall = right - left + 2 * pad, bottom - top + 2 * pad
            x = min(max(0, int(box[0])), max(0, self._width - wide))
            y = int(box[1]) - tall if box[1] >= tall else min(int(box[3]), self._height - tall)
            draw.rectangle((x, y, x + wide, y + tall), fill=colour)
            draw.text(
                (x + pad - left, y + pad - top), words, font=self._font, fill=DARK if _is_light(colour) else WHITE
            )
        return np.asarray(image)

    def _footer(self, person: _FaceOverlay) -> np.ndarray:
        """Return the row (2 units, width, 3) of a person's intensity over all the time, the located clip in orange."""
        row = np.full((2 * self._unit, self._width, 3), DARK, np.uint8)
        frames = (np.arange(self._width) * self._total // self._width) - person.track.first_frame
        there = (frames >= 0) & (frames < len(person.words))
        fps = person.prediction.fps or 25.0
        for x in np.flatnonzero(there):
            tall = round(float(person.height[frames[x]]) * (row.shape[0] - 4))
            second = (frames[x] + person.track.first_frame) / fps
            located = person.prediction.located
            inside = located is not None and located[0] <= second < located[1]
            row[row.shape[0] - tall :, x] = ORANGE if inside else person.quiet
        return row

    def _with_playhead(self, footer: np.ndarray, number: int) -> np.ndarray:
        row = footer.copy()
        x = min(self._width - 2, number * self._width // self._total)
        row[:, x : x + 2] = WHITE
        return row


def _is_light(colour: tuple[int, ...]) -> bool:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 150


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
