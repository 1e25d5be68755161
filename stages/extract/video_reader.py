"""Video and image-folder reading. The only module that decodes videos with OpenCV.

Frames are counted by decoding. The frame count in the container's header is only compared with it: OpenCV returns a file
that is corrupted in the middle short and without an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..manifest.files import IMAGE_EXTENSIONS, natural_key

MAX_PIXELS = 8192 * 8192
"""Larger frames are refused: a small file can claim to be enormous."""
DEFAULT_FPS = 25.0
"""Frame rate of image folders, and of videos whose header has no plausible one."""
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_ESTIMATED_FRAME_COUNT = (".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg")
"""Containers whose header has a duration, from which OpenCV estimates the frame count."""


class DecodeError(Exception):
    """A video that cannot be decoded; the message is the reason. Other videos are not affected."""


@dataclass(frozen=True)
class VideoReader:
    """An open video: its frame rate, and the frame count in its header (-1 if that has no plausible one)."""

    path: Path
    fps: float
    declared_frames: int
    rotation: int = 0
    region: tuple[int, int, int, int] | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """Yield every frame as uint8 RGB (H, W, 3), after rotation and region.

        Raises DecodeError if an image cannot be read or a frame has more than MAX_PIXELS.
        """
        for image in _read_images(self.path) if self.path.is_dir() else _decode(self.path):
            yield self._apply_view(image)

    def is_truncated(self, count: int) -> bool:
        """Return whether ``count`` decoded frames are clearly fewer than the header declares."""
        # edit lists and dropped frames make correct files differ by a few; an estimate may be further off
        divisor = 10 if self.path.suffix.lower() in _ESTIMATED_FRAME_COUNT else 20
        return count < self.declared_frames - max(5, self.declared_frames // divisor)

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
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def open_video(path: Path, rotation: str = "", region: str = "") -> VideoReader:
    """Open a video file, or a folder of images (1.jpg … 16.jpg in natural order).

    ``rotation`` ('', '0', '90', '180', '270') turns frames clockwise; ``region`` 'x y width height' is then cut out.
    Raises DecodeError if there is nothing to read.
    """
    box = None
    if region:
        x, y, width, height = (int(part) for part in region.split())
        box = (x, y, width, height)
    degrees = int(rotation or 0)
    if not path.exists():
        raise DecodeError("no such file")
    if path.is_dir():
        return VideoReader(path, DEFAULT_FPS, len(_image_files(path)), degrees, box)
    with _os_errors_as_decode_errors():
        if path.stat().st_size == 0:
            raise DecodeError("the file is empty")
        with path.open("rb"):  # OpenCV would not report a missing permission
            pass
    capture = _capture(path)
    fps, declared = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    fps = float(fps) if np.isfinite(fps) and 0 < fps <= 1000 else DEFAULT_FPS
    declared = int(declared) if np.isfinite(declared) and 0 < declared < 1e9 else -1
    return VideoReader(path, fps, declared, degrees, box)


def count_frames(path: Path) -> int:
    """Return the number of frames, by decoding; raises DecodeError if there are none."""
    count = sum(1 for _ in open_video(path).frames())
    if not count:
        raise DecodeError("no frame can be decoded")
    return count


@contextmanager
def _os_errors_as_decode_errors() -> Iterator[None]:
    """Raise errors of the system about one file (no permission, a disk error) as DecodeError."""
    try:
        yield
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror or error}") from None


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
            raise DecodeError(f"frames of {width:.0f} x {height:.0f} pixels exceed the limit of {MAX_PIXELS} pixels")
        while True:
            try:
                decoded, image = capture.read()
            except cv2.error:  # a broken packet; the times of the frames after it are unknown
                return
            if not decoded:
                return
            yield image
    finally:
        capture.release()


def _image_files(folder: Path) -> list[Path]:
    with _os_errors_as_decode_errors(), os.scandir(folder) as listing:
        names = [entry.name for entry in listing if entry.name.lower().endswith(IMAGE_EXTENSIONS)]
    names = [name for name in names if not name.startswith(".")]  # macOS adds ._1.jpg to 1.jpg on other file systems
    if not names:
        raise DecodeError("a folder without images")
    return [folder / name for name in sorted(names, key=natural_key)]


def _read_images(folder: Path) -> Iterator[np.ndarray]:
    for file in _image_files(folder):
        try:
            image = cv2.imdecode(np.frombuffer(_read_checked(file), np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None:
            raise DecodeError(f"{file.name} is not an image that OpenCV can read; skipping it would shift the others")
        yield image


def _read_checked(file: Path) -> bytes:
    """Return an image's bytes if its header declares at most MAX_PIXELS."""
    if not file.is_file():
        raise DecodeError(f"{file.name} is not a file")
    with _os_errors_as_decode_errors():
        content = file.read_bytes()
    size = _header_size(content)
    if not size:
        raise DecodeError(f"{file.name} is not a JPEG, PNG or BMP image; skipping it would shift the others")
    if size[0] * size[1] > MAX_PIXELS:
        raise DecodeError(f"{file.name} claims {size[0]} x {size[1]} pixels, above the limit of {MAX_PIXELS} pixels")
    return content


def _header_size(content: bytes) -> tuple[int, int] | None:
    """Return (width, height) from a PNG, BMP or JPEG header; None for other formats, whose size is unknown before decoding."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content[:2] == b"BM":
        return int.from_bytes(content[18:22], "little"), abs(int.from_bytes(content[22:26], "little", signed=True))
    if content[:2] == b"\xff\xd8":
        offset = 2
        while offset + 9 < len(content) and content[offset] == 0xFF:
            marker = content[offset + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
                height, width = content[offset + 5 : offset + 7], content[offset + 7 : offset + 9]
                return int.from_bytes(width, "big"), int.from_bytes(height, "big")
            offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
    return None
