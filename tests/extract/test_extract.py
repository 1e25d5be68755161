"""Stage one end to end, on videos of real photographs: complete, resumable, and every failure is reported."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from helpers.run_cli import run_cli_in_process
from helpers.video import add_track, encode_video, panning, write_video
from pydantic import ValidationError

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.align import align_crop, resize
from ceflpipe.stages.extract import extractor
from ceflpipe.stages.extract.encoder_base import BATCH_SIZE
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import parts_folder
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tasks import extract_task
from ceflpipe.stages.extract.tracking import FaceTracker
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry, write_manifest


@pytest.fixture
def config(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32")


@pytest.fixture
def folder(tmp_path, photographs):
    """Five videos of different lengths, one of them without a face."""
    for i, count in enumerate([20, 7, 33, 1]):
        frames = panning(photographs["astronaut"], count, (256, 256), (90, 0), (140 - 5 * i, 20))
        write_video(tmp_path / f"v{i}.mp4", frames)
    write_video(tmp_path / "faceless.mp4", [np.full((96, 96, 3), 30 + i, np.uint8) for i in range(10)])
    return tmp_path


def manifest(folder: Path, names=("v0", "v1", "v2", "v3", "faceless")) -> Manifest:
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


def test_the_processor_time_of_the_encoder_is_counted(folder, config, monkeypatch):
    """By a clock that advances by a second each time it is read; a batch is started and fetched, and each video is a task."""
    seconds = itertools.count()
    monkeypatch.setattr(extractor, "time", SimpleNamespace(process_time=lambda: next(seconds)))
    result = extract_features(manifest(folder), config, folder / "x.h5")
    batches = sum(-(-length // BATCH_SIZE) for length in (20, 7, 33, 1, 10))
    assert (result.encode_seconds, result.encoded_crops) == (2 * batches, batches * BATCH_SIZE)
    assert result.encode_ms == pytest.approx(2e3 / BATCH_SIZE)
    assert extract_features(manifest(folder), config, folder / "x.h5").encode_ms is None


def test_every_frame_of_every_video_is_extracted_in_order(folder, config):
    result = extract_features(manifest(folder), config, folder / "x.h5")
    table = read_features(folder / "x.h5")
    assert table.videos.id == ["v0", "v1", "v2", "v3", "faceless"]
    assert table.videos.length.tolist() == [20, 7, 33, 1, 10]
    assert [(video_id, status) for video_id, status, _ in result.failed] == [("faceless", "no-face")]
    assert (table.frame_status[table.rows("v2")] == FrameStatus.DETECTED).all()
    assert (table.frame_status[table.rows("faceless")] == FrameStatus.MISSING).all()
    assert np.isnan(table.landmarks[table.rows("faceless")]).all()
    # the face moves left in the frame as the window moves right
    x = table.landmarks[table.rows("v2")][:, 2, 0]
    assert x[0] - x[-1] == pytest.approx(40, abs=4)
    assert (np.diff(x) < 2).all()


def test_features_are_those_of_the_encoder_on_the_aligned_crops(folder, config):
    """The oracle is the loop a researcher would write, frame by frame."""
    extract_features(manifest(folder), config, folder / "x.h5")
    features, encoder = read_features(folder / "x.h5")["v1"], TorchEncoder(config.encoder, precision="fp32")
    tracker = FaceTracker(RetinaFace())
    for i, (frame, _) in enumerate(open_video(folder / "v1.mp4").frames()):
        crop = align_crop(frame, tracker(frame).landmarks, 64)
        np.testing.assert_allclose(features[i], encoder(crop[None])[0], rtol=2e-3, atol=2e-3)


def test_times_are_in_the_cache_and_a_cut_file_is_truncated(folder, config, photographs):
    frames = panning(photographs["astronaut"], 40, (256, 256), (90, 0), (140, 20))
    ticks = np.cumsum([0, *[40] * 19, *[500] * 20]).tolist()
    encode_video(folder / "v0.mp4", frames, ticks=ticks)
    with av.open(str(folder / "v1.mp4"), "w", options={"movflags": "faststart"}) as container:
        add_track(container, frames, options={"g": "1"})
    content = (folder / "v1.mp4").read_bytes()
    (folder / "v1.mp4").write_bytes(content[: len(content) // 2])
    encode_video(folder / "v2.mp4", frames, ticks=list(range(40)), time_base=Fraction(1, 5000))
    result = extract_features(manifest(folder, ("v0", "v1", "v2")), config, folder / "x.h5")
    table = read_features(folder / "x.h5")
    np.testing.assert_allclose(table.time[table.rows("v0")], np.array(ticks) / 1000)
    assert table.videos.fps[0] == pytest.approx(39 / (ticks[-1] / 1000))
    assert [(video_id, status) for video_id, status, _ in result.failed] == [("v1", "truncated")]
    assert re.search(r"its packets end at \d\.\d\d s of 1\.60 s", result.failed[0].note)
    assert "(mean of 5000 frames per second): 25 frames per second assumed" in table.videos.note[2]
    np.testing.assert_allclose(table.time[table.rows("v2")], np.arange(table.videos.length[2]) / 25)


def test_an_image_folder_has_the_configured_rate(folder, config):
    for i in range(6):
        (folder / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.full((96, 96, 3), 30 + i, np.uint8))
    images = Manifest("x", folder, (VideoEntry("images", "images", "fear"),), ("fear",))
    extract_features(images, config, folder / "x.h5")
    np.testing.assert_allclose(read_features(folder / "x.h5").time, np.arange(6) / 25)
    assert "25 frames per second assumed" in read_index(folder / "x.h5").note[0]
    result = extract_features(images, config.model_copy(update={"fps": 60.0}), folder / "x.h5", redo="settings")
    assert result.num_extracted == 1
    np.testing.assert_allclose(read_features(folder / "x.h5").time, np.arange(6) / 60)
    assert "assumed" not in read_index(folder / "x.h5").note[0]


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(folder, config):
    extract_features(manifest(folder), config, folder / "serial.h5")
    executor = process_executor(2)
    extract_features(manifest(folder), config, folder / "parallel.h5", executor=executor, workers=2)
    assert sha256_of(folder / "serial.h5") == sha256_of(folder / "parallel.h5")


def test_features_of_a_crop_do_not_depend_on_its_batch(random_encoder):
    crops = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE + 9, 64, 64, 3), np.uint8)
    for precision in ("fp32", "bf16"):
        encoder = TorchEncoder(random_encoder, precision=precision)
        features = encoder(crops)
        assert np.array_equal(features[5:9], encoder(crops[5:9]))
        assert np.array_equal(features[-3:], encoder(crops[-3:]))


def test_a_second_run_extracts_nothing_and_changes_no_byte(folder, config):
    extract_features(manifest(folder), config, folder / "x.h5")
    modified = (folder / "x.h5").stat().st_mtime_ns
    result = extract_features(manifest(folder), config, folder / "x.h5")
    assert (result.num_extracted, result.num_cached) == (0, 5)
    assert (folder / "x.h5").stat().st_mtime_ns == modified
    assert [video_id for video_id, _, _ in result.failed] == ["faceless"]  # still reported, though not tried again


def test_only_changed_videos_are_extracted_again(folder, config, photographs):
    extract_features(manifest(folder), config, folder / "x.h5")
    write_video(folder / "v1.mp4", panning(photographs["astronaut"], 9, (256, 256), (90, 0), (100, 20)))
    result = extract_features(manifest(folder), config, folder / "x.h5")
    assert (result.num_extracted, result.num_cached) == (1, 4)
    assert result.reasons == {"source file, rotation or region changed": 1}
    assert read_index(folder / "x.h5").length.tolist() == [20, 9, 33, 1, 10]


def test_changed_settings_extract_everything_again_if_allowed_and_are_reported(folder, config):
    extract_features(manifest(folder), config, folder / "x.h5")
    content, other = (folder / "x.h5").read_bytes(), config.model_copy(update={"crop_size": 96})
    with pytest.raises(CeflError, match=r"5 finished videos have other settings \(crop_size 64, now 96\).*--redo"):
        extract_features(manifest(folder), other, folder / "x.h5")
    assert (folder / "x.h5").read_bytes() == content
    result = extract_features(manifest(folder), other, folder / "x.h5", redo="settings")
    assert result.num_extracted == 5
    assert result.reasons == {"settings changed (crop_size 64, now 96)": 5}


def test_a_dry_run_reports_the_plan_and_extracts_nothing(folder, config):
    plans = []
    result = extract_features(
        manifest(folder), config, folder / "x.h5", dry_run=True, on_plan=lambda plan, settings: plans.append(plan)
    )
    assert len(plans[0].pending) == 5
    assert plans[0].reasons == {"new": 5}
    assert result.num_extracted == 0
    assert not (folder / "x.h5").exists()


def test_videos_removed_from_the_manifest_stay_cached(folder, config):
    extract_features(manifest(folder), config, folder / "x.h5")
    extract_features(manifest(folder, ("v1",)), config, folder / "x.h5")
    assert extract_features(manifest(folder), config, folder / "x.h5").num_extracted == 0


def test_unreadable_and_missing_videos_are_reported_and_others_extracted(folder, config):
    (folder / "broken.mp4").write_bytes(b"nothing" * 99)
    result = extract_features(manifest(folder, ("v0", "broken", "gone", "v3")), config, folder / "x.h5")
    assert {video_id: status for video_id, status, _ in result.failed} == {"broken": "unreadable", "gone": "missing"}
    assert read_index(folder / "x.h5").length.tolist() == [20, 0, 1]


def test_face_crops_are_only_resized(folder, config):
    extract_features(
        manifest(folder, ("v1",)), config.model_copy(update={"input": "crops", "backend": "torch"}), folder / "x.h5"
    )
    table, encoder = read_features(folder / "x.h5"), TorchEncoder(config.encoder, precision="fp32")
    crops = np.stack([resize(frame.image, 64) for frame in open_video(folder / "v1.mp4").frames()])
    np.testing.assert_array_equal(table.features, encoder(crops))
    assert (table.frame_status == FrameStatus.GIVEN).all()
    assert (table.settings.input, table.settings.align, table.settings.detector) == ("crops", "resize", "")


def test_progress_counts_videos_cached_and_extracted(folder, config):
    extract_features(manifest(folder, ("v0", "v1")), config, folder / "x.h5")
    calls = []
    extract_features(
        manifest(folder),
        config,
        folder / "x.h5",
        on_progress=lambda completed, total, note="": calls.append((completed, total)),
    )
    assert calls == [(2, 5), (3, 5), (4, 5), (5, 5)]


def crash_at_v1(task):
    """Extract a task; one with v1 kills its worker process, like a crash in a decoder."""
    if any(job.id == "v1" for job in task.jobs):
        os.kill(os.getpid(), signal.SIGSEGV)
    return extract_task(task)


@pytest.mark.slow
def test_a_worker_that_dies_loses_one_video(folder, config):
    result = extract_features(
        manifest(folder),
        config,
        folder / "x.h5",
        workers=2,
        executor=lambda function, tasks: process_executor(2)(crash_at_v1, tasks),
    )
    assert ("v1", "crashed") in [(video_id, status) for video_id, status, _ in result.failed]
    assert set(read_index(folder / "x.h5").id) == {"v0", "v2", "v3", "faceless"}
    assert extract_features(manifest(folder), config, folder / "x.h5").num_extracted == 1  # the next run tries again


RUN = """
import sys
from pathlib import Path
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.manifest.manifest import read_manifest
if __name__ == "__main__":
    folder, encoder = map(Path, sys.argv[1:3])
    config = ExtractConfig(encoder=encoder, crop_size=64, precision="fp32")
    extract_features(
        read_manifest(folder / "m.csv"), config, folder / "x.h5", executor=process_executor(2), workers=2,
        on_progress=lambda completed, total, note="": print(completed, flush=True),
    )
