"""Reading videos: every frame, in order, upright; what is broken is said."""

import cv2
import numpy as np
import pytest
from helpers.video import write_video

from ceflpipe.stages.extract.video_reader import DecodeError, count_frames, open_video


def numbered(count):
    """Frames that show their number as eight black or white blocks, so that order and skips survive any codec."""
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
def test_every_frame_in_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40), codec=codec)
    video = open_video(path)
    assert numbers(video.frames()) == list(range(40))
    assert count_frames(path) == 40
    assert not video.is_truncated(40)
    assert video.fps == pytest.approx(25)


def test_folders_of_images_in_natural_order(tmp_path):
    for i, frame in enumerate(numbered(12), start=1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "notes.txt").write_text("not a frame")
    assert numbers(open_video(tmp_path).frames()) == list(range(12))


def quarters():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:20, :30] = (200, 0, 0)  # red at the top left
    frame[20:, 30:] = (0, 0, 200)
    return frame


def test_colours_are_rgb_and_rotation_is_clockwise(tmp_path):
    path = write_video(tmp_path / "a.avi", [quarters()] * 3, codec="MJPG")
    upright = next(open_video(path).frames()).astype(int)
    assert upright[5, 5, 0] > 150 > 60 > upright[5, 5, 2]
    turned = next(open_video(path, rotation="90").frames()).astype(int)
    assert turned.shape == (60, 40, 3)
    assert turned[5, -5, 0] > 150
    back = next(open_video(path, rotation="270").frames()).astype(int)
    assert back[-5, 5, 0] > 150


def test_region_is_cut_after_turning(tmp_path):
    path = write_video(tmp_path / "a.avi", [quarters()] * 2, codec="MJPG")
    cut = next(open_video(path, region="0 0 30 20").frames())
    assert cut.shape == (20, 30, 3)
    assert cut[..., 0].mean() > 150
    cut = next(open_video(path, rotation="90", region="20 0 20 30").frames())
    assert cut.shape == (30, 20, 3)
    assert cut[..., 0].mean() > 150
    with pytest.raises(DecodeError, match="does not fit its frames of 60 x 40"):
        next(open_video(path, region="50 0 20 20").frames())


def test_a_video_damaged_in_the_middle_is_short(tmp_path):
    path = write_video(
        tmp_path / "a.avi",
        [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(100)],
        codec="MJPG",
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    try:
        video = open_video(path)
        read = sum(1 for _ in video.frames())
        assert read < 100
        assert video.is_truncated(read) or video.declared_frames <= read + 5
    except DecodeError:
        pass


def test_short_means_clearly_fewer_than_declared(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(100))
    video = open_video(path)
    assert video.declared_frames == 100
    assert video.is_truncated(94)
    assert not video.is_truncated(96)
    assert not video.is_truncated(120)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"not a video" * 50, "not a video"), (b"\0" * 4096, "not a video")]
)
def test_what_is_no_video_is_said(tmp_path, content, words):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=words):
        list(open_video(tmp_path / "a.mp4").frames())


def test_a_folder_with_one_bad_image_is_refused_rather_than_shifted(tmp_path):
    for i, frame in enumerate(numbered(5)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(DecodeError, match=r"2\.png is not a picture"):
        list(open_video(tmp_path).frames())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match="without images"):
        open_video(tmp_path / "empty")


@pytest.mark.parametrize("ending", ["png", "bmp", "jpg"])
def test_a_picture_that_claims_to_be_enormous_is_refused_before_it_is_decoded(tmp_path, ending):
    _, content = cv2.imencode(f".{ending}", np.zeros((16, 16, 3), np.uint8))
    raw = bytearray(content.tobytes())
    if ending == "png":
        raw[16:24] = (30_000).to_bytes(4, "big") * 2
    elif ending == "bmp":
        raw[18:26] = (30_000).to_bytes(4, "little") * 2
    else:
        place = raw.find(b"\xff\xc0")
        raw[place + 5 : place + 9] = (30_000).to_bytes(2, "big") * 2
    (tmp_path / f"1.{ending}").write_bytes(raw)
    with pytest.raises(DecodeError, match="30000 x 30000"):
        list(open_video(tmp_path).frames())
