"""Video and image-folder reading with PyAV. The only module that decodes videos.

A video is read as a player shows it: the track that moves, frames in the order of their presentation times, upright (display
matrix), with square pixels, de-interlaced, in its own color range. OpenCV reads the images of folders and turns frames.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.logging
import cv2
import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from .hdr import HDR_NAMES, to_sdr
from .image_folder import (
    MAX_PIXELS,
    DecodeError,
    SystemReadError,
    check_size,
    image_files,
    os_errors_as_decode_errors,
    read_images,
)
from .interlacing import Deinterlacer
from .timestamps import DEFAULT_FPS, ContinuousTimes, ShownTimes, describe_jumps, is_plausible_fps

MAX_PIXEL_ASPECT = 8.0
"""Width to height of a pixel, or height to width, above which the container's value is not used."""
DECODER_THREADS = 1
"""Threads of a decoder. With more, damaged parts of a frame look otherwise, and not the same in every run; videos are decoded
side by side instead."""
MAX_DAMAGED_FRACTION = 0.05
"""Fraction (0..1) of damaged packets above which a video counts as truncated."""
MIN_UNUSED = 3
"""Packets before the first frame from which a remark says that they gave none: the two fields of a frame may be two packets."""
_BUFFER_BYTES = 1 << 18
_METADATA_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Text that is not UTF-8 does not stop the reading: from PyAV 19 on it never does, and the option is gone."""
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_HD_SIZE = (1280, 576)
"""Width and height from which, and above which, colors without a color space are BT.709, as in video players."""
_UNSPECIFIED_COLORSPACE = 2
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_TS_PACKET_SIZES = (188, 192, 204)
"""Bytes of a packet of MPEG-TS: plain, with a time code (.m2ts), with error correction."""
_DECODING_TIMES = {"avi", "asf", "mpegvideo"}
"""Formats whose packets have only the times at which they are decoded."""
_NO_INDEX = "moov atom not found"
_FILE_ENDS = re.compile(r"File ended prematurely|partial file", re.IGNORECASE)


def decoder_version() -> str:
    """Return what decides which videos can be decoded: PyAV, its FFmpeg, and a hash of the codecs built into that."""
    codecs = hashlib.sha256(" ".join(sorted(av.codecs_available)).encode()).hexdigest()[:6]
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}, codecs {codecs}"


class Frame(NamedTuple):
    """One frame: uint8 (H, W, 3) RGB, and its time in seconds from the start of the file, NaN if the file gives none."""

    image: np.ndarray
    time: float


@dataclass
class DecodeStats:
    """What a pass over a video found. Times in seconds from the start of the file.

    ``packets`` of the video track, or images of the folder; ``damaged``: packets and frames that the decoder could not use,
    which are left out; ``unused``: packets before the first frame that gave none, without an error; ``faulty``: packets and
    images with errors that the decoder concealed or passed over; ``end``: of the last packet; ``largest_gap`` between the
    times of two packets; ``interlaced``: frames marked so, which were de-interlaced; ``unmarked``: interlaced frames are
    marked progressive; ``jumps``: (time, seconds) of those of the timestamps; ``ends_early``: the file ends within a packet;
    ``hdr``: PQ or HLG, if its colors were converted from that.
    """

    packets: int = 0
    damaged: int = 0
    unused: int = 0
    faulty: int = 0
    end: float = 0.0
    largest_gap: float = 0.0
    interlaced: int = 0
    unmarked: bool = False
    jumps: list[tuple[float, float]] = field(default_factory=list)
    ends_early: bool = False
    hdr: str = ""


@dataclass
class VideoReader:
    """An open video.

    ``fps``: frames per second that the container declares, or that is assumed; the times of its frames are what counts.
    ``declared_frames``: frame count in the container's header or index, estimated if there is none, -1 if unknown.
    ``declared_end``: seconds from the start of the file at which the container says the video ends, NaN if it does not.
    ``stream_index``: the track that is read. ``note``: what was chosen or assumed, '' if nothing. ``stats``: of the last pass
    over the frames.
    """

    path: Path
    fps: float
    declared_frames: int
    rotation: int = 0
    region: tuple[int, int, int, int] | None = None
    declared_end: float = float("nan")
    stream_index: int = 0
    note: str = ""
    stats: DecodeStats = field(default_factory=DecodeStats)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in the order it is shown, after rotation and region.

        Raises DecodeError if an image cannot be read or a frame has more than MAX_PIXELS.
        """
        self.stats = DecodeStats()
        if self.path.is_dir():
            for number, (image, is_faulty) in enumerate(read_images(self.path)):
                self.stats.packets += 1
                self.stats.faulty += is_faulty
                yield Frame(self._apply_view(image), number / self.fps)
            return
        for image, time in _decode(self.path, self.stream_index, self.stats):
            yield Frame(self._apply_view(image), time)

    def truncation(self) -> str:
        """Return why the frames that the last pass gave are clearly not all of the video, '' if they are.

        Packets are missing if the last one ends before the container says, by more than the largest gap in between.
        """
        stats = self.stats
        if stats.damaged > max(1, MAX_DAMAGED_FRACTION * stats.packets):
            return f"{stats.damaged} of {stats.packets} packets are damaged and were left out"
        tolerance = max(stats.largest_gap, 5 / self.fps, 0.02 * self.declared_end)
        if stats.packets and stats.end < self.declared_end - tolerance:
            return f"its packets end at {stats.end:.2f} s of {self.declared_end:.2f} s"
        return ""

    def remarks(self) -> str:
        """Return what is to be known of the last pass besides its frames, '' if nothing."""
        parts = [self.note] if self.note else []
        stats, unit = self.stats, "images" if self.path.is_dir() else "packets"
        if stats.damaged:
            parts.append(f"{stats.damaged} of {stats.packets} packets are damaged and were left out")
        if stats.unused >= MIN_UNUSED:
            parts.append(
                f"the first {stats.unused} of {stats.packets} packets gave no frame: it begins between two key frames"
            )
        if stats.faulty:
            parts.append(f"errors in {stats.faulty} of {stats.packets} {unit}, concealed by the decoder")
        if stats.ends_early and not self.truncation():
            parts.append("the file ends within a packet: it may have been cut off")
        if stats.interlaced or stats.unmarked:
            parts.append("de-interlaced, though marked progressive" if stats.unmarked else "de-interlaced")
        if stats.jumps:
            parts.append(describe_jumps(stats.jumps))
        if stats.hdr:
            parts.append(f"HDR ({stats.hdr}) converted to ordinary colors")
        return "; ".join(parts)

    def _apply_view(self, image: np.ndarray) -> np.ndarray:
        if self.rotation:
            image = cv2.rotate(image, _ROTATIONS[self.rotation])
        if self.region:
            x, y, width, height = self.region
            if x + width > image.shape[1] or y + height > image.shape[0]:
                raise DecodeError(
                    f"region {x} {y} {width} {height} exceeds its frames of {image.shape[1]} x {image.shape[0]} pixels"
                )
            image = image[y : y + height, x : x + width]
        return np.ascontiguousarray(image)


