"""Video and image-folder reading. The only module that decodes videos with OpenCV.

Frames are counted by decoding. The number in the container's header is only compared with it: OpenCV returns a file
that is damaged in the middle short and without an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
MAX_PIXELS = 8192 * 8192
"""A picture of more pixels is refused: a small file can claim to be enormous."""
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_ESTIMATED_FRAME_COUNT = (".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg")
"""Containers whose header holds a duration, from which OpenCV estimates the number of frames."""


class DecodeError(Exception):
    """This video gives no frames, for the reason in the message; other videos are not concerned."""


@dataclass(frozen=True)
class VideoReader:
    """An open video: ``declared`` frames are claimed by the container (-1: it claims nothing one could trust)."""

    path: Path
    fps: float
    declared_frames: int
    rotation: int = 0
    region: tuple[int, int, int, int] | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """Yield every frame as uint8 (H, W, 3) RGB, upright and cut out, one at a time.

        Raises CannotDecode where a picture cannot be read or is beyond MOST_PIXELS.
        """
        pictures = _read_images(self.path) if self.path.is_dir() else _decode(self.path)
        for picture in pictures:
            yield _apply_view(picture, self.rotation, self.region, self.path)

    def is_truncated(self, read: int) -> bool:
        """Tell whether ``read`` frames are clearly fewer than the container declares."""
        if self.declared_frames < 0:
            return False
        # edit lists and dropped frames make honest files differ by a few; an estimate may be further off
        share = 10 if self.path.suffix.lower() in _ESTIMATED_FRAME_COUNT else 20
        return read < self.declared_frames - max(5, self.declared_frames // share)


def open_video(path: Path, rotation: str = "", region: str = "") -> VideoReader:
    """Look at a video file or a folder of images (1.jpg … 16.jpg in natural order).

    ``rotation`` ('', '0', '90', '180', '270') turns it clockwise; ``region`` 'x y width height' is cut out after that.
    Raises CannotDecode when there is nothing to read.
    """
    box = None
    if region:
        x, y, width, height = (int(part) for part in region.split())
        box = (x, y, width, height)
    turn = int(rotation or 0)
    if not path.exists():
        raise DecodeError("no such file")
    if path.is_dir():
        return VideoReader(path, 25.0, len(_image_files(path)), turn, box)
    with _os_errors_as_decode_errors():
        if path.stat().st_size == 0:
            raise DecodeError("the file is empty")
        with path.open("rb"):  # OpenCV would not say that it may not
            pass
    capture = _capture(path)
    fps, declared = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    fps = float(fps) if np.isfinite(fps) and 0 < fps <= 1000 else 25.0
    declared = int(declared) if np.isfinite(declared) and 0 < declared < 1e9 else -1
    return VideoReader(path, fps, declared, turn, box)


@contextmanager
def _os_errors_as_decode_errors() -> Iterator[None]:
    """Turn what the system says of one file (no permission, a disk error) into CannotDecode."""
    try:
        yield
    except OSError as error:
        raise DecodeError(f"it cannot be read: {error.strerror or error}") from None


def count_frames(path: Path) -> int:
    """Count the frames of a video by decoding it; raises CannotDecode."""
    count = sum(1 for _ in open_video(path).frames())
    if not count:
        raise DecodeError("no frame can be decoded")
    return count


def _capture(path: Path) -> cv2.VideoCapture:
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    except cv2.error as error:
        raise DecodeError(f"OpenCV cannot open it: {error.err or error}") from None
    if not capture.isOpened():
        raise DecodeError("not a video that OpenCV can open")
    return capture


def _decode(path: Path) -> Iterator[np.ndarray]:
    capture = _capture(path)
    try:
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > MAX_PIXELS:
            raise DecodeError(f"frames of {width:.0f} x {height:.0f} pixels are beyond the limit of {MAX_PIXELS}")
        while True:
            try:
                there, picture = capture.read()
            except cv2.error:  # a broken packet; what follows it cannot be placed in time
                return
            if not there:
                return
            yield picture
    finally:
        capture.release()


def _image_files(folder: Path) -> list[Path]:
    with _os_errors_as_decode_errors(), os.scandir(folder) as listing:
        names = [entry.name for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    names = [name for name in names if not name.startswith(".")]  # a Mac leaves ._1.jpg beside 1.jpg on other disks
    if not names:
        raise DecodeError("a folder without images")
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def _read_images(folder: Path) -> Iterator[np.ndarray]:
    for file in _image_files(folder):
        try:
            picture = cv2.imdecode(np.frombuffer(_read_checked(file), np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            picture = None
        if picture is None:
            raise DecodeError(f"{file.name} is not a picture that OpenCV can read; a skipped one would shift the rest")
        yield picture


def _read_checked(file: Path) -> bytes:
    """Return a picture's bytes after its header says that it is not beyond MOST_PIXELS."""
    if not file.is_file():
        raise DecodeError(f"{file.name} is not a file")
    with _os_errors_as_decode_errors():
        content = file.read_bytes()
    size = _header_size(content)
    if not size:
        raise DecodeError(f"{file.name} is not a picture (JPEG, PNG or BMP); a skipped one would shift the rest")
    if size[0] * size[1] > MAX_PIXELS:
        raise DecodeError(f"{file.name} claims {size[0]} x {size[1]} pixels, beyond the limit of {MAX_PIXELS}")
    return content


def _header_size(content: bytes) -> tuple[int, int] | None:
    """Read width and height from a PNG, BMP or JPEG header; None for what is neither, whose size is not known before decoding."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content[:2] == b"BM":
        return int.from_bytes(content[18:22], "little"), abs(int.from_bytes(content[22:26], "little", signed=True))
    if content[:2] == b"\xff\xd8":
        place = 2
        while place + 9 < len(content) and content[place] == 0xFF:
            marker = content[place + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = content[place + 5 : place + 7], content[place + 7 : place + 9]
                return int.from_bytes(width, "big"), int.from_bytes(height, "big")
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def _apply_view(picture: np.ndarray, rotation: int, region: tuple[int, int, int, int] | None, path: Path) -> np.ndarray:
    if rotation:
        picture = cv2.rotate(picture, _ROTATIONS[rotation])
    if region:
        x, y, width, height = region
        if x + width > picture.shape[1] or y + height > picture.shape[0]:
            raise DecodeError(
                f"region {x} {y} {width} {height} does not fit its frames of {picture.shape[1]} x {picture.shape[0]}"
            )
        picture = picture[y : y + height, x : x + width]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
