"""Overlay video: box, landmarks, label and intensity drawn into each frame, as mp4 with the times of the video."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

from ...cache.errors import CeflError
from ...cache.features import FrameStatus
from ..extract.video_reader import DecodeError, open_video
from ..plots.style import QUALITATIVE
from .person_names import one_line
from .predict import DEFAULT_VIEW, FrameCounter, VideoView
from .prediction import Prediction, frame_table, leading_labels
from .sound import SoundTrack

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""The first one that this FFmpeg has: two of H.264, and MPEG-4 part 2, which few browsers play."""
MAX_INTENSITY_ROWS = 4
"""Rows of intensity below the frame; further persons have boxes only."""
X264_OPTIONS = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
"""The same frames give the same bytes: x264's macroblock tree rounds differently from call to call, and more threads cut frames
into more slices."""
TICKS = 90_000
"""Ticks per second of the written times."""
ORANGE, WHITE, DARK, GRAY = (232, 89, 12), (255, 255, 255), (24, 27, 34), (150, 156, 170)

Color = tuple[int, ...]


def write_overlay_video(
    path: Path,
    predictions: Sequence[Prediction],
    out: Path,
    view: VideoView = DEFAULT_VIEW,
    counter: FrameCounter | None = None,
) -> None:
    """Write ``out``, the video with its sound, with box, landmarks, label and intensity of every face track drawn in.

    The picture keeps its size, but for a column or row that is doubled where a side is odd; the intensity is below it. Frames
    are streamed; ``counter`` counts them. Raises CeflError if FFmpeg cannot write mp4 or the video can no longer be read.
    """
    faces = [FaceOverlay(prediction) for prediction in predictions]
    writer: OverlayWriter | None = None
    with out.open("wb") as file:
        try:
            rotation = predictions[0].rotation if predictions else ""
            reader = open_video(path, rotation, view.region, view.fps)
            for number, (image, time) in enumerate(reader.frames()):
                writer = writer or OverlayWriter(file, path, reader.fps, image.shape, faces)
                writer.write(image, number, time)
                if counter:
                    counter.advance(f"drawing {path.name}")
        except DecodeError as error:
            raise CeflError(f"{path}: {error}") from None
        if writer is None:
            raise CeflError(f"{path}: no frame can be decoded")
        writer.close()


