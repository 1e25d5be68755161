"""Sound of a video for a copy of it: packets as they are where MP4 holds their codec, else encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from ..extract.video_reader import DecodeError, open_container, start_time

MP4_CODECS = ("aac", "mp3", "opus", "flac", "alac", "ac3", "eac3")
"""Codecs whose packets are copied into MP4."""
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
"""Samples per second that AAC knows."""
DEFAULT_RATE = 48_000
MAX_CHANNELS = 2
"""Of sound that is encoded; more are mixed down."""


def has_sound(path: Path) -> bool:
    """Return whether a video file has a sound track."""
    try:
        with open_container(path) as source:
            return bool(source.streams.audio)
    except (DecodeError, FFmpegError):
        return False


class SoundTrack:
    """The first sound track of a video, written into ``container`` with the times that it has beside the frames.

    Nothing happens if there is none. Damaged sound ends where it cannot be read any more.
    """

    def __init__(self, path: Path, container: OutputContainer) -> None:
        self._stack, self._container = ExitStack(), container
        self._packets: Iterator[tuple[float, Packet]] = iter(())
        self._next: tuple[float, Packet] | None = None
        if not path.is_file():
            return
        try:
            source = self._stack.enter_context(open_container(path))
            if not source.streams.audio:
                return
            self._input, self._source = source, source.streams.audio[0]
            self._start = start_time(source)
            copied = self._source.codec_context.codec.canonical_name in MP4_CODECS
            self._stream = self._add_copy() if copied else self._add_aac()
            self._packets = self._copied() if copied else self._encoded()
            self._next = next(self._packets, None)
        except (DecodeError, FFmpegError):
            self._next = None

    def write_until(self, seconds: float) -> None:
        """Write what is heard before a time, in seconds from the start of the file."""
        while self._next is not None and self._next[0] <= seconds:
            self._container.mux(self._next[1])
            try:
                self._next = next(self._packets, None)
            except FFmpegError:
                self._next = None

    def close(self) -> None:
        self._stack.close()

    def _add_copy(self) -> AudioStream:
        return self._container.add_stream_from_template(self._source)

    def _add_aac(self) -> AudioStream:
        context = self._source.codec_context
        rate = context.sample_rate if context.sample_rate in AAC_RATES else DEFAULT_RATE
        layout = "mono" if context.channels == 1 else "stereo"
        return self._container.add_stream("aac", rate=rate, layout=layout)

    def _copied(self) -> Iterator[tuple[float, Packet]]:
        for packet in self._input.demux(self._source):
            if packet.dts is None or packet.pts is None:
                continue
            offset = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = self._stream
            yield float(packet.dts * packet.time_base), packet

    def _encoded(self) -> Iterator[tuple[float, Packet]]:
        for packet in self._input.demux(self._source):
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base:
                    frame.pts -= round(self._start / frame.time_base)
                yield from map(_timed, self._stream.encode(frame))
        yield from map(_timed, self._stream.encode(None))


def _timed(packet: Packet) -> tuple[float, Packet]:
    return float((packet.dts or 0) * packet.time_base), packet
