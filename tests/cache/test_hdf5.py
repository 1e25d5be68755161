"""The feature cache: what is written is read, and corruption is detected."""

import time

import h5py
import numpy as np
import pytest
from helpers.fake_cache import fake_video

from ceflpipe.cache import hdf5
from ceflpipe.cache.atomic import safe_name, sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.fingerprint import ExtractionSettings
from ceflpipe.cache.hdf5 import (
    VideoLocation,
    corrupted_videos,
    pack,
    read_features,
    read_index,
    read_settings,
    read_video,
    write_part,
)

SETTINGS = ExtractionSettings(
    "video", "retinaface", "a" * 64, 640, 0.5, "landmarks", 112, "actors", "b" * 64, "imagenet", "bf16", width=512
)


def make_video(video_id: str, length: int, seed: int) -> VideoFeatures:
    rng = np.random.default_rng(seed)
    return fake_video(
        video_id,
        rng.random((length, 512)).astype(np.float16),
        time=np.cumsum(rng.random(length) + 0.01),
        frame_status=rng.integers(0, 3, length).astype(np.uint8),
        scene_start=rng.integers(0, 2, length).astype(np.uint8),
        score=rng.random(length).astype(np.float32),
        box=rng.random((length, 4)).astype(np.float32),
        landmarks=rng.random((length, 5, 2)).astype(np.float32),
    )


def pack_videos(folder, lengths):
    """Return random videos, and a feature cache packed from their part files."""
    videos = [make_video(f"S{i}/väldi[g] {i}", length, i) for i, length in enumerate(lengths)]
    parts = [folder / "parts" / f"{safe_name(video.id)}.h5" for video in videos]
    for part, video in zip(parts, videos, strict=True):
        write_part(part, video, SETTINGS)
    assert pack(folder / "cache.h5", [VideoLocation(part, 0) for part in parts], SETTINGS) == []
    return videos, folder / "cache.h5"


def locations(path, count):
    return [VideoLocation(path, index) for index in range(count)]


def test_read_features_returns_what_was_written(tmp_path):
    videos, path = pack_videos(tmp_path, [5, 0, 2000, 1])
    table = read_features(path)
    assert table.videos.id == [video.id for video in videos]
    for video in videos:
        rows = table.rows(video.id)
        for name in ("features", "time", "frame_status", "score", "box", "landmarks"):
            np.testing.assert_array_equal(getattr(table, name)[rows], getattr(video, name))
    assert table.settings == read_settings(path) == SETTINGS


def test_plain_h5py_reads_a_cache(tmp_path):
    """The layout that docs/cache.md promises to other tools."""
    videos, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r") as file:
        assert file["features"].shape == (12, 512)
        assert file["features"].dtype == np.float16
        start, length = file["videos/start"][1], file["videos/length"][1]
        np.testing.assert_array_equal(file["features"][start : start + length], videos[1].features)
        assert file["videos/id"].asstr()[1] == videos[1].id
        assert file["frames/time"].dtype == np.float64
        np.testing.assert_array_equal(file["frames/time"][start : start + length], videos[1].time)


def test_same_content_gives_same_bytes(tmp_path):
    _, first = pack_videos(tmp_path / "first", [5, 0, 9])
    time.sleep(1.1)  # a time stamp in the file would differ
    _, second = pack_videos(tmp_path / "second", [5, 0, 9])
    assert sha256_of(first) == sha256_of(second)
    repacked = tmp_path / "repacked.h5"
    pack(repacked, locations(first, 3), SETTINGS)
    assert sha256_of(repacked) == sha256_of(first)


def test_flipped_bytes_are_detected_and_not_packed(tmp_path):
    videos, path = pack_videos(tmp_path, [50, 60, 70])
    content = bytearray(path.read_bytes())
    content[content.find(videos[1].features.tobytes()[:64]) + 5] ^= 0xFF
    path.write_bytes(content)
    assert corrupted_videos(path) == [videos[1].id]
    with pytest.raises(CeflError, match="1 of 3 videos corrupted, checksum mismatch"):
        read_features(path)
    assert pack(tmp_path / "new.h5", locations(path, 3), SETTINGS) == [videos[1].id]
    assert read_index(tmp_path / "new.h5").id == [videos[0].id, videos[2].id]


@pytest.mark.parametrize("rows", [1, 100, 100_000])
def test_videos_of_several_files_are_packed_in_any_order(tmp_path, monkeypatch, rows):
    """Blocks of videos that follow one another are copied at once: of a cache, of part files, in an order with and without gaps."""
    monkeypatch.setattr(hdf5, "BLOCK_ROWS", rows)
    videos, path = pack_videos(tmp_path, [5, 0, 70, 1, 30, 0, 12, 8])
    part = VideoLocation(tmp_path / "parts" / f"{safe_name(videos[4].id)}.h5", 0)
    order = [0, 1, 2, 4, 3, 5, 7, 6]
    chosen = [part if number == 4 else VideoLocation(path, number) for number in order]
    assert pack(tmp_path / "new.h5", chosen, SETTINGS) == []
    assert read_index(tmp_path / "new.h5").id == [videos[number].id for number in order]
    for number in order:
        copied = read_video(tmp_path / "new.h5", videos[number].id)
        for array, expected in zip(copied.arrays, videos[number].arrays, strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_file_that_is_not_hdf5_is_rejected(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(CeflError, match=r"x\.h5: not a readable HDF5 file .* run ceflpipe extract"):
        read_features(path)


def test_another_hdf5_file_is_rejected(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.zeros((3, 512))
    with pytest.raises(CeflError, match="not a feature cache"):
        read_features(tmp_path / "x.h5")


def test_lengths_that_do_not_add_up_are_rejected(tmp_path):
    _, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        file["videos/length"][1] = 7000
    with pytest.raises(CeflError, match="do not add up to its frames"):
        read_features(path)


@pytest.mark.parametrize("key", ["id", "fps", "fingerprint", "status", "settings"])
def test_a_changed_index_is_rejected(tmp_path, key):
    _, path = pack_videos(tmp_path, [5, 7])
    with h5py.File(path, "r+") as file:
        if key == "settings":
            file.attrs["settings"] = file.attrs["settings"].replace("1", "2") + " "
        else:
            file[f"videos/{key}"][1] = {"id": b"x", "fps": 13.0, "fingerprint": b"f", "status": b"no"}[key]
    with pytest.raises(CeflError, match="do not match their checksum"):
        read_features(path)
