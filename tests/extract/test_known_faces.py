"""A second encoder finds no face again: its features are, byte for byte, those of an extraction from nothing."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
import torch
from helpers.video import panning, write_video

from ceflpipe.cache.features import FrameStatus, VideoStatus
from ceflpipe.cache.hdf5 import read_features, read_index, read_settings, read_video, write_videos
from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder
from ceflpipe.stages.extract import extractor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import parts_folder
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry, write_manifest

pytestmark = pytest.mark.slow

SIZE = (256, 256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    """Videos with gaps of both kinds, a cut, a face that comes late and goes early, one on its side, and no face."""
    folder = tmp_path_factory.mktemp("videos")
    face = panning(photographs["astronaut"], 40, SIZE, (90, 0), (110, 20))
    other = panning(photographs["six"], 20, SIZE, (350, 100), (360, 108))
    empty = np.full((*SIZE, 3), 90, np.uint8)
    gaps = [empty if i in (5, 6, 7) or 15 <= i < 31 or i < 2 or i > 37 else frame for i, frame in enumerate(face)]
    videos = {
        "steady": face[:24], "gaps": gaps, "cut": [*face[:20], *other], "empty": [empty] * 12,
        "sideways": [np.ascontiguousarray(np.rot90(frame)) for frame in face[:16]],
        "crowd": [np.hstack([cv2.resize(frame, (160, 160)), np.zeros((160, 40, 3), np.uint8)]) for frame in face[:20]],
    }  # fmt: skip
    for name, frames in videos.items():
        write_video(folder / f"{name}.mp4", frames)
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def encoders(folder):
    """Two encoders of random weights."""
    for seed, name in enumerate("AB"):
        torch.manual_seed(seed)
        write_encoder(folder / f"{name}.safetensors", resnet18_backbone().state_dict(), name, "unit", {}, crop_size=32)
    return [ExtractConfig(encoder=folder / f"{name}.safetensors", precision="fp32") for name in "AB"]


def list_of(folder, *names, **columns):
    names = names or tuple(sorted(file.stem for file in folder.glob("*.mp4")))
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear", **columns) for name in names), ("fear",))


@pytest.fixture
def searches(monkeypatch):
    """The number of images that the detector has searched."""
    counts = [0]

    def counting(own):
        def search(*arguments):
            counts[0] += 1
            return own(*arguments)

        return search

    for name in ("__call__", "detect_roi"):
        monkeypatch.setattr(RetinaFace, name, counting(getattr(RetinaFace, name)))
    return counts


@pytest.mark.parametrize("options", [{}, {"rotation": "auto"}, {"align": "box"}])
def test_the_bytes_are_those_of_an_extraction_from_nothing(folder, encoders, tmp_path, searches, options):
    first, second = encoders
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    videos = list_of(folder)
    extract_features(videos, first.model_copy(update=options), a)
    table = read_features(a)
    if not options:  # the videos have what the test is about
        status = table.frame_status[table.rows("gaps")]
        assert {FrameStatus.MISSING, FrameStatus.INTERPOLATED, FrameStatus.DETECTED} == {*status.tolist()}
        assert np.flatnonzero(table.scene_start[table.rows("cut")]).tolist() == [20]
        assert "scene cut" in table.videos.note[table.index_of["cut"]]
        assert table.videos.status[table.index_of["empty"]] == VideoStatus.NO_FACE
    options = {name: value for name, value in options.items() if name != "align"}  # another crop needs no other face
    extract_features(videos, second.model_copy(update=options), b, detections=None)
    searches[0], plans = 0, []
    extract_features(
        videos, second.model_copy(update=options), c, detections=[a], on_plan=lambda plan, _: plans.append(plan)
    )
    assert searches[0] == 0
    assert plans[0].known_tracks == {a: len(videos.entries) - 1}, "all but the file that is no video"
    assert c.read_bytes() == b.read_bytes()
    assert not np.array_equal(table["steady"], read_features(c)["steady"])


def test_new_videos_are_done_in_full_and_damaged_changed_or_moved_ones_too(folder, encoders, tmp_path, searches):
    first, second = encoders
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    extract_features(list_of(folder, "steady", "gaps", "cut"), first, a)
    everything = list_of(folder)
    changed = replace(everything, entries=tuple(
        replace(entry, region="0 0 200 200") if entry.id == "gaps" else entry for entry in everything.entries
    ))  # fmt: skip
    extract_features(changed, second, b, detections=None)
    with h5py.File(a, "r+") as file:  # one of the boxes of the last video is not what was written
        file["frames/box"][-1, 0] += 1
    plans = []
    searches[0] = 0
    extract_features(changed, second, c, detections=[a], on_plan=lambda plan, _: plans.append(plan))
    assert plans[0].known_tracks == {a: 2}, "the damage is found when the video is read"
    assert searches[0] > 0
    assert c.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("setting", [{"det_size": 320}, {"det_thresh": 0.7}, {"detector_sha256": "0" * 64}])
def test_faces_of_other_settings_are_detected_again(folder, encoders, tmp_path, setting):
    """The cache of the first encoder says that it was made with other settings of the detector."""
    first, second = encoders
    a, c = tmp_path / "a.h5", tmp_path / "c.h5"
    videos = list_of(folder, "steady")
    plans = []
    if "detector_sha256" in setting:
        extract_features(videos, first, a)
        settings = replace(read_settings(a), **setting)
        video = read_video(a, "steady")
        fingerprint = extractor.detection_fingerprint(settings, video.source_sha256)
        write_videos(a, [replace(video, detection=fingerprint)], settings)
    else:
        extract_features(videos, first.model_copy(update=setting), a)
    extract_features(videos, second, c, detections=[a], on_plan=lambda plan, _: plans.append(plan))
    assert not plans[0].known_tracks


@pytest.mark.parametrize("column", ["detection_code", "decoder"])
def test_faces_of_other_code_or_another_decoder_are_detected_again(folder, encoders, tmp_path, column):
    first, second = encoders
    a, c = tmp_path / "a.h5", tmp_path / "c.h5"
    videos = list_of(folder, "steady")
    extract_features(videos, first, a)
    write_videos(a, [replace(read_video(a, "steady"), **{column: "other"})], read_settings(a))
    plans = []
    extract_features(videos, second, c, detections=[a], on_plan=lambda plan, _: plans.append(plan))
    assert not plans[0].known_tracks


@pytest.mark.parametrize("frames", [10, 23, 25])
def test_a_face_track_of_another_length_is_not_used(folder, encoders, tmp_path, searches, frames):
    """The checksums hold and all records agree, but the video has 24 frames."""
    first, second = encoders
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    videos = list_of(folder, "steady", "cut")
    extract_features(videos, first, a)
    steady = read_video(a, "steady")
    rows = np.minimum(np.arange(frames), 23)
    cut = {name: getattr(steady, name)[rows] for name in ("features", "frame_status", "scene_start", "score", "box")}
    shortened = replace(steady, **cut, landmarks=steady.landmarks[rows], time=np.arange(frames) / 25)
    write_videos(a, [shortened, read_video(a, "cut")], read_settings(a))
    extract_features(videos, second, b, detections=None)
    searches[0] = 0
    extract_features(videos, second, c, detections=[a])
    assert searches[0] > 0
    assert c.read_bytes() == b.read_bytes()


def test_the_own_cache_knows_the_faces_when_the_encoder_is_trained_again(folder, encoders, tmp_path, searches):
    first, second = encoders
    cache, nothing = tmp_path / "x.h5", tmp_path / "y.h5"
    videos = list_of(folder, "steady", "gaps")
    extract_features(videos, first, cache)
    extract_features(videos, second, nothing, detections=None)
    searches[0] = 0
    extract_features(videos, second, cache, redo="settings")
    assert searches[0] == 0
    assert cache.read_bytes() == nothing.read_bytes()


RUN = """
import sys
from pathlib import Path
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.manifest.manifest import read_manifest