def open_video(path: Path, rotation: str = "", region: str = "", fps: float = 0.0) -> VideoReader:
    """Open a video file, or a folder of images (1.jpg … 16.jpg in natural order) of ``fps`` frames per second (0: unknown).

    ``rotation`` ('', '0', '90', '180', '270') turns frames clockwise; ``region`` 'x y width height' is then cut out.
    Raises DecodeError if there is nothing to read.
    """
    box = None
    if region:
        x, y, width, height = (int(part) for part in region.split())
        box = (x, y, width, height)
    degrees = int(rotation or 0)
    with os_errors_as_decode_errors():
        if not path.exists():
            raise SystemReadError("no such file")
        mode, size = path.stat().st_mode, path.stat().st_size
    if stat.S_ISDIR(mode):
        note = "" if fps else f"{DEFAULT_FPS:g} frames per second assumed"
        return VideoReader(path, fps or DEFAULT_FPS, len(image_files(path)), degrees, box, note=note)
    if not stat.S_ISREG(mode):
        raise DecodeError("not a file but a pipe, socket or device; save what it gives as a file first")
    if size == 0:
        raise DecodeError("the file is empty")
    with open_container(path) as container:
        stream, note = _choose_stream(container, path)
        check_size(stream.codec_context.width, stream.codec_context.height)
        declared_fps = _frame_rate(stream)
        declared_end = _declared_end(container, stream)
        count = stream.frames
        if count <= 0:
            rate = float(stream.average_rate or declared_fps)
            count = max(1, round(declared_end * rate)) if np.isfinite(declared_end) else -1
        return VideoReader(path, declared_fps, count, degrees, box, declared_end, stream.index, note)


