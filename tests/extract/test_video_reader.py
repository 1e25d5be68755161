"""Video reading: every frame, in order, rotated and cut out; broken files are reported."""

import cv2
import numpy as np
import pytest
from helpers.video import write_video

from ceflpipe.stages.extract.video_reader import DecodeError, VideoReader, count_frames, open_video


def numbered(count):
    """Return frames that show their number as eight black or white blocks, which survive any codec."""
    bits = [[i >> b & 1 for b in range(8)] for i in range(count)]
    return [
        np.repeat(np.kron(np.array([row]), np.full((16, 16), 230))[..., None], 3, axis=2).astype(np.uint8)
        for row in bits
    ]


def numbers(frames):
    return [sum((frame[8, 8 + 16 * b].mean() > 115) << b for b in range(8)) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mkv", "mp4v"), ("a.mov", "mp4v")]
)
def test_every_frame_is_decoded_in_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40), codec=codec)
    reader = open_video(path)
    assert numbers(reader.frames()) == list(range(40))
    assert count_frames(path) == 40
    assert not reader.is_truncated(40)
    assert reader.fps == pytest.approx(25)


def test_image_folders_are_read_in_natural_order(tmp_path):
    for i, frame in enumerate(numbered(12), start=1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "notes.txt").write_text("not a frame")
    assert numbers(open_video(tmp_path).frames()) == list(range(12))


def quadrants():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:20, :30] = (200, 0, 0)  # red at the top left
    frame[20:, 30:] = (0, 0, 200)
    return frame


def test_colors_are_rgb_and_rotation_is_clockwise(tmp_path):
    path = write_video(tmp_path / "a.avi", [quadrants()] * 3, codec="MJPG")
    upright = next(open_video(path).frames()).astype(int)
    assert upright[5, 5, 0] > 150 > 60 > upright[5, 5, 2]
    clockwise = next(open_video(path, rotation="90").frames()).astype(int)
    assert clockwise.shape == (60, 40, 3)
    assert clockwise[5, -5, 0] > 150
    counterclockwise = next(open_video(path, rotation="270").frames()).astype(int)
    assert counterclockwise[-5, 5, 0] > 150


def test_region_is_cut_out_after_rotation(tmp_path):
    path = write_video(tmp_path / "a.avi", [quadrants()] * 2, codec="MJPG")
    cut = next(open_video(path, region="0 0 30 20").frames())
    assert cut.shape == (20, 30, 3)
    assert cut[..., 0].mean() > 150
    cut = next(open_video(path, rotation="90", region="20 0 20 30").frames())
    assert cut.shape == (30, 20, 3)
    assert cut[..., 0].mean() > 150
    with pytest.raises(DecodeError, match="region 50 0 20 20 exceeds its frames of 60 x 40 pixels"):
        next(open_video(path, region="50 0 20 20").frames())


def test_a_video_cut_in_the_middle_is_truncated(tmp_path):
    frames = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(100)]
    path = write_video(tmp_path / "a.avi", frames, codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        reader = open_video(path)
        count = sum(1 for _ in reader.frames())
        assert count < 100
        assert reader.is_truncated(count) or reader.declared_frames <= count + 5
    except DecodeError:
        pass


def test_truncated_means_clearly_fewer_frames_than_declared(tmp_path):
    reader = open_video(write_video(tmp_path / "a.mp4", numbered(100)))
    assert reader.declared_frames == 100
    assert reader.is_truncated(94)
    assert not reader.is_truncated(96)
    assert not reader.is_truncated(120)


def test_an_unknown_frame_count_is_never_truncated(tmp_path):
    assert not VideoReader(tmp_path / "a.mp4", 25.0, -1).is_truncated(0)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"not a video" * 50, "not a video"), (b"\0" * 4096, "not a video")]
)
def test_a_file_that_is_not_a_video_is_reported(tmp_path, content, message):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=message):
        list(open_video(tmp_path / "a.mp4").frames())


def test_a_folder_with_a_broken_image_is_refused(tmp_path):
    for i, frame in enumerate(numbered(5)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(
        DecodeError, match=r"2\.png is not a JPEG, PNG or BMP image; skipping it would shift the others"
    ):
        list(open_video(tmp_path).frames())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match="without images"):
        open_video(tmp_path / "empty")


@pytest.mark.parametrize("extension", ["png", "bmp", "jpg"])
def test_an_image_that_claims_to_be_enormous_is_refused_before_decoding(tmp_path, extension):
    _, encoded = cv2.imencode(f".{extension}", np.zeros((16, 16, 3), np.uint8))
    content = bytearray(encoded.tobytes())
    if extension == "png":
        content[16:24] = (30_000).to_bytes(4, "big") * 2
    elif extension == "bmp":
        content[18:26] = (30_000).to_bytes(4, "little") * 2
    else:
        offset = content.find(b"\xff\xc0")
        content[offset + 5 : offset + 9] = (30_000).to_bytes(2, "big") * 2
    (tmp_path / f"1.{extension}").write_bytes(content)
    with pytest.raises(DecodeError, match="30000 x 30000"):
        list(open_video(tmp_path).frames())
