"""Interlaced video that is marked progressive: found from how its lines move, without a false alarm for progressive video."""

import numpy as np
import pytest
from helpers.video import encode_video

from ceflpipe.stages.extract.video_reader import open_video

HEIGHT, WIDTH = 120, 160


def texture(height=HEIGHT, width=WIDTH, seed=0):
    """Return a gray picture of soft blobs and edges, (height, width)."""
    blobs = np.random.default_rng(seed).integers(30, 220, (height // 10 + 1, width // 10 + 1))
    return np.kron(blobs, np.ones((10, 10)))[:height, :width]


def moving(number, speed=3.0):
    """Return the picture at a time in frames: a textured square that moves to the right over a textured background."""
    image = texture()
    x = round(10 + speed * number) % (WIDTH - 50)
    image[30:80, x : x + 50] = texture(50, 50, seed=1)
    return image


def weave(images, top_first):
    """Return frames whose two fields are successive images."""
    frames = []
    for first, second in zip(images[0::2], images[1::2], strict=True):
        frame = first.copy()
        frame[1 if top_first else 0 :: 2] = second[1 if top_first else 0 :: 2]
        frames.append(frame)
    return frames


def telecined(images, top_first):
    """Return five frames of ten fields for every four images, as film was shown on American television."""
    order = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
    fields = [images[i] for start in range(0, len(images) - 3, 4) for i in start + order]
    return weave(fields, top_first)


def rgb(frames):
    return [np.repeat(np.clip(frame, 0, 255).astype(np.uint8)[..., None], 3, axis=2) for frame in frames]


def read(path):
    reader = open_video(path)
    return reader, list(reader.frames())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("codec", ["ffv1", "libx264", "mpeg4"])
def test_fields_in_frames_marked_progressive_are_deinterlaced(tmp_path, codec, top_first):
    frames = weave([moving(i) for i in range(60)], top_first)
    reader, shown = read(encode_video(tmp_path / "a.mkv", rgb(frames), codec=codec))
    assert reader.remarks() == "de-interlaced, though marked progressive"
    assert [frame.time for frame in shown] == pytest.approx([i / 25 for i in range(30)], abs=1e-3)
    combing = [
        [np.abs(np.diff(image.astype(float), 2, axis=0)).mean() for image in images]
        for images in ([frame.image[..., 0] for frame in shown], frames, [moving(2 * i) for i in range(30)])
    ]
    shown_combing, combed, exact = (float(np.mean(values[2:-2])) for values in combing)
    assert shown_combing - exact < 0.35 * (combed - exact)


def test_motion_may_begin_late(tmp_path):
    images = [moving(max(0, i - 60)) for i in range(120)]
    reader, shown = read(encode_video(tmp_path / "a.mkv", rgb(weave(images, top_first=True)), codec="ffv1"))
    assert reader.remarks() == "de-interlaced, though marked progressive"
    assert len(shown) == 60


def test_an_interlaced_part_of_a_long_progressive_video_is_recognized(tmp_path):
    frames = [moving(i) for i in range(150)] + weave([moving(i) for i in range(160)], top_first=False)
    reader, shown = read(encode_video(tmp_path / "a.mkv", rgb(frames), codec="ffv1"))
    assert len(shown) == len(frames)
    assert reader.remarks() == "de-interlaced, though marked progressive"


@pytest.mark.parametrize("pixels", ["gray", "rgb24", "yuv444p10le", "bgr0", "yuv422p"])
def test_fields_are_recognized_in_any_pixel_format(tmp_path, pixels):
    frames = weave([moving(i) for i in range(30)], top_first=True)
    codec = "rawvideo" if pixels == "rgb24" else "ffv1"
    reader, _ = read(encode_video(tmp_path / "a.nut", rgb(frames), codec=codec, pix_fmt=pixels))
    assert reader.remarks() == "de-interlaced, though marked progressive"


def test_telecined_video_is_deinterlaced(tmp_path):
    frames = telecined([moving(i, speed=4) for i in range(40)], top_first=True)
    reader, _ = read(encode_video(tmp_path / "a.mkv", rgb(frames), codec="ffv1"))
    assert reader.remarks() == "de-interlaced, though marked progressive"


def progressive_videos():
    """Yield (name, frames) of progressive video that might look as if it had fields."""
    rng = np.random.default_rng(3)
    rows = np.arange(HEIGHT)[:, None]
    tall = texture(HEIGHT + 400, WIDTH)
    for period in (2, 3, 4):
        stripes = 60.0 * ((rows % period) < period / 2)
        yield f"stripes of {period} lines over motion", [moving(i) * 0.7 + stripes for i in range(70)]
        for speed in (1, 2, 3):
            lines = [((rows + speed * i) % period < period / 2) * 150.0 for i in range(70)]
            yield (
                f"stripes of {period} lines that move by {speed}",
                [line + 0.3 * moving(i) for i, line in enumerate(lines)],
            )
    window = [30 + 180.0 * (rows % 2) * ((np.arange(WIDTH) + 5 * i) % 80 < 40) for i in range(70)]
    yield "a striped curtain that moves sideways", window
    for speed in (1, 2, 3, 5):
        yield f"a picture that moves down by {speed}", [tall[speed * i : speed * i + HEIGHT] for i in range(70)]
        bar = [40 + 180.0 * (abs(rows - speed * i % HEIGHT) < 3) + np.zeros(WIDTH) for i in range(70)]
        yield f"a thin bar that moves down by {speed}", bar
    shaken = [tall[100 + dy : 100 + dy + HEIGHT] for dy in rng.integers(-2, 3, 70)]
    yield "a hand that shakes", shaken
    yield "noise", [rng.normal(128, 60, (HEIGHT, WIDTH)) for _ in range(70)]
    yield "noise over motion", [moving(i) + rng.normal(0, 25, (HEIGHT, WIDTH)) for i in range(70)]
    yield "every third frame repeated", [moving(i - i // 3) for i in range(70)]
    flicker = [moving(i) + 20 * (i % 2) for i in range(70)]
    yield "light that flickers", flicker


@pytest.mark.parametrize(("name", "frames"), [pytest.param(*case, id=case[0]) for case in progressive_videos()])
@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_progressive_video_is_left_as_it_is(tmp_path, name, frames, codec):
    reader, shown = read(
        encode_video(tmp_path / "a.mkv", rgb(frames), codec=codec, pix_fmt="gray" if codec == "ffv1" else "yuv420p")
    )
    assert reader.remarks() == "", name
    assert len(shown) == len(frames)
    if codec == "ffv1":
        for frame, image in zip(shown, rgb(frames), strict=True):
            assert np.abs(frame.image.astype(int) - image).max() <= 2
