"""Video reading: every frame as a player shows it, at its own time; broken files are reported."""

import os
import socket
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.codec import Codec, codecs_available
from av.stream import Disposition
from helpers.video import add_track, encode_video, write_video

from ceflpipe.stages.extract.hdr import PQ, to_sdr
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.scene_cuts import mark_scene_cuts
from ceflpipe.stages.extract.timestamps import repair_times
from ceflpipe.stages.extract.video_reader import DecodeError, VideoReader, count_frames, open_video


def numbered(count):
    """Return frames that show their number as eight black or white blocks, which survive any codec."""
    bits = [[i >> b & 1 for b in range(8)] for i in range(count)]
    return [
        np.repeat(np.kron(np.array([row]), np.full((16, 16), 230))[..., None], 3, axis=2).astype(np.uint8)
        for row in bits
    ]


def numbers(frames):
    return [sum((frame.image[8, 8 + 16 * b].mean() > 115) << b for b in range(8)) for frame in frames]


def quadrants():
    frame = np.zeros((96, 128, 3), np.uint8)
    frame[:48, :64] = (200, 0, 0)  # red at the top left
    frame[48:, 64:] = (0, 0, 200)
    return frame


def corners(image):
    """Return the letters of the colors at the top left, top right, bottom left and bottom right."""
    height, width = image.shape[:2]
    points = [image[y * height // 8, x * width // 8].astype(int) for y in (1, 7) for x in (1, 7)]
    return "".join("r" if p[0] > p[2] + 90 else "b" if p[2] > p[0] + 90 else "." for p in points)


def read(path, **view):
    """Return the reader and the frames of a video."""
    reader = open_video(path, **view)
    return reader, list(reader.frames())


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mkv", "mp4v"), ("a.mov", "mp4v")]
)
def test_every_frame_is_decoded_in_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40), codec=codec)
    reader = open_video(path)
    frames = list(reader.frames())
    assert numbers(frames) == list(range(40))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(40)], abs=1e-3)
    assert count_frames(path) == 40
    assert not reader.truncation()
    assert reader.fps == pytest.approx(25)


def test_every_codec_that_can_be_written_is_decoded(tmp_path):
    """Each encoder of FFmpeg in PyAV's wheel writes six frames into the first container that takes it."""
    sources = []
    for i in range(6):
        image = np.full((144, 176, 3), 40, np.uint8)
        image[:72, :88] = (220, 30, 30)
        image[72:, 20 * i : 20 * i + 24] = 240
        sources.append(image)
    hardware, decoded = ("nvenc", "qsv", "amf", "v4l2", "vaapi", "vulkan"), set()
    passed_over = set().union(*PASSED_OVER.values())
    for name in sorted(codecs_available):
        if any(word in name for word in hardware) or name in passed_over or not is_video_encoder(name):
            continue
        path = write_with_any_container(tmp_path, name, sources)
        assert path is not None, f"{name}: cannot be written; state the reason in PASSED_OVER"
        reader, frames = read(path)
        assert len(frames) == 6, name
        np.testing.assert_allclose([frame.time for frame in frames], np.arange(6) / 25, atol=0.002, err_msg=name)
        for frame, image in zip(frames, sources, strict=True):
            height, width = frame.image.shape[:2]
            expected = cv2.cvtColor(cv2.resize(image, (width, height)), cv2.COLOR_RGB2GRAY)
            actual = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            assert cv2.absdiff(expected, actual).mean() < 16, name
        assert not reader.truncation(), name
        decoded.add(name)
    assert {
        "libx264",
        "libx265",
        "libsvtav1",
        "mpeg2video",
        "libvpx-vp9",
        "h263",
        "mjpeg",
        "dvvideo",
        "dnxhd",
    } <= decoded
    assert len(decoded) > 70


PASSED_OVER = {
    "shows two gray levels or a palette, to which FFmpeg does not convert frames": {
        "a64multi", "a64multi5", "msrle", "pbm", "pdv", "smc", "wbmp", "xbm", "xface",
    },
    "in no container that FFmpeg both writes and reads as several frames": {
        "alias_pix", "bitpacked", "dirac", "fits", "libwebp_anim", "pam", "pcx", "sunrast", "vbn", "vc2", "webp",
    },
    "has other values: linear light, or brightness and color one below the other": {"pgmyuv", "phm"},
    "no codec of files": {"vnull", "wrapped_avframe"},
}  # fmt: skip
"""Encoders by the reason for which no video of theirs is read."""


def is_video_encoder(name):
    try:
        return Codec(name, "w").type == "video"
    except ValueError:  # only a decoder
        return False


