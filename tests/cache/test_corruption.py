"""Files that were corrupted on disk or cannot be read: detected, reported, and extracted again."""

import shutil
from pathlib import Path

import h5py
import pytest

from ceflpipe.cache.atomic import safe_name
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import parts_folder


@pytest.fixture
def config(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "x.h5"


def change_a_feature(file: Path, video_id: str) -> None:
    with h5py.File(file, "r+") as cache:
        video = list(cache["videos/id"].asstr()).index(video_id)
        frame = int(cache["videos/start"][video])
        cache["features"][frame, 0] = cache["features"][frame, 0] + 1


def test_verify_redoes_corrupted_videos(make_manifest, config, cache):
    manifest = make_manifest("a", "b")
    extract_features(manifest, config, cache)
    content = cache.read_bytes()
    change_a_feature(cache, "b")
    with pytest.raises(CeflError, match="extract --verify to redo them"):
        read_features(cache)
    result = extract_features(manifest, config, cache, verify=True)
    assert result.num_extracted == 1
    assert result.reasons == {"corrupted in the feature cache": 1}
    assert cache.read_bytes() == content


@pytest.mark.parametrize("corrupted", ["one feature", "whole file"])
def test_a_corrupted_part_file_is_extracted_again(make_manifest, config, cache, corrupted):
    manifest = make_manifest("a")
    extract_features(manifest, config, cache)
    content = cache.read_bytes()
    part = parts_folder(cache) / f"{safe_name('a')}.h5"
    part.parent.mkdir()
    shutil.move(cache, part)  # as after a kill before packing: a part file is a cache of one video
    if corrupted == "one feature":
        change_a_feature(part, "a")
    else:
        part.write_bytes(b"rubbish" * 1000)
    assert extract_features(manifest, config, cache).num_extracted == 1
    assert cache.read_bytes() == content


def test_a_part_file_of_other_settings_does_not_count_after_a_crash(make_manifest, config, cache):
    manifest = make_manifest("a")
    extract_features(manifest, config, cache)
    content = cache.read_bytes()
    parts_folder(cache).mkdir()
    shutil.move(cache, parts_folder(cache) / f"{safe_name('a')}.h5")
    result = extract_features(
        manifest,
        config.model_copy(update={"crop_size": 96}),
        cache,
        redo="settings",
        executor=lambda function, tasks: [(task, "crashed") for task in tasks],
    )
    assert [(video_id, status) for video_id, status, _ in result.failed] == [("a", "crashed")]
    assert not cache.exists()
    extract_features(manifest, config, cache)  # with the settings it has, the part is as good as before
    assert cache.read_bytes() == content


def test_a_file_without_read_permission_fails_alone(make_manifest, config, cache, monkeypatch):
    """The tests may run as root, who can read everything, so the error of the system is simulated."""
    manifest = make_manifest("a", "locked")
    original_open = Path.open

    def open_unless_locked(self, *arguments, **keywords):
        if self.name == "locked.mp4":
            raise PermissionError(13, "Permission denied", str(self))
        return original_open(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", open_unless_locked)
    for _ in range(2):
        result = extract_features(manifest, config, cache)
        assert result.failed == [("locked", "unreadable", "cannot be read: Permission denied")]
    assert read_index(cache).id == ["a"]  # nothing is known of the other, so the next run tries it again
    monkeypatch.undo()
    assert extract_features(manifest, config, cache).failed == []


def test_a_corrupted_cache_is_set_aside(make_manifest, config, cache):
    manifest = make_manifest("a")
    extract_features(manifest, config, cache)
    content = cache.read_bytes()
    cache.write_bytes(content[:100])
    extract_features(manifest, config, cache)
    assert cache.read_bytes() == content
    assert cache.with_name("x.h5.corrupted-1").read_bytes() == content[:100]


def test_a_file_that_is_no_cache_is_left_where_it_is(make_manifest, config, cache):
    cache.write_bytes(b"a thesis")
    with pytest.raises(CeflError, match="did not write it"):
        extract_features(make_manifest("a"), config, cache)
    assert cache.read_bytes() == b"a thesis"
    assert not cache.with_name("x.h5.corrupted-1").exists()


def test_a_dry_run_does_not_move_a_corrupted_cache(make_manifest, config, cache, tmp_path):
    manifest = make_manifest("a")
    cache.write_bytes(b"\x89HDF\r\n\x1a\nrubbish")
    with pytest.raises(CeflError, match="not a readable HDF5 file"):
        extract_features(manifest, config, cache, dry_run=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "x.h5"]
