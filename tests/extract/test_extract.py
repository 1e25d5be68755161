"""Stage one as a whole, on real photographs set in motion: complete, resumable, honest about failures."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.video import panning, write_video

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features, read_index
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.extract.encoder_base import BATCH_SIZE
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.extract.plan import parts_folder
from ceflpipe.stages.extract.tasks import extract_task
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry, write_manifest


@pytest.fixture
def wishes(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=64, precision="fp32")


@pytest.fixture
def folder(tmp_path, photographs):
    """Five videos of different lengths (one of them of nobody) and their manifest."""
    for i, count in enumerate([20, 7, 33, 1]):
        frames = panning(photographs["astronaut"], count, (256, 256), (90, 0), (140 - 5 * i, 20))
        write_video(tmp_path / f"v{i}.mp4", frames)
    write_video(tmp_path / "nobody.mp4", [np.full((96, 96, 3), 30 + i, np.uint8) for i in range(10)])
    return tmp_path


def manifest(folder: Path, names=("v0", "v1", "v2", "v3", "nobody")) -> Manifest:
    return Manifest("x", folder, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))


def test_every_frame_of_every_video_is_there_in_order(folder, wishes):
    result = extract_features(manifest(folder), wishes, folder / "x.h5")
    table = read_features(folder / "x.h5")
    assert table.videos.id == ["v0", "v1", "v2", "v3", "nobody"]
    assert table.videos.length.tolist() == [20, 7, 33, 1, 10]
    assert [(i, s) for i, s, _ in result.failed] == [("nobody", "no-face")]
    assert (table.frame_status[table.rows("v2")] == FrameStatus.DETECTED).all()
    assert (table.frame_status[table.rows("nobody")] == FrameStatus.MISSING).all()
    assert np.isnan(table.landmarks[table.rows("nobody")]).all()
    # the face glides to the left of the window as the window glides to the right
    x = table.landmarks[table.rows("v2")][:, 2, 0]
    assert x[0] - x[-1] == pytest.approx(40, abs=4)
    assert (np.diff(x) < 2).all()


def test_features_are_those_of_the_encoder_on_the_aligned_crops(folder, wishes):
    """The oracle is the loop a researcher would write, frame by frame."""
    from ceflpipe.stages.align import align_crop
    from ceflpipe.stages.extract.retinaface import RetinaFace
    from ceflpipe.stages.extract.tracking import FaceTracker

    extract_features(manifest(folder), wishes, folder / "x.h5")
    table, encoder, detector = (
        read_features(folder / "x.h5"),
        TorchEncoder(wishes.weights, precision="fp32"),
        RetinaFace(),
    )
    rows, follow = table.rows("v1"), FaceTracker(detector)
    for i, frame in enumerate(open_video(folder / "v1.mp4").frames()):
        crop = align_crop(frame, follow(frame).landmarks, 64)
        np.testing.assert_allclose(table.features[rows][i], encoder(crop[None])[0], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(folder, wishes):
    digests = set()
    for workers in (1, 2):
        cache = folder / f"w{workers}.h5"
        extract_features(
            manifest(folder),
            wishes,
            cache,
            executor=process_executor(workers) if workers > 1 else None,
            workers=workers,
        )
        digests.add(sha256_of(cache))
    assert len(digests) == 1


def test_a_crop_is_encoded_the_same_wherever_it_stands_in_a_batch(random_encoder):
    crops = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE + 9, 64, 64, 3), np.uint8)
    for precision in ("fp32", "bf16"):
        encoder = TorchEncoder(random_encoder, precision=precision)
        whole = encoder(crops)
        assert np.array_equal(whole[5:9], encoder(crops[5:9]))
        assert np.array_equal(whole[-3:], encoder(crops[-3:]))


def test_a_second_run_does_nothing_and_changes_no_byte(folder, wishes):
    extract_features(manifest(folder), wishes, folder / "x.h5")
    before = (folder / "x.h5").stat().st_mtime_ns
    again = extract_features(manifest(folder), wishes, folder / "x.h5")
    assert (again.num_extracted, again.num_cached) == (0, 5)
    assert (folder / "x.h5").stat().st_mtime_ns == before
    assert [i for i, _, _ in again.failed] == ["nobody"]  # still a failure, though not tried again


def test_only_what_changed_is_redone(folder, wishes, photographs):
    extract_features(manifest(folder), wishes, folder / "x.h5")
    write_video(folder / "v1.mp4", panning(photographs["astronaut"], 9, (256, 256), (90, 0), (100, 20)))
    again = extract_features(manifest(folder), wishes, folder / "x.h5")
    assert (again.num_extracted, again.num_cached) == (1, 4)
    assert read_index(folder / "x.h5").length.tolist() == [20, 9, 33, 1, 10]


def test_other_settings_redo_everything_and_the_reason_is_said(folder, wishes):
    extract_features(manifest(folder), wishes, folder / "x.h5")
    again = extract_features(manifest(folder), replace(wishes, size=96), folder / "x.h5")
    assert again.num_extracted == 5
    assert "size 64, now 96" in next(iter(again.reasons))


def test_a_dry_run_says_and_does_nothing(folder, wishes):
    plan = []
    result = extract_features(
        manifest(folder), wishes, folder / "x.h5", dry_run=True, on_plan=lambda p, s: plan.append(p)
    )
    assert len(plan[0].jobs) == 5
    assert result.num_extracted == 0
    assert not (folder / "x.h5").exists()


def test_a_manifest_that_shrinks_and_grows_again_costs_nothing(folder, wishes):
    extract_features(manifest(folder), wishes, folder / "x.h5")
    extract_features(manifest(folder, ("v1",)), wishes, folder / "x.h5")
    assert extract_features(manifest(folder), wishes, folder / "x.h5").num_extracted == 0


def test_broken_and_missing_videos_are_listed_and_the_rest_goes_on(folder, wishes):
    (folder / "broken.mp4").write_bytes(b"nothing" * 99)
    result = extract_features(manifest(folder, ("v0", "broken", "gone", "v3")), wishes, folder / "x.h5")
    assert {i: s for i, s, _ in result.failed} == {"broken": "unreadable", "gone": "missing"}
    assert read_index(folder / "x.h5").length.tolist() == [20, 0, 1]


def test_given_faces_are_only_resized(folder, wishes):
    from ceflpipe.stages.align import resize

    extract_features(manifest(folder, ("v1",)), replace(wishes, faces="given"), folder / "x.h5")
    table, encoder = read_features(folder / "x.h5"), TorchEncoder(wishes.weights, precision="fp32")
    crops = np.stack([resize(frame, 64) for frame in open_video(folder / "v1.mp4").frames()])
    np.testing.assert_array_equal(table.features, encoder(crops))
    assert (table.frame_status == FrameStatus.GIVEN).all()
    assert json.loads(table.settings)["faces"] == "given"


def deadly(task):
    """Extract a task, unless it holds v1: that one takes the worker process down, as a crash in a decoder would."""
    if any(job.id == "v1" for job in task.jobs):
        os.kill(os.getpid(), signal.SIGSEGV)
    return extract_task(task)


@pytest.mark.slow
def test_a_worker_that_dies_loses_its_video_only(folder, wishes):
    result = extract_features(
        manifest(folder),
        wishes,
        folder / "x.h5",
        workers=2,
        executor=lambda function, tasks: process_executor(2)(deadly, tasks),
    )
    assert ("v1", "crashed") in [(i, s) for i, s, _ in result.failed]
    assert set(read_index(folder / "x.h5").id) == {"v0", "v2", "v3", "nobody"}
    assert extract_features(manifest(folder), wishes, folder / "x.h5").num_extracted == 1  # tried again by the next run


RUN = """
import sys
from pathlib import Path
from ceflpipe.pipeline.executor import processes
from ceflpipe.stages.extract.extract import extract
from ceflpipe.stages.extract.extract_config import Wishes
from ceflpipe.stages.manifest.manifest import read_manifest
if __name__ == "__main__":
    folder, weights = map(Path, sys.argv[1:3])
    manifest = read_manifest(folder / "m.csv")
    extract(manifest, Wishes(weights, size=64, precision="fp32"), folder / "x.h5", mapper=processes(2), workers=2,
            on_video=lambda done: print(done.id, flush=True))
