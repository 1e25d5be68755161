"""Room that an extraction needs: enough, not far too much, and asked for before a frame is decoded."""

import shutil

import numpy as np
import pytest
from helpers.fake_cache import fake_video
from helpers.runs import SETTINGS
from helpers.video import write_video

from ceflpipe.cache import ownership
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import VideoLocation, pack, write_part
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract import disk_space
from ceflpipe.stages.extract.disk_space import check_extraction_space, count_declared_frames, extraction_bytes
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.extractor import VideoJob

MEGABYTE = 1_000_000


@pytest.mark.parametrize("frames", [[1], [60] * 20, [1024, 0, 7], [1025, 3000]])
def test_the_estimate_covers_part_files_and_cache(tmp_path, frames):
    locations = []
    for number, count in enumerate(frames):
        part = tmp_path / f"{number}.h5"
        write_part(part, fake_video(f"v{number}", np.zeros((count, 512), np.float16)), SETTINGS)
        locations.append(VideoLocation(part, 0))
    pack(tmp_path / "x.h5", locations, SETTINGS)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert (
        size - (1 << 16) <= extraction_bytes(frames, 512) <= 1.6 * size
    )  # the room of an empty cache is always asked for


def jobs(folder, lengths):
    for name, length in lengths.items():
        write_video(folder / f"{name}.mp4", [np.full((96, 96, 3), i, np.uint8) for i in range(length)])
    return [VideoJob(name, folder / f"{name}.mp4") for name in lengths]


def limit_space(monkeypatch, free):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=free))


def test_containers_are_opened_only_where_files_of_their_size_might_not_fit(tmp_path, monkeypatch):
    videos, opened = jobs(tmp_path, {"a": 30, "b": 50}), []

    def executor(function, tasks):
        opened.extend(path.name for paths in tasks for path in paths)
        return map(function, tasks)

    limit_space(monkeypatch, 10**12)
    check_extraction_space(tmp_path / "x.h5", [], videos, 512, executor)
    assert not opened
    needed = extraction_bytes([30, 50], 512)
    limit_space(monkeypatch, needed)
    check_extraction_space(tmp_path / "x.h5", [], videos, 512, executor)
    assert opened == ["a.mp4", "b.mp4"]
    limit_space(monkeypatch, needed - 1)
    with pytest.raises(CeflError, match=r"MB are needed.*make room, or give --out a folder on another disk"):
        check_extraction_space(tmp_path / "x.h5", [], videos, 512, executor)


def test_what_is_finished_is_needed_again_for_the_new_cache(tmp_path, monkeypatch):
    videos = jobs(tmp_path, {"a": 30})
    (tmp_path / "x.h5").write_bytes(bytes(MEGABYTE))
    limit_space(monkeypatch, extraction_bytes([30], 512) + MEGABYTE // 2)
    check_extraction_space(tmp_path / "x.h5", [], videos, 512, map)
    with pytest.raises(CeflError, match="MB are free"):
        check_extraction_space(tmp_path / "x.h5", [tmp_path / "x.h5"], videos, 512, map)


def test_the_hint_for_crops_names_no_option(tmp_path, make_manifest, monkeypatch):
    limit_space(monkeypatch, 110_000)  # a little more than any command needs
    config = ExtractConfig(keep="crops", crop_size=32)
    with pytest.raises(CeflError, match=r"MB are needed.*make room, or run this in a folder on another disk$"):
        extract_features(make_manifest("a"), config, tmp_path / "crops/32px.h5")


def test_a_container_that_breaks_the_decoder_does_not_end_the_command(tmp_path, monkeypatch):
    videos = jobs(tmp_path, {"a": 5})
    limit_space(monkeypatch, 1 << 17)
    monkeypatch.setattr(disk_space, "count_declared_frames", _die)
    check_extraction_space(tmp_path / "x.h5", [], videos, 512, process_executor(1))


def _die(paths):
    import os

    os._exit(1)


def test_files_without_frames_count_as_none(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (video,) = jobs(tmp_path, {"a": 9})
    paths = [tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "nothing.mp4", video.path]
    assert count_declared_frames(paths) == [0, 0, 0, 9]