if __name__ == "__main__":
    videos, encoder, known, cache = map(Path, sys.argv[1:])
    manifest = read_manifest(videos, root=videos.parent, name="x", labels=("fear",))
    config = ExtractConfig(encoder=encoder, precision="fp32")
    extract_features(manifest, config, cache, executor=process_executor(2), workers=2, detections=[known])
"""


def test_after_a_kill_and_with_half_of_the_videos_new_the_bytes_are_the_same(folder, encoders, tmp_path, photographs):
    first, second = encoders
    names = [f"n{number}" for number in range(16)]
    for number, name in enumerate(names):
        frames = panning(photographs["astronaut"], 20, SIZE, (90, 0), (90 + number, number))
        write_video(tmp_path / f"{name}.mp4", frames)
    videos = list_of(tmp_path, *names)
    write_manifest(tmp_path / "list.csv", videos.entries)
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    extract_features(list_of(tmp_path, *names[::2]), first, a)
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, tmp_path / "run.py", tmp_path / "list.csv", second.encoder, a, c]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(parts_folder(c).glob("*.h5")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not c.exists()
    assert list(parts_folder(c).glob("*.h5"))
    extract_features(videos, second, c, detections=[a])
    extract_features(videos, second, b, detections=None)
    assert c.read_bytes() == b.read_bytes()
    assert read_index(c).id == names