"""


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes_and_redoes_nothing_finished(folder, wishes, photographs):
    names = [f"v{i}" for i in range(4)]
    for i in range(4, 14):
        names.append(f"v{i}")
        write_video(folder / f"v{i}.mp4", panning(photographs["astronaut"], 30, (256, 256), (90, 0), (90 + i, i)))
    listed = manifest(folder, names)
    write_manifest(folder / "m.csv", listed.entries)
    script = folder / "run.py"
    script.write_text(RUN)
    killed = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(wishes.weights)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    finished = [killed.stdout.readline().strip() for _ in range(3)]
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(0.5)
    assert all(finished)
    assert not (folder / "x.h5").exists()
    parts = {p.name: p.stat().st_mtime_ns for p in parts_folder(folder / "x.h5").glob("*.h5")}
    assert len(parts) >= 3
    again = extract_features(listed, wishes, folder / "x.h5")
    assert again.num_cached >= 3
    assert again.num_extracted == len(names) - again.num_cached
    undisturbed = extract_features(listed, wishes, folder / "y.h5")
    assert undisturbed.num_extracted == len(names)
    assert sha256_of(folder / "x.h5") == sha256_of(folder / "y.h5")
    assert not parts_folder(folder / "x.h5").exists()
    assert not [p for p in folder.iterdir() if "partial" in p.name or p.name.endswith(".lock")]


def test_wishes_that_cannot_be_met_are_said(folder, wishes):
    for changes, words in [({"detector": "haar"}, "detector: haar"), ({"faces": "maybe"}, "faces: maybe"), ({"align": "x"}, "align: x"),
                           ({"device": "cuda:7"}, "cuda:7"), ({"precision": "int8"}, "int8")]:  # fmt: skip
        with pytest.raises(CeflError, match=words):
            extract_features(manifest(folder), replace(wishes, **changes), folder / "x.h5")
