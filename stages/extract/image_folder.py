"""Images of a folder as frames: read in natural order with OpenCV, whose messages are counted, never printed."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from ..manifest.files import IMAGE_EXTENSIONS, natural_key

MAX_PIXELS = 8192 * 8192
"""Larger frames are refused: a small file can claim to be enormous."""
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SHORT = 256, 257, 3


class DecodeError(Exception):
    """A video that cannot be decoded; the message is the reason. Other videos are not affected."""


class SystemReadError(DecodeError):
    """A video that the system could not read (no permission, a disk error): nothing is known of its content."""


@contextmanager
def os_errors_as_decode_errors() -> Iterator[None]:
    """Raise errors of the system about one file (no permission, a disk error) as SystemReadError."""
    try:
        yield
    except OSError as error:
        raise SystemReadError(f"cannot be read: {error.strerror or error}") from None


def check_size(width: int, height: int) -> None:
    """Raise DecodeError for frames of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise DecodeError(f"frames of {width} x {height} pixels exceed the limit of {MAX_PIXELS} pixels")


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order.

    Raises DecodeError if there are none, and for two of one name in two formats: which is the frame is not known.
    """
    with os_errors_as_decode_errors(), os.scandir(folder) as listing:
        names = [entry.name for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    names = [name for name in names if not name.startswith(".")]  # macOS adds ._1.jpg to 1.jpg on other file systems
    if not names:
        raise DecodeError("a folder without images")
    names.sort(key=natural_key)
    by_stem: dict[str, str] = {}
    for name in names:
        other = by_stem.setdefault(Path(name).stem, name)
        if other != name:
            raise DecodeError(
                f"{other} and {name} are one frame in two formats; move the images of one format elsewhere"
            )
    return [folder / name for name in names]


def read_images(folder: Path) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield every image, uint8 (H, W, 3) RGB, and whether it has errors that the decoder concealed.

    Raises DecodeError if one cannot be read, or has more than MAX_PIXELS.
    """
    for file in image_files(folder):
        content = np.frombuffer(_read_checked(file), np.uint8)
        with _captured_stderr() as lines:
            try:
                image = cv2.imdecode(content, cv2.IMREAD_COLOR)
            except cv2.error:
                image = None
        if image is None:
            raise DecodeError(f"{file.name} is not an image that OpenCV can read; skipping it would shift the others")
        # warnings of libpng concern the description of an image, not its pixels
        is_faulty = any(line.strip() and not line.startswith("libpng warning") for line in lines)
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), is_faulty


_stderr_lock = threading.Lock()


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Yield a list that holds, at the end, the lines that C libraries printed meanwhile: libjpeg reports damage only so."""
    lines: list[str] = []
    with _stderr_lock, tempfile.TemporaryFile() as file:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        stderr = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def _read_checked(file: Path) -> bytes:
    """Return an image's bytes if its header declares at most MAX_PIXELS."""
    if not file.is_file():
        raise DecodeError(f"{file.name} is not a file")
    with os_errors_as_decode_errors():
        content = file.read_bytes()
    size = _header_size(content)
    if not size:
        raise DecodeError(
            f"{file.name} is not a JPEG, PNG, BMP, TIFF or WebP image; skipping it would shift the others"
        )
    if size[0] * size[1] > MAX_PIXELS:
        raise DecodeError(f"{file.name} claims {size[0]} x {size[1]} pixels, above the limit of {MAX_PIXELS} pixels")
    return content


def _header_size(content: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header of an image; None for other formats, whose size is unknown before decoding."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content[:2] == b"BM":
        return int.from_bytes(content[18:22], "little"), abs(int.from_bytes(content[22:26], "little", signed=True))
    if content[:2] == b"\xff\xd8":
        return _jpeg_size(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp_size(content)
    if content[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(content)
    return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    offset = 2
    while offset + 9 < len(content) and content[offset] == 0xFF:
        marker = content[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = content[offset + 5 : offset + 7], content[offset + 7 : offset + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = (int.from_bytes(content[i : i + 2], "little") & 0x3FFF for i in (26, 28))
        return width, height
    return None


def _tiff_size(content: bytes) -> tuple[int, int] | None:
    """Return the size of the first image of a file."""
    order = "little" if content[:1] == b"I" else "big"
    first = int.from_bytes(content[4:8], order)
    sizes = {}
    for number in range(int.from_bytes(content[first : first + 2], order)):
        entry = content[first + 2 + 12 * number :][:12]
        tag, kind = (int.from_bytes(entry[i : i + 2], order) for i in (0, 2))
        sizes[tag] = int.from_bytes(entry[8:10] if kind == _TIFF_SHORT else entry[8:12], order)
    if _TIFF_WIDTH in sizes and _TIFF_HEIGHT in sizes:
        return sizes[_TIFF_WIDTH], sizes[_TIFF_HEIGHT]
    return None
