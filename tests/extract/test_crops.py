"""Crop caches: the pixels that an encoder gets, kept once; and features of them, which are those of an extraction."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.run_cli import run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.cache import ownership
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_crops, read_features, read_index, read_settings, write_videos
from ceflpipe.stages.align import align_crop
from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder
from ceflpipe.stages.extract import extractor
from ceflpipe.stages.extract.disk_space import extraction_bytes
from ceflpipe.stages.extract.encode_crops import encode_crops
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_config
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

SIZE = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    """Two videos of a face, one of them with a gap at its end, one without a face, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    face = panning(photographs["astronaut"], 40, (256, 256), (90, 0), (110, 20))
    empty = np.full((256, 256, 3), 90, np.uint8)
    for name, frames in {"a": face[:9], "b": [*face[20:26], empty, empty], "c": [empty] * 5}.items():
        write_video(folder / f"{name}.mp4", frames)
    (folder / "d.mp4").write_text("no video")
    torch.manual_seed(0)
    write_encoder(folder / "E.safetensors", resnet18_backbone().state_dict(), "E", "unit", {}, crop_size=SIZE)
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in "abcd"), ("fear",))


@pytest.fixture(scope="module")
def features(folder, manifest):
    """The feature cache of the encoder, extracted from the videos."""
    config = ExtractConfig(encoder=folder / "E.safetensors", precision="fp32")
    return extract_features(manifest, config, folder / "features.h5").cache


@pytest.fixture(scope="module")
def crops(folder, manifest, features):
    config = ExtractConfig(encoder=folder / "E.safetensors", keep="crops")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("__call__", "detect_roi"):  # the faces are known
            patch.setattr(RetinaFace, name, lambda *arguments: pytest.fail("a face was searched"))
        return extract_features(manifest, config, folder / "crops.h5", detections=[features]).cache


def test_crops_are_the_aligned_faces_of_every_frame(folder, crops, features):
    table, index = read_features(features), read_index(crops)
    assert index.id == ["a", "b", "c", "d"]
    assert list(index.length) == [9, 8, 5, 0]
    for name in "ab":
        landmarks = table.landmarks[table.rows(name)]
        images = [frame.image for frame in open_video(folder / f"{name}.mp4").frames()]
        kept = read_crops(crops, index, index.id.index(name))
        assert kept.dtype == np.uint8
        status = table.frame_status[table.rows(name)]
        for image, points, crop, kind in zip(images, landmarks, kept, status, strict=True):
            if kind == FrameStatus.DETECTED:
                np.testing.assert_array_equal(crop, align_crop(image, points, SIZE))
    chosen = read_crops(crops, index, 0, [7, 2])
    np.testing.assert_array_equal(chosen, read_crops(crops, index, 0)[[7, 2]])


def test_other_programs_read_the_pixels(crops):
    with h5py.File(crops) as file:
        pixels = file["features"]
        assert (pixels.dtype, pixels.shape) == (np.uint8, (22, 3 * SIZE**2))


def test_features_of_the_crops_are_those_of_the_videos_byte_for_byte(folder, manifest, crops, features, tmp_path):
    config = resolve_config(ExtractConfig(encoder=folder / "E.safetensors", precision="fp32")).config
    out = tmp_path / "made.h5"
    assert encode_crops(manifest, crops, config, read_settings(features), out)
    assert out.read_bytes() == features.read_bytes()
    assert not encode_crops(manifest, crops, config, read_settings(features), out), "it is up to date"


def test_crops_of_another_size_are_refused(folder, manifest, crops, tmp_path):
    resolved = resolve_config(ExtractConfig(encoder=folder / "E.safetensors", precision="fp32", crop_size=32))
    with pytest.raises(CeflError, match="not the crops that the encoder gets"):
        encode_crops(manifest, crops, resolved.config, resolved.settings, tmp_path / "x.h5")


def test_a_crop_cache_is_no_feature_cache_and_the_other_way_round(crops, features):
    with pytest.raises(CeflError, match="a crop cache: it holds the pixels of faces, not features"):
        read_features(crops)
    with pytest.raises(CeflError, match="which has no crops; make a crop cache with ceflpipe crops"):
        read_crops(features, read_index(features), 0)