def write_with_any_container(folder, codec, images):
    sizes = {"dvvideo": (720, 576), "roqvideo": (128, 128), "dnxhd": (256, 144)}
    options = {"dnxhd": {"profile": "dnxhr_sq"}}.get(codec, {})
    width, height = sizes.get(codec, (176, 144))
    formats = [pixels.name for pixels in Codec(codec, "w").video_formats or []] or ["yuv420p"]
    usual = [name for name in ("yuvj420p", "yuv420p", "rgb24", "bgr24", "yuv422p", "bgr0") if name in formats]
    for ending in ("mkv", "mov", "avi", "nut", "flv", "roq", "rm", "apng", "drc", "mxf", "image2pipe"):
        path = folder / f"{codec}.{ending}"
        try:
            with av.open(str(path), "w", format="image2pipe" if ending == "image2pipe" else None) as container:
                stream = container.add_stream(codec, rate=25, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, (usual or formats)[0]
                for image in images:
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    frame = frame.reformat(width, height, stream.pix_fmt)
                    frame.pts = None
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except (av.FFmpegError, ValueError):
            continue
        return path
    return None


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
def test_times_are_those_of_the_container(tmp_path, name):
    """Phones, browsers and screen recorders write frames when there is something new; with B-frames too."""
    ticks = [0, 33, 66, 500, 510, 1900, 2000, 2033, 5000, 8200]
    codec = "libvpx" if name == "a.webm" else "libx264"
    reader, frames = read(encode_video(tmp_path / name, numbered(10), codec=codec, ticks=ticks))
    assert numbers(frames) == list(range(10))
    assert [frame.time for frame in frames] == pytest.approx([tick / 1000 for tick in ticks])
    assert not reader.truncation()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "libx264", {"bf": "3"}),
        ("a.avi", "libx264", {"bf": "0"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.avi", "mpeg2video", {"bf": "2"}),
        ("a.asf", "libx264", {"bf": "3"}),
        ("a.wmv", "mpeg4", {"bf": "2"}),
        ("a.m2v", "mpeg2video", {"bf": "2"}),
    ],
)
def test_times_are_those_of_the_frames_where_the_container_has_only_times_of_decoding(tmp_path, name, codec, options):
    """FFmpeg guesses those of reordered frames, which makes them late, or not increasing."""
    frames = [np.full((64, 96, 3), 40, np.uint8) for _ in range(40)]
    for number, image in enumerate(frames):
        image[:, 2 * number : 2 * number + 16] = 220
    reader, read_frames = read(encode_video(tmp_path / name, frames, codec=codec, options=options))
    assert [frame.time for frame in read_frames] == pytest.approx([i / 25 for i in range(40)], abs=1e-3)
    positions = [
        np.average(np.arange(96), weights=np.maximum(0.0, f.image.mean(axis=(0, 2)) - 130)) for f in read_frames
    ]
    assert positions == pytest.approx([2 * i + 7.5 for i in range(40)], abs=1.5)
    assert not reader.truncation()
    assert not reader.remarks()


NOT_CODED = b"\0\0\1\xb6\x50\xcf"
"""A frame of MPEG-4 that says only that the one before stays, as DivX and Xvid write where nothing changes."""