class FaceOverlay:
    """Caption, color and intensity bars of one face track, by frame of the track."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction, self.track, labels = prediction, prediction.face, prediction.labels
        number = prediction.person_number if prediction.track else 0
        self.person = number
        prefix = f"{one_line(prediction.display_name)}: " if number else ""
        table = frame_table(self.prediction, labels)
        self.captions = [
            f"{prefix}?" if best < 0 else f"{prefix}{labels[best]} {100 * probability:.0f} %"
            for best, probability in zip(*leading_labels(table, labels), strict=True)
        ]
        intensity = np.nan_to_num(table["intensity"].to_numpy())
        peak = intensity.max() if len(intensity) else 0.0
        self.bars = intensity / peak if peak else intensity
        """Intensity (T,) in 0..1 of its peak; all zero for a head without an intensity map."""
        self.color: Color = _rgb(QUALITATIVE[(number - 1) % len(QUALITATIVE)]) if number else ORANGE
        self.bar_color: Color = self.color if number else GRAY

    def index_of(self, number: int) -> int | None:
        """Return the index in the track of a frame of the file, None if the face is not in it."""
        index = number - self.prediction.first_frame
        return index if 0 <= index < len(self.captions) and np.isfinite(self.track.box[index]).all() else None


class _Tag(NamedTuple):
    box: np.ndarray
    text: str
    color: Color


def overlay_encoder() -> str:
    """Return the encoder of overlay videos; raises CeflError if FFmpeg has none of ENCODERS."""
    for name in ENCODERS:
        try:
            return av.Codec(name, "w").name
        except (UnknownCodecError, ValueError):
            continue
    raise CeflError(f"FFmpeg has no encoder for overlay videos ({', '.join(ENCODERS)}); leave out --overlay")


def check_overlay() -> str:
    """Return what a user should know of overlay videos on this machine, '' if they are as usual; raises CeflError."""
    name = overlay_encoder()
    return (
        "FFmpeg has no H.264 here: overlay videos are MPEG-4, which few browsers play" if name == ENCODERS[-1] else ""
    )


class OverlayWriter:
    """Draws frames and encodes them; rows below the frame show the intensity over the whole video.

    A frame has the time that its prediction has; one in no track the time that the file gives, or ``fps`` after the last one.
    """

    def __init__(
        self, file: BinaryIO, video: Path, fps: float, shape: tuple[int, ...], faces: Sequence[FaceOverlay]
    ) -> None:
        self._faces, self._fps = faces, fps
        self._last_tick = -1
        self._width, self._height = (side + side % 2 for side in (shape[1], shape[0]))  # H.264 has even sides
        self._unit = max(14, min(self._width, self._height) // 20)
        self._font = ImageFont.load_default(self._unit)
        self._duration = max([1e-3, *(face.prediction.edges[-1] for face in faces)])
        by_person: dict[int, list[FaceOverlay]] = {}
        for face in (face for face in faces if face.bars.any()):
            by_person.setdefault(face.person, []).append(face)
        persons = [by_person[number] for number in sorted(by_person)]
        self._rows = [self._intensity_row(tracks) for tracks in persons[:MAX_INTENSITY_ROWS]]
        size = (self._width, self._height + 2 * self._unit * len(self._rows))
        try:
            self._container = av.open(file, "w", format="mp4")
            name = overlay_encoder()
            stream = self._container.add_stream(name, options=X264_OPTIONS if name == "libx264" else {})
            self._stream = cast(VideoStream, stream)
        except (FFmpegError, ValueError):
            raise CeflError(f"{file.name}: FFmpeg cannot write mp4 here; leave out --overlay") from None
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._sound = SoundTrack(video, self._container)

    def write(self, image: np.ndarray, number: int, time: float) -> None:
        """Draw frame ``number`` of the file, an image (H, W, 3) RGB that the file shows at ``time``, NaN if it does not say."""
        padding = (self._height - image.shape[0], self._width - image.shape[1])
        canvas = np.ascontiguousarray(np.pad(image, ((0, padding[0]), (0, padding[1]), (0, 0)), mode="edge"))
        thickness = max(2, self._unit // 8)
        tags = []
        for face in self._faces:
            index = face.index_of(number)
            if index is None:
                continue
            box = face.track.box[index].round().astype(int)
            corners = tuple(box[:2].tolist()), tuple(box[2:].tolist())
            detected = face.track.frame_status[index] == FrameStatus.DETECTED
            cv2.rectangle(canvas, *corners, face.color, thickness if detected else 1, cv2.LINE_AA)
            for point in face.track.landmarks[index]:
                if np.isfinite(point).all():
                    center = tuple(point.round().astype(int).tolist())
                    cv2.circle(canvas, center, thickness + 1, WHITE, -1, cv2.LINE_AA)
            tags.append(_Tag(box, face.captions[index], face.color))
        tick = max(self._last_tick + 1, self._tick_of(number, time))
        rows = [self._with_playhead(row, tick / TICKS) for row in self._rows]
        frame = av.VideoFrame.from_ndarray(np.vstack([self._with_tags(canvas, tags), *rows]), format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        self._last_tick = tick
        self._container.mux(self._stream.encode(frame))
        self._sound.write_until(tick / TICKS)

    def close(self) -> None:
        """Write the last frames and the sound to its end."""
        self._container.mux(self._stream.encode(None))
        self._sound.write_until(math.inf)
        self._sound.close()
        self._container.close()

    def _tick_of(self, number: int, time: float) -> int:
        for face in self._faces:
            index = number - face.prediction.first_frame
            if 0 <= index < face.prediction.num_frames:
                return round(face.prediction.edges[index] * TICKS)
        return round(time * TICKS) if np.isfinite(time) else self._last_tick + round(TICKS / self._fps)

    def _with_tags(self, canvas: np.ndarray, tags: Sequence[_Tag]) -> np.ndarray:
        image = Image.fromarray(canvas)
        draw = ImageDraw.Draw(image)
        pad = self._unit // 4
        for box, text, color in tags:
            left, top, right, bottom = draw.textbbox((0, 0), text, font=self._font)
            width, height = right - left + 2 * pad, bottom - top + 2 * pad
            x = min(max(0, int(box[0])), max(0, self._width - width))
            y = int(box[1]) - height if box[1] >= height else min(int(box[3]), self._height - height)
            draw.rectangle((x, y, x + width, y + height), fill=color)
            text_color = DARK if _is_light(color) else WHITE
            draw.text((x + pad - left, y + pad - top), text, font=self._font, fill=text_color)
        return np.asarray(image)

    def _intensity_row(self, tracks: Sequence[FaceOverlay]) -> np.ndarray:
        """Return the row (2 units, W, 3) of a person's intensity over the whole video, the located clips in orange."""
        row = np.full((2 * self._unit, self._width, 3), DARK, np.uint8)
        for face, x in itertools.product(tracks, range(self._width)):
            located, time = face.prediction.located_time, x * self._duration / self._width
            index = bisect_right(face.prediction.edges, time) - 1
            if not 0 <= index < len(face.bars):
                continue
            height = round(float(face.bars[index]) * (row.shape[0] - 4))
            inside = located is not None and located[0] <= time < located[1]
            row[row.shape[0] - height :, x] = ORANGE if inside else face.bar_color
        return row

    def _with_playhead(self, row: np.ndarray, time: float) -> np.ndarray:
        row = row.copy()
        x = min(self._width - 2, int(time * self._width / self._duration))
        row[:, x : x + 2] = WHITE
        return row


def _is_light(color: Color) -> bool:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 150


def _rgb(color: str) -> Color:
    """Return '#rrggbb' as (r, g, b)."""
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