def count_frames(path: Path) -> int:
    """Return the number of frames, by decoding; raises DecodeError if there are none."""
    count = sum(1 for _ in open_video(path).frames())
    if not count:
        raise DecodeError("no frame can be decoded")
    return count


class _NamedFile(io.BufferedReader):
    """An open file under a name that FFmpeg cannot take for a protocol or a pattern of image files."""

    ffmpeg_name = "video"

    @property
    def name(self) -> str:
        return self.ffmpeg_name


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a video file of any name."""
    ending = path.suffix.lower()
    with os_errors_as_decode_errors():
        file = _NamedFile(path.open("rb", buffering=0), _BUFFER_BYTES)
    with file:
        if re.fullmatch(r"\.\w+", ending, re.ASCII):
            file.ffmpeg_name = f"video{ending}"
        container = _open_file(file)
        if container.format.name == "image2":  # by its ending; it would look for a file of that name
            container.close()
            file.seek(0)
            file.ffmpeg_name = "video"
            container = _open_file(file)
        with container, os_errors_as_decode_errors():
            try:
                yield container
            except FFmpegError as error:  # of the content; some of these are errors of the system for Python
                raise DecodeError(f"cannot be read: {error.strerror or error}") from None


def _open_file(file: _NamedFile) -> InputContainer:
    options = {"max_pixels": str(MAX_PIXELS)}
    with os_errors_as_decode_errors(), _captured_errors() as errors:
        try:
            return av.open(
                file,
                mode="r",
                options=options,
                container_options={"protocol_whitelist": "none"},
                buffer_size=_BUFFER_BYTES,
                **_METADATA_OPTIONS,
            )
        except FFmpegError:
            pass
    if _NO_INDEX in errors and _looks_like_mp4(file):
        raise DecodeError("the index at its end (moov) is missing: the recording or the copy was cut off")
    raise DecodeError("not a video that FFmpeg can open")


def _looks_like_mp4(file: _NamedFile) -> bool:
    """Return whether the first part of a file is of a kind that MP4 and QuickTime files begin with."""
    file.seek(4)
    return file.read(4) in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip")


def _choose_stream(container: InputContainer, path: Path) -> tuple[VideoStream, str]:
    """Return the video track with the most frames, covers aside, and which one that is if there are several."""
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        others = "only a cover picture" if container.streams.video else "only sound" if container.streams.audio else ""
        raise DecodeError("no moving video track" + (f", {others}" if others else ""))
    counts = {stream.index: stream.frames for stream in streams}
    if len(streams) > 1 and min(counts.values()) <= 0:
        counts = _count_packets(path)
    stream = max(streams, key=lambda stream: (counts.get(stream.index, 0), -stream.index))
    if stream.codec_context is None:
        raise DecodeError("its codec is not known to FFmpeg; convert it on a machine that plays it")
    if len(streams) == 1:
        return stream, ""
    return stream, f"track {stream.index} of {len(streams)} video tracks, the one with most frames"


def _count_packets(path: Path) -> dict[int, int]:
    """Return the number of packets of each track, without decoding."""
    counts: dict[int, int] = {}
    with open_container(path) as container:
        try:
            for packet in container.demux():
                if packet.size:
                    counts[packet.stream_index] = counts.get(packet.stream_index, 0) + 1
        except FFmpegError:
            pass  # what comes after cannot be decoded either
    return counts


def _frame_rate(stream: VideoStream) -> float:
    """Return the nominal frames per second of a track: FFmpeg's guess from its codec and times, else DEFAULT_FPS."""
    rates = (stream.guessed_rate, stream.average_rate)
    return next((float(rate) for rate in rates if rate and is_plausible_fps(float(rate))), DEFAULT_FPS)


