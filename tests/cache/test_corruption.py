"""Files that changed on disk, or cannot be read: found, named, made again, and never a way into a dead end."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ceflpipe.cache.atomic import safe_name
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import parts_folder
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry


def spoil(file: Path, video: str) -> None:
    import h5py

    with h5py.File(file, "r+") as cache:
        row = list(cache["videos/id"].asstr()).index(video)
        place = int(cache["videos/start"][row])
        cache["features"][place, 0] = cache["features"][place, 0] + 1


def test_verify_redoes_what_was_damaged_in_the_cache(tmp_path, random_encoder, face_video):
    for name in ("a", "b"):
        shutil.copy(face_video, tmp_path / f"{name}.mp4")
    listed = Manifest("x", tmp_path, tuple(VideoEntry(n, f"{n}.mp4", "fear") for n in ("a", "b")), ("fear",))
    wishes, cache = ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32"), tmp_path / "x.h5"
    extract_features(listed, wishes, cache)
    calm = cache.read_bytes()
    spoil(cache, "b")
    with pytest.raises(CeflError, match="extract --verify to redo them"):
        read_features(cache)
    assert extract_features(listed, wishes, cache, verify=True).num_extracted == 1
    assert cache.read_bytes() == calm


@pytest.mark.parametrize("harm", ["a number", "all of it"])
def test_a_damaged_part_file_is_made_again(tmp_path, random_encoder, face_video, harm):
    shutil.copy(face_video, tmp_path / "a.mp4")
    listed = Manifest("x", tmp_path, (VideoEntry("a", "a.mp4", "fear"),), ("fear",))
    wishes, cache = ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32"), tmp_path / "x.h5"
    extract_features(listed, wishes, cache)
    calm = cache.read_bytes()
    parts = parts_folder(cache)
    parts.mkdir()
    part = parts / f"{safe_name('a')}.h5"
    shutil.move(cache, part)  # as after a kill before the merge: a part is a cache of one video
    if harm == "a number":
        spoil(part, "a")
    else:
        part.write_bytes(b"rubbish" * 1000)
    assert extract_features(listed, wishes, cache).num_extracted == 1
    assert cache.read_bytes() == calm


def test_a_part_of_other_settings_does_not_count_when_a_worker_dies(tmp_path, random_encoder, face_video):
    shutil.copy(face_video, tmp_path / "a.mp4")
    listed = Manifest("x", tmp_path, (VideoEntry("a", "a.mp4", "fear"),), ("fear",))
    wishes, cache = ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32"), tmp_path / "x.h5"
    extract_features(listed, wishes, cache)
    parts_folder(cache).mkdir()
    shutil.move(cache, parts_folder(cache) / f"{safe_name('a')}.h5")
    larger = replace(wishes, size=96)
    result = extract_features(
        listed, larger, cache, executor=lambda function, tasks: [(task, "it died") for task in tasks]
    )
    assert [(name, status) for name, status, _ in result.failed] == [("a", "crashed")]


def test_a_file_that_may_not_be_read_costs_itself(tmp_path, random_encoder, face_video, monkeypatch):
    """The tests run as root, who may read everything; so the system's answer is given in its place."""
    for name in ("a", "locked"):
        shutil.copy(face_video, tmp_path / f"{name}.mp4")
    may_open = Path.open

    def refuse(self, *arguments, **keywords):
        if self.name == "locked.mp4":
            raise PermissionError(13, "Permission denied", str(self))
        return may_open(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    listed = Manifest("x", tmp_path, tuple(VideoEntry(n, f"{n}.mp4", "fear") for n in ("a", "locked")), ("fear",))
    for _ in range(2):
        result = extract_features(
            listed, ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32"), tmp_path / "x.h5"
        )
        assert result.failed == [("locked", "unreadable", "it cannot be read: Permission denied")]
    assert read_index(tmp_path / "x.h5").status == ["ok", "unreadable"]


def test_a_dry_run_leaves_a_damaged_cache_where_it_is(tmp_path, random_encoder, face_video):
    listed = Manifest("x", face_video.parent, (VideoEntry("a", face_video.name, "fear"),), ("fear",))
    (tmp_path / "x.h5").write_bytes(b"rubbish")
    with pytest.raises(CeflError, match="not a readable HDF5 file"):
        extract_features(listed, ExtractConfig(encoder=random_encoder, crop_size=64), tmp_path / "x.h5", dry_run=True)
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]