def test_a_crop_cache_is_the_same_for_all_encoders_of_its_size(folder, manifest, crops, features, tmp_path):
    torch.manual_seed(1)
    write_encoder(tmp_path / "F.safetensors", resnet18_backbone().state_dict(), "F", "unit", {}, crop_size=SIZE)
    config = ExtractConfig(encoder=tmp_path / "F.safetensors", keep="crops")
    assert extract_features(manifest, config, crops, detections=[features]).num_extracted == 0
    config = config.model_copy(update={"crop_size": 32})
    with pytest.raises(CeflError, match="other settings"):
        extract_features(manifest, config, crops, detections=[features])


def test_long_videos_of_crops_are_packed_in_small_blocks(tmp_path, crops, monkeypatch):
    """A block of crops holds as many bytes as one of features, not as many rows."""
    settings, index = read_settings(crops), read_index(crops)
    copy = tmp_path / "copy.h5"
    from ceflpipe.cache import hdf5

    videos = [hdf5.read_video(crops, name, index) for name in index.id]
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 10 * settings.width)
    write_videos(copy, videos, settings)
    sizes = []
    own = hdf5._read_arrays
    monkeypatch.setattr(hdf5, "_read_arrays", lambda *a: sizes.append(len(own(*a)[0])) or own(*a))
    assert hdf5.corrupted_videos(copy) == []
    assert sizes == [9, 8, 5]


def test_the_command_makes_the_crops_of_a_list_once(folder, tmp_path):
    rows = [f"{folder / name}.mp4,{label}" for name, label in (("a", "happy"), ("b", "sad"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    options = ("--manifest", "list.csv", "--encoder", folder / "E.safetensors", "--workers", 1)
    planned = run_cli_in_process("crops", *options, "--dry-run", cwd=tmp_path)
    assert (planned.returncode, "2 to make" in planned.stderr) == (0, True)
    cache = tmp_path / f"artifacts/crops/list/{SIZE}px.h5"
    assert not cache.exists()
    done = run_cli_in_process("crops", *options, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == str(cache.relative_to(tmp_path))
    before = cache.stat().st_mtime_ns
    again = run_cli_in_process("crops", *options, cwd=tmp_path, check=True)
    assert "2 cached, 0 to make" in again.stderr
    assert cache.stat().st_mtime_ns == before


def test_a_folder_with_the_name_of_the_crop_cache_is_refused_by_its_path(folder, tmp_path):
    (tmp_path / "list.csv").write_text(f"path,label\n{folder / 'a'}.mp4,happy\n{folder / 'b'}.mp4,sad\n")
    (tmp_path / f"artifacts/crops/list/{SIZE}px.h5").mkdir(parents=True)
    options = ("--manifest", "list.csv", "--encoder", folder / "E.safetensors", "--workers", 1)
    result = run_cli_in_process("crops", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert "px.h5: is a folder; move it away, or run this in another folder" in result.stderr


def test_crops_that_do_not_fit_on_the_disk_are_refused(folder, manifest, features, tmp_path, monkeypatch):
    needed, usage = extraction_bytes([9, 8, 5], 3 * SIZE**2, 1), shutil.disk_usage(tmp_path)
    assert needed > 2 * 22 * 3 * SIZE**2, "part files and the cache"
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=needed // 2))
    config = ExtractConfig(encoder=folder / "E.safetensors", keep="crops")
    with pytest.raises(CeflError, match="MB are needed"):
        extract_features(manifest, config, tmp_path / "crops.h5", detections=[features])


def test_damaged_crops_are_made_again(crops, tmp_path, manifest, folder, features):
    content = bytearray(crops.read_bytes())
    with h5py.File(crops) as file:
        offset = file["features"].id.get_offset()
    content[offset + 100] ^= 255
    damaged = tmp_path / "crops.h5"
    damaged.write_bytes(content)
    config = ExtractConfig(encoder=folder / "E.safetensors", keep="crops")
    result = extract_features(manifest, config, damaged, detections=[features], verify=True)
    assert result.num_extracted == 1
    assert damaged.read_bytes() == Path(crops).read_bytes()


def test_notes_and_times_of_crops_are_those_of_the_extraction(crops, features):
    kept, extracted = read_index(crops), read_index(features)
    for name in ("detection", "status", "note", "source_sha256", "decoder"):
        assert getattr(kept, name) == getattr(extracted, name)
    assert kept.fingerprint != extracted.fingerprint
    assert replace(read_settings(crops), precision="x") != read_settings(features)
    assert extractor.OVERFLOW not in kept.note