def start_time(container: InputContainer) -> float:
    """Return the seconds in the container's own count at which a player starts, that is, the first of all tracks."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.start_time is not None and stream.time_base
    ]
    start = None if container.start_time is None else container.start_time / av.time_base
    if start is None:
        return min(starts, default=0.0)
    return min(starts, key=lambda value: abs(value - start), default=start) if starts else start


def _declared_end(container: InputContainer, stream: VideoStream) -> float:
    """Return the seconds after the start at which the video track ends as the container says, NaN if it does not say.

    The duration of a container is that of its longest track, so it counts only for a container with one track.
    """
    start = start_time(container)
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(
            stream.frames / stream.average_rate
        )  # FFmpeg cuts the duration to what the size of the file allows
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - start
    if text := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip()):
        hours, minutes, seconds = (float(part) for part in text.groups())
        return 3600 * hours + 60 * minutes + seconds - start
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return float("nan")


def _decode(path: Path, stream_index: int, stats: DecodeStats) -> Iterator[tuple[np.ndarray, float]]:
    """Yield every frame (H, W, 3) RGB as shown, and its time; NaN if the file gives none."""
    with open_container(path) as container:
        stream = container.streams[stream_index]
        if not isinstance(stream, VideoStream):
            raise DecodeError("its tracks have changed since it was opened")
        decoder = _build_decoder(stream)
        start, aspect = start_time(container), stream.sample_aspect_ratio
        converter, deinterlacer = _RGBConverter(aspect), Deinterlacer(stream)
        may_jump = bool(container.format.flags & Flags.ts_discont.value)
        clock = ContinuousTimes(1 / _frame_rate(stream), stats.jumps) if may_jump else None
        for decoded in _decode_packets(container, stream, decoder, start, stats):
            check_size(decoded.width, decoded.height)
            stats.interlaced += decoded.interlaced_frame
            stats.hdr = stats.hdr or HDR_NAMES.get(int(decoded.color_trc), "")
            for frame in deinterlacer.push(decoded):
                stats.unmarked = deinterlacer.is_unmarked
                yield converter(frame), _time_of(frame, start, clock)
        for frame in deinterlacer.flush():
            yield converter(frame), _time_of(frame, start, clock)
        if container.format.name == "mpegts" and all(path.stat().st_size % size for size in _TS_PACKET_SIZES):
            stats.ends_early = True


def _build_decoder(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder of a track: FFmpeg's own, but for VP8 and VP9 with transparency, which that leaves out."""
    decoder = stream.codec_context
    is_transparent = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    if is_transparent and decoder.name in _ALPHA_DECODERS:
        other = CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
        decoder = other if isinstance(other, VideoCodecContext) else decoder
    decoder.thread_count = DECODER_THREADS
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    return decoder


def _decode_packets(
    container: InputContainer, stream: VideoStream, decoder: VideoCodecContext, start: float, stats: DecodeStats
) -> Iterator[VideoFrame]:
    """Yield the decoded frames of a track; damaged packets and frames are counted and left out."""
    last_time, has_begun, num_discarded = float("nan"), False, 0  # discarded: before the part that an edit list shows
    shown = ShownTimes() if container.format.name in _DECODING_TIMES else None
    packets = container.demux(stream)
    while True:
        with _captured_errors() as errors:
            try:
                packet = next(packets, None)
            except FFmpegError:  # nothing after it in the file can be found
                stats.packets, stats.damaged = stats.packets + 1, stats.damaged + 1
                packet = None
        stats.ends_early |= any(map(_FILE_ENDS.search, errors))
        if packet is None:
            return
        if packet.size:
            stats.packets += 1
            num_discarded += packet.is_discard
            stamp = packet.dts if shown or packet.pts is None else packet.pts
            if stamp is not None and packet.time_base:
                time = float(stamp * packet.time_base) - start
                stats.end = max(stats.end, time + float((packet.duration or 0) * packet.time_base))
                if np.isfinite(last_time):
                    stats.largest_gap = max(stats.largest_gap, abs(time - last_time))
                last_time = time
        damaged = stats.damaged
        with _captured_errors() as errors:
            try:
                frames = decoder.decode(packet)
            except FFmpegError:
                stats.damaged += 1
                continue
        if frames and not has_begun:
            has_begun = True
            held = decoder.reorder_depth if packet.size else 0
            stats.unused = max(0, stats.packets - num_discarded - stats.damaged - len(frames) - held)
        if shown:
            stamps = shown(packet.dts, len(frames), decoder.reorder_depth if packet.size else 0)
            for frame, stamp in zip(frames, stamps, strict=True):
                frame.pts = stamp
        for frame in frames:
            if isinstance(frame, VideoFrame) and not frame.is_corrupt:
                yield frame
            else:
                stats.damaged += 1
        stats.faulty += bool(errors) and stats.damaged == damaged