"""


@pytest.mark.slow
def test_a_killed_run_resumes_and_gives_the_same_bytes(folder, config, photographs):
    names = [f"v{i}" for i in range(4)]
    for i in range(4, 14):
        names.append(f"v{i}")
        write_video(folder / f"v{i}.mp4", panning(photographs["astronaut"], 30, (256, 256), (90, 0), (90 + i, i)))
    entries = manifest(folder, names)
    write_manifest(folder / "m.csv", entries.entries)
    script = folder / "run.py"
    script.write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(config.encoder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    progress = [process.stdout.readline().strip() for _ in range(4)]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    assert progress == ["0", "1", "2", "3"]
    assert not (folder / "x.h5").exists()
    assert len(list(parts_folder(folder / "x.h5").glob("*.h5"))) >= 3
    resumed = extract_features(entries, config, folder / "x.h5")
    assert resumed.num_cached >= 3
    assert resumed.num_extracted == len(names) - resumed.num_cached
    uninterrupted = extract_features(entries, config, folder / "y.h5")
    assert uninterrupted.num_extracted == len(names)
    assert sha256_of(folder / "x.h5") == sha256_of(folder / "y.h5")
    assert not parts_folder(folder / "x.h5").exists()
    assert not [path for path in folder.iterdir() if "partial" in path.name or path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("key", "value"), [("input", "maybe"), ("align", "x"), ("precision", "int4"), ("crop_size", 3)]
)
def test_invalid_values_are_rejected_by_the_config(random_encoder, key, value):
    with pytest.raises(ValidationError, match=key):
        ExtractConfig(**{"encoder": random_encoder, key: value})


@pytest.mark.parametrize(("key", "value"), [("detector", "haar"), ("device", "cuda:7"), ("encoder", Path("gone"))])
def test_unavailable_components_are_reported(folder, config, key, value):
    with pytest.raises(CeflError, match=str(value)):
        extract_features(manifest(folder), config.model_copy(update={key: value}), folder / "x.h5")


def test_a_link_that_leads_out_stops_nothing_and_is_followed_if_the_configuration_allows_it(
    tmp_path, random_encoder, face_video
):
    """As git-annex and DVC's cache.type symlink store videos."""
    (tmp_path / "data/happiness").mkdir(parents=True)
    (tmp_path / "store").mkdir()
    shutil.copy(face_video, tmp_path / "data/happiness/a.mp4")
    shutil.copy(face_video, tmp_path / "store/0f1e")
    (tmp_path / "data/happiness/b.mp4").symlink_to(tmp_path / "store/0f1e")
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs/own.yaml"
    config.write_text("title: own\nloader: folders\nroot: data\nlabels: [happiness]\n")
    command = ("extract", "--dataset", "own", "--encoder", random_encoder, "--crop-size", 64, "--workers", 1, "--json")
    result = run_cli_in_process(*command, cwd=tmp_path)
    report = json.loads(result.stdout)
    assert result.returncode == 1
    assert (report["extracted"], [failed["id"] for failed in report["failed"]]) == (1, ["happiness/b"])
    assert "allow_external_paths: true" in report["failed"][0]["note"]
    config.write_text(config.read_text() + "allow_external_paths: true\n")
    result = run_cli_in_process(*command, cwd=tmp_path, check=True)
    report = json.loads(result.stdout)
    assert (report["extracted"], report["cached"], report["failed"]) == (1, 1, [])
