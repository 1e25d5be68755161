"""Many videos in worker processes: the same bytes for any number of them, and one that kills or stalls its worker fails alone."""

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers.run_cli import run_cli, run_cli_in_process
from helpers.video import panning, write_video

import ceflpipe
from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.ownership import SUMS_FILE
from ceflpipe.pipeline.executor import process_executor
from ceflpipe.pipeline.paths import encoder_file
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.predict import video_tasks
from ceflpipe.stages.predict.predict import DEFAULT_VIEW, extract_config_of
from ceflpipe.stages.predict.results import PredictOptions, ResultFolder
from ceflpipe.stages.predict.video_tasks import PredictTask, predict_task, run_predictions

FORMATS = "csv,json,png,eaf,vtt,mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    """Videos of a face of different lengths in two folders, two of one name, and two that cannot be predicted."""
    folder = tmp_path_factory.mktemp("many")
    for number, count in enumerate((20, 12, 40, 16)):
        frames = panning(photographs["astronaut"], count, (224, 224), (100, 10), (100 + number, 20))
        write_video(folder / ("a", "b")[number % 2] / f"v{number}.mp4", frames)
    (folder / "b/v0.mp4").write_bytes((folder / "a/v0.mp4").read_bytes())
    (folder / "a/broken.mp4").write_bytes(b"no video")
    write_video(folder / "b/empty.mp4", [photographs["astronaut"][:100, :100]] * 12)
    return folder


def predict(folder, *arguments, check=False):
    return run_cli("predict", "a", "b", *arguments, cwd=folder, check=check)


def hashes(folder):
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in folder.rglob("*") if file.is_file()}


def files_of(folder):
    return {name: digest for name, digest in hashes(folder).items() if name != SUMS_FILE}


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(folder):
    for workers in (0, 1, 3):
        done = predict(folder, "--out", f"out{workers}", "--format", FORMATS, "--workers", workers)
        assert done.returncode == 1, done.stderr
        assert "7 videos: 5 predicted" in done.stderr
        assert "1 unreadable" in done.stderr
    expected = files_of(folder / "out0")
    assert len([name for name in expected if name.endswith(".mp4")]) == 5
    assert files_of(folder / "out1") == expected
    assert files_of(folder / "out3") == expected
    paths = pd.read_csv(folder / "out3/predictions.csv")["path"].tolist()
    assert paths == sorted(paths)
    assert len(paths) == 7
    again = predict(folder, "--out", "out3", "--format", FORMATS)
    assert "5 finished before" in again.stderr
    assert files_of(folder / "out3") == expected


def test_a_dry_run_lists_what_would_be_done_and_writes_nothing(folder):
    options = ("predict", "a/v0.mp4", "a/v2.mp4", "--out", "planned", "--workers", 0)
    run_cli_in_process("predict", "a/v0.mp4", "--out", "planned", cwd=folder, check=True)
    before = hashes(folder)
    planned = run_cli_in_process(*options, "--format", "csv,vtt", "--dry-run", cwd=folder, check=True)
    assert "finished, 1 files to add" in planned.stdout
    assert "1 of 2 videos, 2 s, to predict by this process; results would be in planned" in planned.stderr
    rows = json.loads(run_cli_in_process(*options, "--dry-run", "--json", cwd=folder, check=True).stdout)
    assert [row["what would be done"] for row in rows] == ["finished", "to predict"]
    assert [row["length"] for row in rows] == ["0.8 s", "1.6 s"]
    missing = run_cli_in_process("predict", "a/v0.mp4", "a/broken.mp4", "gone.mp4", "--dry-run", cwd=folder)
    assert missing.returncode == 1
    assert "cannot be opened" in missing.stdout
    assert "no such file" in missing.stdout
    assert hashes(folder) == before


class Fault:
    """In place of predict_task in workers: ``v2`` kills its process or is never read to its end, every time."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, task):
        if task.video.name == "v2.mp4":
            if self.kind == "killed":
                task.started.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            video_tasks.predict_videos = stall
        return predict_task(task)


def stall(run, videos, config, *, monitor, **options):
    monitor.begin(VideoJob("v", videos[0]))
    time.sleep(600)
    yield []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [("killed", "crashed", "the worker process died"), ("stalled", "stalled", "decode timeout: no frame for 1 s")],
)
def test_a_video_that_kills_or_stalls_its_worker_fails_alone(folder, tmp_path, kind, status, reason):
    run = read_run(Path(video_tasks.__file__).parent / "pretrained/faces")
    options = PredictOptions(run, extract_config_of(run, encoder_file("faces"), "cpu"), DEFAULT_VIEW)
    videos = [folder / name for name in ("a/v0.mp4", "a/v2.mp4", "b/v1.mp4", "b/v3.mp4")]
    results = ResultFolder(tmp_path / "out", videos, options)
    (tmp_path / "markers").mkdir()
    tasks = [
        PredictTask(number, video, options, results.for_video(video), tmp_path / "markers", decode_timeout=1)
        for number, video in enumerate(videos)
    ]
    executor = process_executor(2)
    outcomes = {
        outcome.number: outcome.records[0]
        for outcome in run_predictions(tasks, lambda function, pending: executor(Fault(kind), pending))
    }
    assert [outcomes[number]["status"] for number in range(4)] == ["ok", status, "ok", "ok"]
    assert reason in outcomes[1]["failure"]
    written = {path.name for path in (tmp_path / "out").glob("*.cefl.png")}
    assert written == {"v0.cefl.png", "v1.cefl.png", "v3.cefl.png"}
    assert json.loads((tmp_path / "out/v2.cefl.json").read_text())[0]["status"] == status
    assert results.finished(videos[0]) == json.loads(json.dumps([outcomes[0]]))
    assert results.finished(videos[1]) is None, "it is tried again"


def test_the_python_interface_gives_the_same_from_workers(folder):
    videos = [folder / name for name in ("a/v0.mp4", "b/v1.mp4", "a/broken.mp4")]
    alone, together = (ceflpipe.predict("faces", videos, workers=workers) for workers in (1, 2))
    assert [each.probabilities for each in together] == [each.probabilities for each in alone]
    assert [each.path for each in together] == videos
    assert together[0].frames().equals(alone[0].frames())
    assert together[2].failure == alone[2].failure != ""