_capture_lock = threading.Lock()
_open_captures = 0
logging.getLogger("libav").addHandler(logging.NullHandler())  # errors of threads that capture nothing are not printed


@contextmanager
def _captured_errors() -> Iterator[list[str]]:
    """Yield a list that holds, at the end, what FFmpeg reported as errors in this thread; otherwise PyAV discards them."""
    global _open_captures
    errors: list[str] = []
    with _capture_lock:
        _open_captures += 1
        if av.logging.get_level() is None:
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logs:
            yield errors
    finally:
        errors += [text.strip() for level, _, text in logs if level <= av.logging.ERROR]
        with _capture_lock:
            _open_captures -= 1
            if not _open_captures and av.logging.get_level() == av.logging.ERROR:
                av.logging.set_level(None)


def _time_of(frame: VideoFrame, start: float, clock: ContinuousTimes | None) -> float:
    """Return the time of a frame after ``start``, in seconds to the microsecond; NaN if it has none.

    ``clock`` takes jumps out of it.
    """
    stamp = frame.dts if frame.pts is None else frame.pts
    if stamp is None or not frame.time_base:
        return float("nan")
    time = float(stamp * frame.time_base) - start
    return round(clock(time) if clock else time, 6)


class _RGBConverter:
    """Converts decoded frames to uint8 (H, W, 3) RGB, upright and with square pixels. Transparent parts become black."""

    def __init__(self, pixel_aspect: Fraction | None) -> None:
        self._reformatter = VideoReformatter()
        aspect = float(pixel_aspect or 1)
        self._aspect = aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        width, height = frame.width, frame.height
        if self._aspect > 1:
            width = round(width * self._aspect)
        elif self._aspect < 1:
            height = round(height / self._aspect)
        check_size(width, height)
        pixels = frame.format
        has_alpha = pixels.has_palette or any(component.is_alpha for component in pixels.components)
        transfer = int(frame.color_trc) if int(frame.color_trc) in HDR_NAMES and not has_alpha else 0
        colorspace = None
        if frame.colorspace == _UNSPECIFIED_COLORSPACE and not pixels.is_rgb:
            is_hd = frame.width >= _HD_SIZE[0] or frame.height > _HD_SIZE[1]
            colorspace = int(Colorspace.ITU709 if is_hd else Colorspace.ITU601)
        try:
            converted = self._reformatter.reformat(
                frame,
                width,
                height,
                "rgba" if has_alpha else "rgb48le" if transfer else "rgb24",
                src_colorspace=colorspace,
                dst_color_range="JPEG",
                interpolation="BICUBIC",
                threads=1,
            )
        except FFmpegError:
            raise DecodeError(f"FFmpeg cannot convert its pixel format {pixels.name} to RGB") from None
        image = converted.to_ndarray()
        if has_alpha:
            image = cv2.multiply(image[..., :3], cv2.merge([image[..., 3]] * 3), scale=1 / 255)
        if transfer:
            image = to_sdr(image.astype(np.uint16), transfer)
        return _turn(image, frame)


def _turn(image: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Turn and flip an image as the frame's display matrix says, to the nearest quarter turn."""
    try:
        side_data: Any = frame.side_data
        matrix_bytes = bytes(side_data.get(Type.DISPLAYMATRIX, b""))
    except ValueError:  # PyAV does not know all kinds of side data; it still reads the angle, counterclockwise
        return np.rot90(image, round(frame.rotation / 90))
    if len(matrix_bytes) != 36:
        return image
    matrix = np.frombuffer(matrix_bytes, np.int32)  # x' = a x + c y, y' = b x + d y
    a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
    flip_x, flip_y = a < 0, d < 0
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