@pytest.mark.parametrize("content", [NOT_CODED, b"\xff" * 40], ids=["not coded", "damaged"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_a_frame_of_an_avi_that_is_left_out_delays_no_other(tmp_path, content, b_frames):
    path = encode_video(tmp_path / "a.avi", numbered(30), codec="mpeg4", options={"bf": b_frames, "g": "5"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.avi"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            data = av.Packet(content if number == 14 else bytes(packet))
            data.stream, data.dts, data.pts, data.is_keyframe = track, number, number, packet.is_keyframe
            data.time_base = Fraction(1, 25)
            target.mux(data)
    frames = list(open_video(tmp_path / "b.avi").frames())
    shown = dict(zip(numbers(frames), (frame.time for frame in frames), strict=True))
    assert len(shown) >= 28
    errors = np.array([round(25 * time) - number for number, time in shown.items()])
    # where frames are reordered, one next to it may be taken for it
    assert np.count_nonzero(errors) <= (b_frames != "0")
    assert np.abs(errors).max() <= 2


def test_a_video_that_starts_late_starts_at_zero_unless_another_track_is_first(tmp_path):
    """What a player shows: the first track to begin is at zero."""
    ticks = [700 + 40 * i for i in range(6)]
    _, frames = read(encode_video(tmp_path / "a.mkv", numbered(6), ticks=ticks))
    assert [frame.time for frame in frames] == pytest.approx([0.04 * i for i in range(6)])
    with av.open(str(tmp_path / "b.mkv"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        add_track(container, numbered(6), ticks=ticks)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        samples.sample_rate, samples.pts = 8000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    _, frames = read(tmp_path / "b.mkv")
    assert [frame.time for frame in frames] == pytest.approx([0.7 + 0.04 * i for i in range(6)])


def test_image_folders_are_read_in_natural_order_at_the_given_rate(tmp_path):
    for i, frame in enumerate(numbered(12), start=1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "notes.txt").write_text("not a frame")
    reader, frames = read(tmp_path)
    assert numbers(frames) == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(12)])
    assert reader.remarks() == "25 frames per second assumed"
    reader, frames = read(tmp_path, fps=60.0)
    assert [frame.time for frame in frames] == pytest.approx([i / 60 for i in range(12)])
    assert reader.remarks() == ""


def test_colors_are_rgb_and_rotation_is_clockwise(tmp_path):
    path = write_video(tmp_path / "a.avi", [quadrants()] * 3, codec="MJPG")
    assert corners(read(path)[1][0].image) == "r..b"
    clockwise = read(path, rotation="90")[1][0].image
    assert clockwise.shape == (128, 96, 3)
    assert corners(clockwise) == ".rb."
    assert corners(read(path, rotation="180")[1][0].image) == "b..r"
    assert corners(read(path, rotation="270")[1][0].image) == ".br."


def test_region_is_cut_out_after_rotation(tmp_path):
    path = write_video(tmp_path / "a.avi", [quadrants()] * 2, codec="MJPG")
    cut = read(path, region="0 0 60 40")[1][0].image
    assert cut.shape == (40, 60, 3)
    assert cut[..., 0].mean() > 150
    cut = read(path, rotation="90", region="52 0 40 60")[1][0].image
    assert cut.shape == (60, 40, 3)
    assert cut[..., 0].mean() > 150
    with pytest.raises(DecodeError, match="region 100 0 40 20 exceeds its frames of 128 x 96 pixels"):
        read(path, region="100 0 40 20")


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "expected"),  # a point (x, y) is shown at (a x + c y, b x + d y) for the rows a b, c d
    [
        ((1, 0, 0, 1), "r..b"),
        ((0, 1, -1, 0), ".rb."),
        ((-1, 0, 0, -1), "b..r"),
        ((0, -1, 1, 0), ".br."),
        ((-1, 0, 0, 1), ".rb."),  # a mirror, as selfie cameras write
        ((1, 0, 0, -1), ".br."),
        ((0, 1, 1, 0), "r..b"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_the_display_matrix_turns_and_flips(tmp_path, name, matrix, expected):
    a, b, c, d = (ONE * value for value in matrix)
    image = quadrants()
    image[:48, 64:] = 120  # so that a flip differs from a quarter turn
    path = encode_video(tmp_path / name, [image] * 3, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    shown = read(path)[1][0].image
    assert corners(shown) == expected
    assert shown.shape == ((128, 96, 3) if b else (96, 128, 3))
    x, y = (96, 24)  # the middle of the gray part, from the middle of the frame
    x, y = x - 64, y - 48
    height, width = shown.shape[:2]
    row, column = height // 2 + (b * x + d * y) // ONE, width // 2 + (a * x + c * y) // ONE
    assert abs(int(shown[row, column].mean()) - 120) < 15


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [(Fraction(2), (96, 256, 3)), (Fraction(1, 2), (192, 128, 3)), (Fraction(16, 11), (96, 186, 3))],
)
def test_pixels_are_made_square(tmp_path, aspect, shape):
    image = read(encode_video(tmp_path / "a.mp4", [quadrants()] * 3, pixel_aspect=aspect))[1][1].image
    assert image.shape == shape
    assert corners(image) == "r..b"


def combed(count):
    """Return frames of a bar that moves to the right, whose odd lines show it half a frame later."""
    frames = np.full((count, 96, 160, 3), 30, np.uint8)
    for i in range(count):
        frames[i, 0::2, 12 * i : 12 * i + 40] = 220
        frames[i, 1::2, 12 * i + 6 : 12 * i + 46] = 220
    return list(frames)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mpg", "mpeg2video", {}), ("a.mp4", "libx264", {"x264-params": "tff=1:interlaced=1"})],
)
def test_interlaced_frames_are_deinterlaced(tmp_path, name, codec, options):
    frames = combed(9)
    path = encode_video(tmp_path / name, frames, codec=codec, options=options, interlaced=True)
    reader, shown = read(path)
    assert len(shown) == 9
    assert [frame.time for frame in shown] == pytest.approx([i / 25 for i in range(9)], abs=1e-3)
    assert reader.remarks() == "de-interlaced"
    for frame, original in zip(shown[1:-1], frames[1:-1], strict=True):
        lines, before = frame.image.astype(int), original.astype(int)
        assert np.abs(np.diff(lines, axis=0)).mean() < 0.35 * np.abs(np.diff(before, axis=0)).mean()
        assert min(np.abs(lines[k::2] - before[k::2]).mean() for k in (0, 1)) < 4  # the lines of one field stay


def test_no_frame_is_left_of_an_earlier_one(tmp_path):
    """opencv-python 4.13 returns pictures that it never filled for interlaced video: black, or of another video."""
    encode_video(tmp_path / "white.mp4", [np.full((96, 128, 3), 250, np.uint8)] * 6)
    gray = [np.full((96, 128, 3), 90, np.uint8)] * 6
    encode_video(tmp_path / "gray.mpg", gray, codec="mpeg2video", interlaced=True)
    read(tmp_path / "white.mp4")
    means = [frame.image.mean() for frame in read(tmp_path / "gray.mpg")[1]]
    assert means == pytest.approx([90] * 6, abs=3)


POISON = """
import hashlib, sys
from pathlib import Path
from ceflpipe.stages.extract.hdr import PQ, to_sdr
from ceflpipe.stages.extract.video_reader import DecodeError, open_video
for path in map(Path, sys.argv[1:]):
    try:
        print(path.name, [hashlib.sha256(frame.image.tobytes()).hexdigest() for frame in open_video(path).frames()])
    except DecodeError as error:
        print(path.name, error)
"""


def test_no_byte_of_a_frame_comes_from_memory_that_the_decoder_did_not_fill(tmp_path):
    """The C library fills new memory with a byte of our choice: two choices give the same frames. Nothing of FFmpeg's is printed."""
    rng, paths = np.random.default_rng(0), []
    moving = [np.roll(np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))), 3 * i, 1) for i in range(20)]
    frames = [image.astype(np.uint8) for image in moving]
    for name, codec, interlaced in [
        ("a.mp4", "libx264", False), ("b.mkv", "mpeg4", False), ("c.avi", "mjpeg", False), ("d.mpg", "mpeg2video", True),
        ("e.webm", "libvpx", False), ("f.mkv", "libx265", False), ("g.mp4", "libsvtav1", False), ("h.mov", "png", False),
        ("i.mkv", "ffv1", False), ("j.webm", "libvpx-vp9", False), ("k.ts", "mpeg2video", False),
    ]:  # fmt: skip
        pixels = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        path = encode_video(tmp_path / name, frames, codec=codec, pix_fmt=pixels, interlaced=interlaced)
        content = bytearray(path.read_bytes())
        for _ in range(12):
            content[rng.integers(len(content) // 5, len(content))] ^= int(rng.integers(1, 255))
        damaged = tmp_path / f"damaged_{name}"
        damaged.write_bytes(content)
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        paths += [path, damaged, cut]
    outputs = []
    for byte in ("85", "170"):
        done = subprocess.run(
            [sys.executable, "-c", POISON, *map(str, paths)],
            env={**os.environ, "MALLOC_PERTURB_": byte},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        outputs.append(done.stdout.splitlines())
    assert len(outputs[0]) == len(paths)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mkv", "libx265", "yuv420p10le"), ("a.mov", "prores_ks", "yuv422p10le"), ("a.mkv", "ffv1", "yuv444p16le"),
        ("a.mkv", "mjpeg", "yuvj420p"), ("a.mov", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mp4", "libsvtav1", "yuv420p"),
        ("a.mov", "qtrle", "rgb24"),
    ],
)  # fmt: skip
def test_colors_do_not_depend_on_depth_and_range(tmp_path, name, codec, pixels):
    image = quadrants()
    image[60:, :40] = 255
    shown = read(encode_video(tmp_path / name, [image] * 4, codec=codec, pix_fmt=pixels))[1][1].image.astype(int)
    for y, x in ((20, 20), (20, 100), (80, 100), (80, 20)):
        assert shown[y, x].tolist() == pytest.approx(image[y, x].tolist(), abs=4)


def test_gray_video_is_gray(tmp_path):
    shown = read(encode_video(tmp_path / "a.mkv", [quadrants()] * 3, codec="ffv1", pix_fmt="gray"))[1][0].image
    assert shown.shape == (96, 128, 3)
    assert shown[20, 20].tolist() == pytest.approx([0.299 * 200] * 3, abs=3)


def test_transparent_parts_are_black(tmp_path):
    image = np.dstack([np.full((96, 128, 3), 200, np.uint8), np.repeat([[0, 128, 255, 255]], 96, 0).repeat(32, 1)])
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "rgba"
        frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgba")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = read(tmp_path / "a.mov")[1][0].image
    assert [int(shown[50, x, 0]) for x in (10, 50, 80)] == pytest.approx([0, 100, 200], abs=1)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_parts_of_browser_video_are_black(tmp_path, codec):
    """FFmpeg's own decoders leave the transparency out, and show what is behind it."""
    planes = np.full((96 * 5 // 2, 128), 128, np.uint8)  # brightness, two of color, transparency
    planes[:96], planes[144:] = 200, np.repeat([0, 255], 64)
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for _ in range(4):
            frame = av.VideoFrame(128, 96, "yuva420p")
            for plane, values in zip(
                frame.planes, np.split(planes.ravel(), np.cumsum([96 * 128, 48 * 64, 48 * 64])), strict=True
            ):
                width = plane.width
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, :width] = values.reshape(plane.height, width)
                plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, frames = read(tmp_path / "a.webm")
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12], abs=1e-3)
    for frame in frames:
        assert [int(frame.image[50, x, 0]) for x in (20, 100)] == pytest.approx([0, 215], abs=4)


def encode_pq(luminance):
    """Return the PQ value (0..1) of luminances in cd/m2, as ITU-R BT.2100 defines it."""
    power = (np.asarray(luminance) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def encode_hlg(luminance):
    """Return the HLG value (0..1) of gray of luminances in cd/m2 on a display of 1000 cd/m2."""
    scene = (np.asarray(luminance) / 1000) ** (1 / 1.2)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073
    )


@pytest.mark.parametrize(("name", "transfer", "encode"), [("PQ", 16, encode_pq), ("HLG", 18, encode_hlg)])
def test_hdr_colors_look_like_those_of_ordinary_video(tmp_path, name, transfer, encode):
    """Paper white is 203 cd/m2; gray of a fraction of its light has that fraction in an ordinary picture, too."""
    fractions = np.array([0, 0.02, 0.18, 0.5, 0.75, 1, 4])
    image = np.repeat(np.round(65535 * encode(203 * fractions)), 16).astype(np.uint16)
    image = np.repeat(np.repeat(image[None], 64, 0)[..., None], 3, 2)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = image.shape[1], 64, "gbrp16le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = transfer, 9
        frame = av.VideoFrame.from_ndarray(image, format="rgb48le").reformat(format="gbrp16le")
        frame.color_trc, frame.color_primaries = transfer, 9
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader, (shown,) = read(tmp_path / "a.mkv")
    assert reader.remarks() == f"HDR ({name}) converted to ordinary colors"
    values = shown.image[30, 8::16].astype(int)
    assert np.ptp(values, axis=1).max() <= 2  # gray
    assert values[:5, 0] == pytest.approx(255 * fractions[:5] ** (1 / 2.4), abs=2)
    assert 235 < values[5, 0] < values[6, 0] <= 255


def test_red_stays_red_in_hdr():
    red = 203 * np.array([0.6274, 0.0691, 0.0164])  # of BT.709, in the primaries of BT.2020
    image = np.round(65535 * encode_pq(red)).astype(np.uint16)[None, None]
    assert to_sdr(image, PQ)[0, 0].tolist() == pytest.approx([247, 0, 0], abs=8)


def test_a_cover_is_not_the_video(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        add_track(container, numbered(12))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 99, np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
    assert numbers(read(tmp_path / "a.mkv")[1]) == list(range(12))


def test_a_song_with_a_cover_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        sound = container.add_stream("mp3", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        for number in range(40):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 44100, 1152 * number
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
    with pytest.raises(DecodeError, match="no moving video track"):
        open_video(tmp_path / "a.mp3")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_of_two_video_tracks_the_one_with_more_frames_is_read(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        slides = container.add_stream("libx264", rate=25)
        slides.width, slides.height, slides.pix_fmt = 320, 240, "yuv420p"
        add_track(container, numbered(20))
        for i in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 50 * i, np.uint8), format="rgb24")
            container.mux(slides.encode(frame))
        container.mux(slides.encode(None))
    reader, frames = read(tmp_path / name)
    assert numbers(frames) == list(range(20))
    assert reader.remarks() == "track 1 of 2 video tracks, the one with most frames"


def noise(count):
    return [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.avi", "mjpeg", {}), ("a.mp4", "libx264", {"movflags": "faststart"}), ("a.mkv", "libx264", {})],
)
def test_a_video_cut_in_the_middle_is_truncated(tmp_path, name, codec, options):
    path = tmp_path / name
    with av.open(str(path), "w", options=options) as container:
        add_track(container, noise(100), codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    reader = open_video(path)
    assert sum(1 for _ in reader.frames()) == 100
    assert reader.truncation() == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = open_video(path)
    count = sum(1 for _ in reader.frames())
    assert 30 < count < 70
    assert "packets end at" in reader.truncation()
    assert "of 4.00 s" in reader.truncation()


def test_a_copy_trimmed_without_encoding_is_whole(tmp_path):
    """A phone's trim keeps the frames before the new start, which others depend on; an edit list hides them."""
    encode_video(tmp_path / "whole.mp4", numbered(50), options={"g": "50", "bf": "0"})
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        source = whole.streams.video[0]
        stream = cut.add_stream_from_template(source)
        shift = round(Fraction(20, 25) / source.time_base)
        for packet in whole.demux(source):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                cut.mux(packet)
    reader, frames = read(tmp_path / "cut.mp4")
    assert reader.declared_frames == 50
    assert numbers(frames) == list(range(20, 50))
    assert frames[0].time == 0
    assert reader.truncation() == ""


@pytest.mark.parametrize(
    "name", ["a.ts", "a.webm", "a.mkv", "a.gif", "a.flv", "a.3gp", "a.mts", "a.vob", "a.asf", "a.ogv"]
)
def test_whole_files_of_any_kind_are_not_truncated(tmp_path, name):
    codec = {"webm": "libvpx", "gif": "gif", "vob": "mpeg2video", "asf": "wmv2", "3gp": "mpeg4"}.get(
        name[2:], "libx264"
    )
    ending = {"mts": "ts"}.get(name[2:], name[2:])
    if ending == "ogv":
        ending, codec = "mkv", "libvpx"
    path = encode_video(
        tmp_path / f"x.{ending}", numbered(60), codec=codec, pix_fmt="rgb8" if codec == "gif" else "yuv420p"
    )
    reader, frames = read(path.rename(tmp_path / name))
    assert numbers(frames) == list(range(60))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(60)], abs=2e-3)
    assert reader.truncation() == ""


@pytest.mark.parametrize("ending", ["ts", "mkv", "avi"])
def test_a_recording_that_begins_between_two_key_frames_is_noted(tmp_path, ending):
    path = encode_video(tmp_path / f"a.{ending}", numbered(60), options={"bf": "2", "g": "20", "sc_threshold": "0"})
    with av.open(str(path)) as source, av.open(str(tmp_path / f"b.{ending}"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet in packets[6:]:
            packet.stream = track
            target.mux(packet)
    reader, frames = read(tmp_path / f"b.{ending}")
    assert numbers(frames) == list(range(20, 60))
    assert reader.remarks() == "the first 14 of 54 packets gave no frame: it begins between two key frames"
    assert reader.truncation() == ""
    assert np.diff([frame.time for frame in frames]) == pytest.approx([0.04] * 39, abs=2e-3)
    reader, _ = read(path)
    assert reader.remarks() == ""


def test_packets_of_blu_ray_and_camcorder_streams_have_192_bytes(tmp_path):
    path = tmp_path / "a.m2ts"
    with av.open(str(path), "w", format="mpegts", options={"mpegts_m2ts_mode": "1"}) as container:
        add_track(container, numbered(40))
    assert path.stat().st_size % 192 == 0
    assert path.read_bytes()[4] == path.read_bytes()[4 + 192] == 0x47
    reader, frames = read(path)
    assert numbers(frames) == list(range(40))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(40)], abs=2e-3)
    assert (reader.truncation(), reader.remarks()) == ("", "")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_video_that_begins_before_zero_keeps_its_times(tmp_path, name):
    """Matroska has no times below zero, so those of its first frames are missing; MP4 shows frames from zero on."""
    ticks = [40 * number - 480 for number in range(60)]
    with av.open(str(tmp_path / name), "w", options={"avoid_negative_ts": "disabled"}) as container:
        add_track(container, numbered(60), ticks=ticks, options={"bf": "2"})
    reader, frames = read(tmp_path / name)
    first = numbers(frames)[0]
    assert numbers(frames) == list(range(first, 60))
    assert first == (12 if name == "a.mp4" else 0)
    times, note = repair_times([frame.time for frame in frames], reader.fps)
    np.testing.assert_allclose(times, 0.04 * np.arange(len(frames)), atol=0.04)
    assert times[0] >= 0
    assert ("interpolated" in note) == (name == "a.mkv")
    assert reader.truncation() == ""


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mkv", "ffv1", "bgr0"), ("a.avi", "rawvideo", "bgr24"), ("a.webm", "libvpx-vp9", "yuv444p")],
)
def test_a_frame_may_be_a_single_pixel(tmp_path, name, codec, pix_fmt):
    gray = [np.full((1, 1, 3), value, np.uint8) for value in (40, 200, 90)]
    frames = read(encode_video(tmp_path / name, gray, codec=codec, pix_fmt=pix_fmt))[1]
    assert [frame.image.shape for frame in frames] == [(1, 1, 3)] * 3
    assert [int(frame.image.mean()) for frame in frames] == pytest.approx([40, 200, 90], abs=4)
    assert [is_cut for _, is_cut in mark_scene_cuts(frames, lambda frame: frame.image)] == [False] * 3
    assert len(RetinaFace()(frames[0].image)) == 0


def test_a_stream_without_a_duration_that_ends_within_a_packet_is_noted(tmp_path):
    """As browsers and recorders write: there is no duration that could be missed."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        add_track(container, noise(30))
    reader, frames = read(path)
    assert (len(frames), reader.remarks(), reader.truncation()) == (30, "", "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader, frames = read(path)
    assert 5 < len(frames) < 25
    assert reader.remarks() == "the file ends within a packet: it may have been cut off"


def test_a_transport_stream_that_ends_within_a_packet_is_noted(tmp_path):
    path = encode_video(tmp_path / "a.ts", noise(30), codec="mpeg2video")
    reader, frames = read(path)
    assert (len(frames), reader.remarks()) == (30, "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 188 * 188 + 90])
    reader, frames = read(path)
    assert 5 < len(frames) < 25
    assert reader.remarks().endswith("the file ends within a packet: it may have been cut off")


def test_an_mp4_without_its_index_is_refused_with_the_reason(tmp_path):
    for name in ("a.mp4", "b.mp4"):  # the second time too: FFmpeg repeats its message
        path = encode_video(tmp_path / name, noise(20))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DecodeError, match=r"index at its end \(moov\) is missing"):
            open_video(path)


@pytest.mark.parametrize(
    ("codec", "count", "remark"),
    [
        ("mpeg4", 19, "1 of 20 packets are damaged and were left out"),  # the decoder marks the frame as corrupt
        ("mjpeg", 20, "errors in 1 of 20 packets, concealed by the decoder"),
    ],
)
def test_frames_with_errors_are_left_out_or_counted(tmp_path, codec, count, remark):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode_video(tmp_path / "a.avi", noise(20), codec=codec, pix_fmt=pixels)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    position = content.find(packets[10]) + len(packets[10]) // 2
    content[position : position + 30] = b"\xff" * 30
    path.write_bytes(content)
    reader, frames = read(path)
    assert (len(frames), reader.remarks()) == (count, remark)


def test_an_unknown_end_is_never_truncated(tmp_path):
    reader = VideoReader(tmp_path / "a.mp4", 25.0, -1)
    reader.stats.packets, reader.stats.end = 3, 0.1
    assert reader.truncation() == ""


def test_damage_in_the_middle_is_counted_and_the_rest_is_read(tmp_path):
    path = encode_video(
        tmp_path / "a.mkv", numbered(60), codec="ffv1", options={"slicecrc": "1", "level": "3", "g": "1"}
    )
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        position = content.find(bytes(packets[30]))
    content[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    reader, frames = read(path)
    assert numbers(frames) == [i for i in range(60) if i != 30]
    assert reader.remarks() == "1 of 60 packets are damaged and were left out"
    assert not reader.truncation()
    assert [frame.time for frame in frames][29:31] == pytest.approx([29 / 25, 31 / 25], abs=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"), (b"not a video" * 50, "not a video"), (b"\0" * 4096, "not a video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/etc/passwd\n#EXT-X-ENDLIST\n", "not a video"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a video"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_video_is_reported(tmp_path, content, message):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "name",
    [
        b"12:30.mp4", b"concat:a.mp4", b"http:..a.mp4", b"%03d.mp4", b"a b\n.mp4", b"-i.mp4", b"caf\xe9.mp4", b"video",
        b"x" * 246 + b".mp4", "女.mp4".encode(), b"a.jpg", b"a.txt", b"a.m3u8",
    ],
)  # fmt: skip
def test_a_file_may_have_any_name(tmp_path, name, monkeypatch):
    encode_video(tmp_path / "plain.mp4", numbered(4))
    monkeypatch.chdir(tmp_path)
    path = (tmp_path / "plain.mp4").rename(os.fsdecode(name))
    assert numbers(read(path)[1]) == list(range(4))
    (tmp_path / "link").symlink_to(path)
    assert numbers(read(tmp_path / "link")[1]) == list(range(4))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DecodeError, match="pipe, socket or device"):
        open_video(tmp_path / "a.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(DecodeError, match="pipe, socket or device"):
            open_video(tmp_path / "s")


def test_a_frame_that_is_enormous_is_refused_before_decoding(tmp_path, monkeypatch):
    path = encode_video(tmp_path / "a.mkv", [quadrants()] * 3)
    monkeypatch.setattr("ceflpipe.stages.extract.image_folder.MAX_PIXELS", 128 * 96 - 1)
    with pytest.raises(DecodeError, match="128 x 96 pixels"):
        open_video(path)


def test_a_folder_with_a_broken_image_is_refused(tmp_path):
    for i, frame in enumerate(numbered(5)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(
        DecodeError, match=r"2\.png is not a JPEG, PNG, BMP, TIFF or WebP image; skipping it would shift the others"
    ):
        list(open_video(tmp_path).frames())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match="without images"):
        open_video(tmp_path / "empty")


def test_an_image_in_two_formats_is_refused(tmp_path):
    """Nobody knows whether the one is a copy of the other; counted twice it would double the frames."""
    for name in ("1.png", "2.png", "2.tif", "3.png"):
        cv2.imwrite(str(tmp_path / name), quadrants())
    with pytest.raises(DecodeError, match=r"2\.png and 2\.tif are one frame in two formats; move"):
        open_video(tmp_path)


def images_of(path):
    return [frame.image for frame in open_video(path).frames()]


@pytest.mark.parametrize("extension", ["tif", "tiff", "webp", "bmp", "png"])
def test_images_of_any_kind_are_frames(tmp_path, extension):
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == "webp" else []
    for i in range(3):
        assert cv2.imwrite(str(tmp_path / f"{i}.{extension.upper()}"), quadrants()[..., ::-1] + np.uint8(i), options)
    for i, image in enumerate(images_of(tmp_path)):
        np.testing.assert_array_equal(image, quadrants() + np.uint8(i))


def test_a_jpeg_with_fill_bytes_is_read(tmp_path):
    """Any marker may follow several bytes 0xFF."""
    content = cv2.imencode(".jpg", quadrants())[1].tobytes()
    (tmp_path / "1.jpg").write_bytes(content)
    markers = [content.index(marker) for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xda")]
    for position in reversed(markers):
        content = content[:position] + b"\xff\xff\xff" + content[position:]
    (tmp_path / "2.jpg").write_bytes(content)
    first, second = images_of(tmp_path)
    np.testing.assert_array_equal(first, second)


def test_messages_of_image_libraries_are_counted_and_not_printed(tmp_path, capfd):
    content = cv2.imencode(".jpg", noise(1)[0])[1].tobytes()
    middle = len(content) // 2
    (tmp_path / "1.jpg").write_bytes(content)
    (tmp_path / "2.jpg").write_bytes(content[:middle] + b"\xff\xd0zzzz" + content[middle:])
    png = cv2.imencode(".png", noise(1)[0])[1].tobytes()
    profile = b"iCCP" + b"bad\0\0" + zlib.compress(bytes(200))
    chunk = (len(profile) - 4).to_bytes(4, "big") + profile + zlib.crc32(profile).to_bytes(4, "big")
    (tmp_path / "3.png").write_bytes(png[:33] + chunk + png[33:])
    reader = open_video(tmp_path, fps=25.0)
    assert len(list(reader.frames())) == 3
    assert reader.remarks() == "errors in 1 of 3 images, concealed by the decoder"
    (tmp_path / "4.bmp").write_bytes(cv2.imencode(".bmp", noise(1)[0])[1].tobytes()[:900])
    with pytest.raises(DecodeError, match=r"4\.bmp is not an image that OpenCV can read"):
        images_of(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("extension", ["png", "bmp", "jpg", "tif", "webp"])
def test_an_image_that_claims_to_be_enormous_is_refused_before_decoding(tmp_path, extension):
    _, encoded = cv2.imencode(f".{extension}", np.zeros((16, 16, 3), np.uint8))
    content = bytearray(encoded.tobytes())
    if extension == "png":
        content[16:24] = (30_000).to_bytes(4, "big") * 2
    elif extension == "bmp":
        content[18:26] = (30_000).to_bytes(4, "little") * 2
    elif extension == "tif":
        for tag in (256, 257):
            entry = content.rfind(tag.to_bytes(2, "little") + b"\3\0\1\0\0\0")
            content[entry + 8 : entry + 10] = (30_000).to_bytes(2, "little")
    elif extension == "webp":
        content[12:30] = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + (29_999).to_bytes(3, "little") * 2
    else:
        offset = content.find(b"\xff\xc0")
        content[offset + 5 : offset + 9] = (30_000).to_bytes(2, "big") * 2
    (tmp_path / f"1.{extension}").write_bytes(content)
    with pytest.raises(DecodeError, match="30000 x 30000"):
        list(open_video(tmp_path).frames())
