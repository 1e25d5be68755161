"""The demo set on disk: whole videos or none, kept while their settings hold; still images of other actors."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.run_cli import env_with_path

from ceflpipe.cache import ownership
from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.stages.demo import demo_dataset
from ceflpipe.stages.demo.action_units import ACTION_UNITS, EXPRESSIONS, LABELS
from ceflpipe.stages.demo.actor import make_actor
from ceflpipe.stages.demo.demo_config import DemoConfig
from ceflpipe.stages.demo.demo_dataset import (
    FIRST_ENCODER_ACTOR,
    VideoSpec,
    make_dataset,
    performance_of,
    render_still_images,
)

NUM_FRAMES = (24, 30)


def tiny(root: Path, seed: int = 3456, **options: object) -> Path:
    return make_dataset(root, DemoConfig(subjects=1, size=160, num_frames=NUM_FRAMES, seed=seed), **options)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("demo"))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def spec_of(label: str, path: Path = Path()) -> VideoSpec:
    return VideoSpec(path, 1, label, DemoConfig(size=160, num_frames=NUM_FRAMES))


def test_the_list_names_videos_that_decode_fully(data_set):
    with data_set.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "subject", "split", "fold", "apex"]
    assert [row["label"] for row in rows] == list(LABELS)
    for row in rows:
        performance = performance_of(spec_of(row["label"]))
        assert row["path"] == f"videos/S01/S01_{row['label']}.mp4"
        assert (row["subject"], row["split"], row["fold"]) == ("S01", "", "")
        assert row["apex"] == ("" if row["label"] == "neutral" else str(performance.apex))
        assert count_frames(data_set.parent / row["path"]) == len(performance.intensity)
    assert not list(data_set.parent.rglob("*.part*"))


def test_the_estimate_covers_the_space_of_a_data_set(data_set, tmp_path, monkeypatch):
    usage, required = shutil.disk_usage(tmp_path), []
    monkeypatch.setattr(demo_dataset, "check_disk_space", lambda folder, option, size: required.append(size))
    monkeypatch.setattr(demo_dataset, "render_video", lambda spec: (spec, "not now"))
    with pytest.raises(CeflError, match="not now"):
        tiny(tmp_path)
    size = sum(video.stat().st_size for video in data_set.parent.rglob("*.mp4"))
    assert size <= required[0] <= 4 * size
    monkeypatch.undo()
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=required[0] - 1))
    with pytest.raises(CeflError, match="give --root a folder on another disk"):
        tiny(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_every_number_of_workers_gives_the_same_bytes(data_set, tmp_path):
    tiny(tmp_path, executor=process_executor(2))
    assert contents(tmp_path) == contents(data_set.parent)


def test_a_second_run_renders_only_what_is_missing(data_set):
    root, calls = data_set.parent, []
    videos = sorted(root.rglob("*.mp4"))
    missing = videos[2]
    content = missing.read_bytes()
    before = {video: os.stat(video).st_mtime_ns for video in videos}
    missing.unlink()
    tiny(root, on_progress=lambda completed, total, note="": calls.append((completed, total)))
    assert calls == [(6, 7), (7, 7)]
    assert missing.read_bytes() == content
    tiny(root, on_progress=lambda completed, total, note="": calls.append((completed, total)))
    assert calls[2:] == [(7, 7)]
    after = {video: os.stat(video).st_mtime_ns for video in videos}
    assert {video for video in videos if before[video] != after[video]} <= {missing}


@pytest.mark.parametrize("change", ["seed", "version"])
def test_other_settings_or_another_version_render_everything_again(tmp_path, monkeypatch, change):
    tiny(tmp_path)
    foreign = tmp_path / "videos" / "S01" / "holiday.mp4"
    foreign.write_bytes(b"not ours")
    calls = []
    if change == "version":
        monkeypatch.setattr(demo_dataset, "VERSION", 99)
    tiny(
        tmp_path,
        seed=4 if change == "seed" else 3456,
        on_progress=lambda completed, total, note="": calls.append(completed),
    )
    assert calls == [0, 1, 2, 3, 4, 5, 6, 7]
    assert foreign.read_bytes() == b"not ours"
    settings = json.loads((tmp_path / demo_dataset.SETTINGS_FILE).read_text())
    assert settings[change] == {"seed": 4, "version": 99}[change]


def test_an_error_while_rendering_leaves_no_video_behind(tmp_path, monkeypatch):
    count = iter(range(100))

    def broken(actor, units, camera, size):
        if next(count) == 10:
            raise RuntimeError("out of ink")
        return np.zeros((size, size, 3), np.uint8), None

    monkeypatch.setattr(demo_dataset, "render_frame", broken)
    with pytest.raises(RuntimeError, match="out of ink"):
        tiny(tmp_path)
    assert not list(tmp_path.rglob("S01_*.mp4"))
    assert not (tmp_path / "videos.csv").exists()


def test_a_worker_that_died_is_an_error_that_names_the_video(tmp_path):
    with pytest.raises(CeflError, match=r"S01_anger\.mp4: it died; run the same command again"):
        tiny(tmp_path, executor=lambda function, specs: [(spec, "it died") for spec in specs])


@pytest.mark.slow
def test_a_killed_run_leaves_whole_videos_only_and_the_next_one_completes_it(tmp_path, data_set):
    """kill -9 at several moments: every video that is there decodes fully, and in the end every byte is the same."""
    code = (
        "from ceflpipe.stages.demo.demo_dataset import make_dataset; import sys;"
        "from ceflpipe.stages.demo.demo_config import DemoConfig; from pathlib import Path;"
        f"make_dataset(Path(sys.argv[1]), DemoConfig(subjects=1, size=160, num_frames={NUM_FRAMES}))"
    )

    def finished() -> list[Path]:
        return list(tmp_path.rglob("S01_*.mp4"))

    def partial() -> list[Path]:
        return list(tmp_path.rglob(".S01_*.part.mp4"))

    for number, wait in enumerate((0.02, 0.05, 0.1), start=1):
        for part in partial():
            part.unlink()  # of the run before, which would end the loop while this one still imports
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env_with_path())
        while not (len(finished()) >= number and partial()) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        videos = finished()
        assert number <= len(videos) < len(LABELS)
        for video in videos:
            label = video.stem.removeprefix("S01_")
            assert count_frames(video) == len(performance_of(spec_of(label)).units)
    tiny(tmp_path)
    assert contents(tmp_path) == contents(data_set.parent)


def test_still_images_are_reproducible():
    stills = render_still_images(12, 5, 96)
    assert stills.images.shape == (12, 96, 96, 3)
    assert stills.landmarks.shape == (12, 5, 2)
    assert stills.intensity.shape == (12, len(EXPRESSIONS))
    assert stills.units.shape == (12, len(ACTION_UNITS))
    assert stills.intensity.dtype == np.float32
    assert stills.intensity.min() >= 0
    assert stills.intensity.max() <= 1
    np.testing.assert_array_equal(stills.images, render_still_images(12, 5, 96).images)
    np.testing.assert_array_equal(stills.images[:8], render_still_images(8, 5, 96).images)
    assert (render_still_images(12, 6, 96).images != stills.images).any()
    assert render_still_images(0, 5, 96).images.shape == (0, 96, 96, 3)


def test_actors_of_the_encoder_are_in_no_video(tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(demo_dataset, "make_actor", lambda number: numbers.append(number) or make_actor(number))
    render_still_images(40, 5, 96)
    assert len(set(numbers)) == 5
    assert min(numbers) >= FIRST_ENCODER_ACTOR
    numbers.clear()
    tiny(tmp_path)
    assert set(numbers) == {1}
    assert DemoConfig(subjects=FIRST_ENCODER_ACTOR - 1)
    with pytest.raises(ValueError, match="9999"):
        DemoConfig(subjects=FIRST_ENCODER_ACTOR)
