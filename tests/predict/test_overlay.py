"""Overlay videos: the picture as large as it was, its times, and its sound in step with it."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.video import encode_video, panning

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.predict import overlay
from ceflpipe.stages.predict.overlay import check_overlay, write_overlay_video
from ceflpipe.stages.predict.prediction import FaceTrack, Prediction, WindowPrediction

RATE = 48_000
TICKS = np.cumsum([0, *np.random.default_rng(0).integers(20, 80, 59)]).tolist()
"""Times of the frames in milliseconds: about three seconds."""
BURST = 1.5
"""Seconds at which a tone begins in the sound, which is silent before."""


def write_sounding_video(path, images, codec, *, late_ms=0):
    """Write frames at TICKS and three seconds of sound; both begin ``late_ms`` after zero in the file's own count."""
    times = np.arange(3 * RATE) / RATE
    tone = np.where(times < BURST, 0, 0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", options={"crf": "12"})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "yuv444p"  # so that sides may be odd
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        for image, tick in zip(images, TICKS, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick + late_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        for first in range(0, len(tone), 960):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 960], format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), first + late_ms * RATE // 1000
            container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


def prediction_of(path):
    """A prediction of one window of happiness for all frames, and a face in the middle."""
    edges = (*(tick / 1000 for tick in TICKS), TICKS[-1] / 1000 + 0.05)
    count = len(TICKS)
    window = WindowPrediction(
        0, count, edges[0], edges[-1], "happiness", {"happiness": 0.8, "sadness": 0.2}, [(edges[0], edges[-1], 1.0)], (edges[0], edges[-1])
    )  # fmt: skip
    box = np.tile(np.float32([50, 50, 150, 170]), (count, 1))
    status, score = np.full(count, FrameStatus.DETECTED, np.uint8), np.ones(count, np.float32)
    face = FaceTrack(status, score, box, np.full((count, 5, 2), 100, np.float32))
    return Prediction(
        path, count, count, 20.0, "happiness", window.probabilities, window.intensity, window.located_time, begin=0.0, end=edges[-1],
        windows=(window,), edges=edges, labels=("happiness", "sadness"), face=face,
    )  # fmt: skip


def tone_begins(path):
    """Return the seconds after the first frame at which the sound of a file is no longer silent."""
    with av.open(str(path)) as container:
        start = min(float(s.start_time * s.time_base) for s in container.streams)
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(float)).max(axis=0)
            loud = np.flatnonzero(samples > 0.1 * (1 if frame.format.name.startswith("fl") else np.iinfo(np.int16).max))
            if len(loud):
                return float(frame.pts * frame.time_base) + loud[0] / frame.sample_rate - start
    return None


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    ("name", "codec", "written"),
    [
        ("a.mp4", "aac", "aac"),
        ("b.mkv", "flac", "flac"),
        ("c.mkv", "pcm_s16le", "aac"),
        ("d.mkv", "libopus", "opus"),
        ("e.avi", "libmp3lame", "mp3"),
    ],
)
@pytest.mark.parametrize("late_ms", [0, 700])
def test_sound_is_copied_or_encoded_and_stays_in_step(photographs, tmp_path, name, codec, written, late_ms):
    images = panning(photographs["astronaut"], len(TICKS), (224, 200), (60, 0), (140, 30))
    source = write_sounding_video(tmp_path / name, images, codec, late_ms=late_ms)
    out = tmp_path / "out.mp4"
    write_overlay_video(source, [prediction_of(source)], out)
    with av.open(str(out)) as container:
        assert [stream.codec_context.codec.canonical_name for stream in container.streams] == ["h264", written]
        assert container.streams.video[0].pix_fmt == "yuv420p"  # what browsers play
    assert tone_begins(source) == pytest.approx(BURST, abs=0.03)
    assert tone_begins(out) == pytest.approx(BURST, abs=0.03)
    seconds = [frame.time for frame in open_video(out).frames()]
    np.testing.assert_allclose(seconds, np.array(TICKS) / 1000, atol=1e-4)
    if written in codec:
        assert packets_of(out) == packets_of(source)


def test_frames_keep_their_size_and_become_even(photographs, tmp_path):
    images = panning(photographs["astronaut"], len(TICKS), (223, 201), (60, 0), (140, 30))
    source = write_sounding_video(tmp_path / "odd.mkv", images, "flac")
    out = tmp_path / "out.mp4"
    write_overlay_video(source, [prediction_of(source)], out)
    frame = next(open_video(out).frames()).image
    assert frame.shape == (202 + 2 * 14, 224, 3)
    inside = np.s_[180:200, 5:215]  # nothing is drawn there
    assert np.abs(frame[inside].astype(int) - images[0][inside]).mean() < 4


def test_a_video_without_sound_or_with_damaged_sound_gets_an_overlay(photographs, tmp_path):
    images = panning(photographs["astronaut"], len(TICKS), (224, 200), (60, 0), (140, 30))
    source = write_sounding_video(tmp_path / "whole.mkv", images, "flac")
    content = bytearray(source.read_bytes())
    sound = packets_of(source)
    for packet in sound[len(sound) // 2 :]:
        at = content.find(packet)
        content[at : at + len(packet)] = bytes(len(packet))
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(content)
    for path in (damaged, source):
        write_overlay_video(path, [prediction_of(path)], tmp_path / "out.mp4")
        assert len(list(open_video(tmp_path / "out.mp4").frames())) == len(TICKS)
    silent = encode_video(tmp_path / "silent.mkv", images, ticks=TICKS)
    write_overlay_video(silent, [prediction_of(silent)], tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_the_next_best_encoder_is_taken_and_named(monkeypatch):
    assert (overlay.overlay_encoder(), check_overlay()) == ("libx264", "")
    monkeypatch.setattr(overlay, "ENCODERS", ("no-such-encoder", "mpeg4"))
    assert "MPEG-4, which few browsers play" in check_overlay()
    monkeypatch.setattr(overlay, "ENCODERS", ("no-such-encoder",))
    with pytest.raises(CeflError, match="leave out --overlay"):
        check_overlay()
