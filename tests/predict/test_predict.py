"""`ceflpipe predict`: files, folders, patterns, output files, overlay videos, and memory that does not grow."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import av
import cv2
import numpy as np
import pandas as pd
import pympi
import pytest
import srt
import webvtt
from helpers.run_cli import run_cli_in_process
from helpers.video import encode_video, panning, write_video

import ceflpipe
from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline import predicting
from ceflpipe.pipeline.commands import cmd_predict
from ceflpipe.stages.extract.video_reader import count_frames, open_video
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.predict import predict as predict_stage
from ceflpipe.stages.predict import results
from ceflpipe.stages.predict.results import ResultFolder

LABELS = ("happiness", "sadness")


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs, random_encoder):
    """A run on twelve short videos of one real face, and longer videos to predict."""
    folder = tmp_path_factory.mktemp("predict")
    lines = ["path,label,subject"]
    for i in range(12):
        frames = panning(photographs["astronaut"], 12, (224, 224), (100, 10), (100 + i, 20))
        write_video(folder / "videos" / f"v{i}.mp4", frames)
        lines.append(f"videos/v{i}.mp4,{LABELS[i % 2]},S{i // 2}")
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    (folder / "artifacts" / "weights").mkdir(parents=True)
    shutil.copy(random_encoder, folder / "artifacts" / "weights" / "random.safetensors")
    command = ("extract", "--manifest", "mine.csv", "--encoder", "random", "--crop-size", 64)
    run_cli_in_process(*command, cwd=folder, check=True)
    run_cli_in_process("train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, cwd=folder, check=True)
    write_video(folder / "long.mp4", panning(photographs["astronaut"], 150, (224, 224), (60, 0), (140, 30)))
    write_video(folder / "six.mp4", [photographs["six"]] * 20)
    return folder


def predict(home, *arguments, check=False):
    options = ("--run", "artifacts/runs/mine/random/cefl", "--workers", 0)  # those of test_workers.py have workers
    return run_cli_in_process("predict", *arguments, *options, cwd=home, check=check)


def test_a_folder_gives_timelines_frame_tables_json_and_one_csv(home):
    result = predict(home, "videos", "long.mp4", "--out", "results", check=True)
    assert result.stdout.splitlines()[-1] == "results"
    table = pd.read_csv(home / "results" / "predictions.csv")
    assert len(table) == 13
    assert table["path"].iloc[1].endswith("v1.mp4")
    assert table["path"].iloc[2].endswith("v2.mp4")
    assert not result.stderr.count("\x1b")
    for name, frames in (("v3", 12), ("long", 150)):
        image = cv2.imread(str(home / "results" / f"{name}.cefl.png"))
        assert image is not None
        assert image.shape[1] == 1440
        assert image.std() > 20
        per_frame = pd.read_csv(home / "results" / f"{name}.cefl.csv")
        assert len(per_frame) == frames
        assert per_frame.columns[:6].tolist() == ["video", "track", "person", "name", "frame", "time"]
        (prediction,) = json.loads((home / "results" / f"{name}.cefl.json").read_text())
        row = table[table["path"].str.endswith(f"{name}.mp4")].iloc[0]
        assert prediction["label"] == row["label"]
        assert prediction["confidence"] == pytest.approx(row["confidence"]) == pytest.approx(row[f"p_{row['label']}"])
        assert prediction["frames"] == frames
        assert per_frame[["p_happiness", "p_sadness"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(frames))
    assert len(prediction["windows"]) == 3
    assert prediction["aggregation"] == "mean of 3 windows of 105 frames, stride 35"
    assert prediction["segments"][0]["begin"] == 0
    assert prediction["segments"][-1]["end"] == pytest.approx(6)
    assert "windows of 105" not in result.stderr  # printed for a single video only


def test_a_final_model_predicts_and_quotes_the_score_of_its_cross_validation(home):
    """Its probabilities are those of its only model, and the score that is quoted is the run's, said to be expected."""
    arguments = ("--manifest", "mine.csv", "--final")
    trained = run_cli_in_process("train-heads", *arguments, cwd=home, check=True)
    folder = "artifacts/runs/mine/random/cefl-final"
    assert trained.stdout.splitlines()[-1] == folder
    war = read_run(home / "artifacts/runs/mine/random/cefl").metrics["war"]
    assert f"{100 * war['mean']:.2f}" in trained.stdout
    done = run_cli_in_process("predict", "videos/v0.mp4", "--run", folder, cwd=home, check=True)
    score = f"expected to be right in {100 * war['mean']:.2f} ± {100 * war['std_ddof0']:.2f} %"
    assert score in done.stderr
    assert "final model, 1 of cefl, trained on all 12 videos of mine" in done.stderr
    assert "not measured on it" in done.stderr
    temperatures = [read_run(home / "artifacts/runs/mine/random" / name).temperature for name in ("cefl", "cefl-final")]
    assert temperatures[0] == temperatures[1]
    assert f"temperature {temperatures[0]:.2f}" in done.stderr
    folds = predict(home, "videos/v0.mp4", check=True)
    assert "by artifacts/runs/mine/random/cefl: 3 models of cefl" in folds.stderr
    reported = run_cli_in_process("report", "--manifest", "mine.csv", "--run", folder, cwd=home)
    assert reported.returncode == 2
    assert "a final model, which was not tested" in reported.stderr
    card = run_cli_in_process("inspect", folder, cwd=home, check=True).stdout
    assert "final model" in card
    assert "### Encoder random" in card
    changed = run_cli_in_process("train-heads", *arguments, "--lr", 0.5, cwd=home)
    assert "was cross-validated with learning_rate 0.0001, so learning_rate 0.5 has no score" in changed.stderr
    missing = run_cli_in_process("train-heads", *arguments, "--head", "mean", cwd=home)
    assert "cross-validate first with ceflpipe train-heads --manifest mine.csv --head mean" in missing.stderr
    itself = run_cli_in_process(
        "train-heads", *arguments, "--out", "artifacts/runs/mine/random/cefl", "--force", cwd=home
    )
    assert "is the input" in itself.stderr
    assert (changed.returncode, missing.returncode, itself.returncode) == (2, 2, 2)


def test_a_pattern_and_a_csv_elsewhere(home):
    predict(home, "videos/v1*.mp4", "--csv", "some.csv", check=True)
    assert [path[-7:] for path in pd.read_csv(home / "some.csv")["path"]] == ["/v1.mp4", "v10.mp4", "v11.mp4"]


def test_all_faces_are_predicted(home):
    predictions = json.loads(predict(home, "six.mp4", "--all-faces", "--json", check=True).stdout)
    assert [p["track"] for p in predictions] == [1, 2, 3, 4, 5, 6]
    assert all(p["label"] in LABELS and p["begin"] == 0 and p["frames"] == 20 for p in predictions)


def test_an_overlay_video_has_every_frame_and_the_box_around_the_face(home):
    result = predict(home, "long.mp4", "--out", "overlay", "--overlay", check=True)
    assert "about 150 frames, predicted in windows of 105 with a stride of 35" in result.stderr
    assert count_frames(home / "overlay" / "long.cefl.mp4") == 150
    frames = [frame.image for frame in open_video(home / "overlay" / "long.cefl.mp4").frames()]
    plain = [frame.image for frame in open_video(home / "long.mp4").frames()]
    # one row of intensity below the picture; the detector finds the face of frame 75 in this box
    from ceflpipe.stages.extract.retinaface import RetinaFace

    box = RetinaFace()(plain[75]).boxes[0]
    image = frames[75].astype(int)
    assert image.shape == (224 + 2 * 14, 224, 3)
    orange = np.abs(image - [232, 89, 12]).sum(axis=2) < 120
    x1, y1, x2, y2 = box.round().astype(int)
    on_the_border = [orange[y1 + 20 : y2 - 5, x - 3 : x + 4].any(axis=1).mean() for x in (x1, x2)]
    assert min(on_the_border) > 0.9
    assert orange[y1 + 25 : y2 - 25, x1 + 15 : x2 - 15].mean() < 0.05
    intensity_row = frames[10][224:].astype(int)
    playhead = np.flatnonzero((intensity_row > 200).all(axis=(0, 2)))
    assert playhead.mean() == pytest.approx(10 / 150 * 224, abs=3)


def test_progress_counts_the_frames_of_prediction_and_of_the_overlay(home, monkeypatch):
    calls = []

    @contextmanager
    def record(label, *, quiet=False, transient=False):
        yield lambda completed, total, note="": calls.append((completed, total, note))

    monkeypatch.setattr(cmd_predict, "progress", record)
    predict(home, "videos/v1.mp4", "videos/v2.mp4", "--out", "progress", "--overlay", "--encoder", "random", check=True)
    assert {total for _, total, _ in calls} == {48}
    counted = [(completed, note) for completed, _, note in calls if completed]
    assert [completed for completed, _ in counted] == sorted(completed for completed, _ in counted)
    assert counted[-1] == (48, "drawing v2.mp4")
    assert (12, "v1.mp4") in counted


def test_bad_input_is_refused(home):
    for arguments, message in (
        (("long.mp4", "--overlay"), "give --out"),
        (("long.mp4", "--format", "eaf"), "--format needs a folder"),
        (("long.mp4", "--format", "elan", "--out", "x"), "--format elan: no such format"),
        (("videos/*.avi",), "nothing matches this pattern"),
        (("artifacts/weights",), "no video in this folder"),
    ):
        result = predict(home, *arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    mixed = predict(home, "long.mp4", "gone.mp4", "--out", "mixed")
    assert mixed.returncode == 1
    assert "gone.mp4: no such file" in mixed.stdout
    assert json.loads((home / "mixed" / "gone.cefl.json").read_text())[0]["failure"] == "no such file"


PEAKS = """
import tracemalloc
from pathlib import Path
from ceflpipe.pipeline.cli import cli
for name in ("videos/v1", "long300", "long1500"):
    tracemalloc.start()
    cli.main(["predict", f"{name}.mp4", "--run", "artifacts/runs/mine/random/cefl", "--out", "long", "--overlay", "--quiet"],
             standalone_mode=False)
    print("traced:", tracemalloc.get_traced_memory()[1] // 1024, "kB")
    tracemalloc.stop()
    print(Path("/proc/self/status").read_text())
"""
"""Prints two peaks after each of three videos; the first video loads the networks.

``traced`` is the memory of Python and NumPy, nearly the same in every run. VmHWM is that of the process, with what decoders
and torch hold; ru_maxrss would start from that of pytest.
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(home, photographs):
    """Five times the frames may cost features, boxes and tables, but neither frames nor crops.

    1200 more frames are 225 MB as pixels (256 x 256 x 3 bytes each), 43 MB as crops of 112 pixels, 14 MB as the crops of 64
    pixels that this run has, and 1.2 MB as features (1024 bytes). Measured were 3 MB of arrays, bounded by half of the small
    crops, and 7 to 77 MB of the process, which depend on its threads and allocator, so its bound only excludes frames.
    """
    clip = panning(photographs["astronaut"], 50, (256, 256), (90, 0), (120, 10))
    for frames in (300, 1500):
        write_video(home / f"long{frames}.mp4", (clip + clip[::-1]) * (frames // 100))
    done = subprocess.run([sys.executable, "-c", PEAKS], cwd=home, check=True, capture_output=True, text=True)
    for frames in (300, 1500):
        assert count_frames(home / "long" / f"long{frames}.cefl.mp4") == frames
    traced, resident = (
        [int(kilobytes) / 1024 for kilobytes in re.findall(rf"^{name}:\s+(\d+) kB", done.stdout, re.MULTILINE)]
        for name in ("traced", "VmHWM")
    )
    assert len(traced) == len(resident) == 3
    crops_mb, frames_mb = (1200 * side * side * 3 / 2**20 for side in (64, 256))
    assert traced[2] - traced[1] < 0.5 * crops_mb, f"{traced[1]:.1f} MB at 300 frames, {traced[2]:.1f} MB at 1500"
    assert resident[2] - resident[1] < 0.4 * frames_mb, f"{resident[1]:.0f} MB at 300, {resident[2]:.0f} MB at 1500"


def test_times_of_all_outputs_are_those_of_the_file(home, photographs):
    """A phone's film that slows down: no time is a frame number divided by a rate."""
    ticks = np.cumsum([0, *[20] * 79, *[300] * 70]).tolist()
    frames = panning(photographs["astronaut"], 150, (224, 224), (60, 0), (140, 30))
    encode_video(home / "uneven.mp4", frames, ticks=ticks)
    seconds = np.array(ticks) / 1000
    predict(home, "uneven.mp4", "--out", "uneven", "--overlay", check=True)
    table = pd.read_csv(home / "uneven" / "uneven.cefl.csv")
    np.testing.assert_allclose(table["time"], seconds, atol=1e-5)
    (record,) = json.loads((home / "uneven" / "uneven.cefl.json").read_text())
    ends = np.append(seconds, record["end"])
    assert ends[-1] == pytest.approx(seconds[-1] * 150 / 149)  # less than the time of the frame before
    for window in record["windows"]:
        first = window["first_frame"]
        assert (window["begin"], window["end"]) == pytest.approx(
            (ends[first], ends[first + window["frames"]]), abs=1e-5
        )
    times = [time for name in ("intensity", "segments") for part in record[name] for time in spans_of(part)]
    assert max(np.abs(ends - time).min() for time in [*times, *record["located_time"]]) < 1e-5
    overlaid = [frame.time for frame in open_video(home / "uneven" / "uneven.cefl.mp4").frames()]
    np.testing.assert_allclose(overlaid, seconds, atol=1e-4)


def test_formats_have_the_times_that_the_container_gives(home, photographs):
    """Against the presentation times of PyAV, for a video whose frames are shown for 7 to 300 ms."""
    gaps = np.random.default_rng(3).integers(7, 300, 149)
    ticks = np.cumsum([0, *gaps]).tolist()
    frames = panning(photographs["astronaut"], 150, (224, 224), (60, 0), (140, 30))
    encode_video(home / "shaky.mkv", frames, ticks=ticks)
    with av.open(str(home / "shaky.mkv")) as container:
        stream = container.streams.video[0]
        shown = sorted(
            float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None
        )
    assert np.diff(shown) * 1000 == pytest.approx(gaps)
    formats = "csv,parquet,json,eaf,boris,vtt,srt,openface"
    predict(home, "shaky.mkv", "--out", "formats", "--format", formats, check=True)
    names = {path.name.removeprefix("shaky.cefl.") for path in (home / "formats").glob("shaky.*")}
    tables = {"csv", "segments.csv", "frames.parquet", "segments.parquet", "openface.csv"}
    assert names == {*tables, "json", "eaf", "boris", "boris.xlsx", "vtt", "srt"}
    read = {name: home / "formats" / f"shaky.cefl.{name}" for name in names}
    for table in (pd.read_csv(read["csv"]), pd.read_parquet(read["frames.parquet"])):
        np.testing.assert_allclose(table["time"], shown, atol=1e-6)
    np.testing.assert_allclose(pd.read_csv(read["openface.csv"])["timestamp"], shown, atol=1e-6)
    (record,) = json.loads(read["json"].read_text())
    edges = np.array([*shown, record["end"]])
    document = pympi.Elan.Eaf(str(read["eaf"]))
    captions = webvtt.read(read["vtt"])

    def in_ms(seconds, moment):
        return 1000 * seconds + moment.milliseconds

    spans = {
        "eaf": [
            annotation[:2]
            for tier in document.get_tier_names()
            for annotation in document.get_annotation_data_for_tier(tier)
        ],
        "vtt": [(in_ms(c.start_in_seconds, c.start_time), in_ms(c.end_in_seconds, c.end_time)) for c in captions],
        "srt": [
            (1000 * c.start.total_seconds(), 1000 * c.end.total_seconds()) for c in srt.parse(read["srt"].read_text())
        ],
        "boris": [(1000 * e[0],) for e in json.loads(read["boris"].read_text())["observations"]["shaky"]["events"]],
        "csv": (1000 * pd.read_csv(read["segments.csv"])[["begin", "end"]]).to_numpy().tolist(),
    }
    for name, actual in spans.items():
        assert actual, name
        assert max(np.abs(1000 * edges - time).min() for span in actual for time in span) <= 0.51, name


def test_without_calibration_the_probabilities_are_the_models_own_and_files_are_made_again(home, tmp_path):
    """The temperature is one that changes confidence; no file of the one is taken for that of the other."""
    run = read_run(home / "artifacts" / "runs" / "mine" / "random" / "cefl")
    assert run.temperature not in (None, 1.0)
    encoder = home / "artifacts" / "weights" / "random.safetensors"
    parts = {c: ceflpipe.predict(run, [home / "six.mp4"], encoder=encoder, calibration=c)[0] for c in (True, False)}
    assert (parts[True].temperature, parts[False].temperature) == (run.temperature, None)
    assert parts[True].confidence != parts[False].confidence
    for option, calibrated in (((), True), (("--no-calibration",), False), ((), True)):
        done = predict(home, "six.mp4", "--out", tmp_path / "out", "--format", "json", *option, check=True)
        assert "videos are finished" not in done.stderr
        assert ("is not calibrated: --no-calibration" in done.stderr) != calibrated
        (written,) = json.loads((tmp_path / "out" / "six.cefl.json").read_text())
        assert written["confidence"] == pytest.approx(parts[calibrated].confidence, abs=1e-5)


def test_a_changed_page_is_written_again(home, monkeypatch):
    run = read_run(home / "artifacts" / "runs" / "mine" / "random" / "cefl")
    config = predict_stage.extract_config_of(run, home / "artifacts" / "weights" / "random.safetensors", "cpu")
    options = results.PredictOptions(run, config, predict_stage.DEFAULT_VIEW)
    before = options.fingerprint(home / "six.mp4")
    assert options.fingerprint(home / "six.mp4") == before
    monkeypatch.setattr(results, "PAGE", results.PAGE + "<!-- new -->")
    assert options.fingerprint(home / "six.mp4") != before


def test_another_format_is_made_without_predicting_again(home, tmp_path, monkeypatch):
    videos = ("long.mp4", "six.mp4")
    everything = "csv,parquet,eaf,boris,vtt,srt,openface,png,mp4"
    predict(home, *videos, "--all-faces", "--out", tmp_path / "whole", "--format", everything, check=True)
    predict(home, *videos, "--all-faces", "--out", tmp_path / "out", "--format", "json", check=True)
    assert {path.suffix for path in (tmp_path / "out").glob("*.cefl.*")} == {".json", ".csv"}

    def refuse(*arguments, **options):
        raise AssertionError("predicted again")

    monkeypatch.setattr(predicting, "predict_videos", refuse)
    for formats in ("eaf,vtt", "csv,parquet,boris", everything):
        predict(home, *videos, "--all-faces", "--out", tmp_path / "out", "--format", formats, check=True)
        assert (tmp_path / "out" / "six.cefl.eaf").is_file()  # those of earlier calls stay
    whole, out = hashes(tmp_path / "whole"), hashes(tmp_path / "out")
    assert len(whole) == 2 * 12 + 7 + 2
    differing = {name for name in whole if whole[name] != out[name]}
    assert differing <= {".ceflpipe.sha256"}


def test_a_file_that_was_corrected_by_hand_stays_and_stops_only_what_would_replace_it(home, tmp_path):
    arguments = ("videos/v1.mp4", "--out", tmp_path)
    predict(home, *arguments, "--format", "eaf", check=True)
    (tmp_path / "v1.cefl.eaf").write_text("corrected in ELAN")
    (tmp_path / "v1.cefl.pfsx").write_text("how ELAN shows it")
    predict(home, *arguments, "--format", "srt,vtt", check=True)
    refused = predict(home, *arguments, "--format", "eaf")
    assert (refused.returncode, "v1.cefl.eaf: exists, and" in refused.stderr) == (2, True)
    assert (tmp_path / "v1.cefl.eaf").read_text() == "corrected in ELAN"
    predict(home, *arguments, "--format", "eaf", "--force", check=True)
    assert pympi.Elan.Eaf(str(tmp_path / "v1.cefl.eaf")).get_tier_names()
    assert (tmp_path / "v1.cefl.pfsx").read_text() == "how ELAN shows it"


def spans_of(part):
    return (part["begin"], part["end"]) if isinstance(part, dict) else part[:2]


def test_rotation_and_region_are_those_of_a_manifest(home, photographs):
    frames = panning(photographs["astronaut"], 20, (224, 224), (100, 10), (110, 20))
    turned = [np.pad(np.rot90(frame), ((0, 0), (300, 40), (0, 0))) for frame in frames]
    write_video(home / "turned.mp4", turned)
    write_video(home / "upright.mp4", frames)
    expected = json.loads(predict(home, "upright.mp4", "--json", check=True).stdout)[0]
    # clockwise by 90 degrees, the 300 columns at the left are above the face
    options = ("--rotation", 90, "--region", "0 300 224 224", "--out", "view", "--overlay")
    predict(home, "turned.mp4", *options, check=True)
    result = json.loads((home / "view" / "turned.cefl.json").read_text())[0]
    assert result["frames_with_face"] == 20
    for label in LABELS:
        assert result["probabilities"][label] == pytest.approx(expected["probabilities"][label], abs=0.02)
    overlaid = next(open_video(home / "view" / "turned.cefl.mp4").frames()).image
    assert overlaid.shape[1] == 224
    assert cv2.absdiff(overlaid[:56, :56], frames[0][:56, :56]).mean() < 8
    refused = predict(home, "turned.mp4", "--region", "0 300 224")
    assert refused.returncode == 2
    assert "--region '0 0 640 480'" in refused.stderr


@pytest.mark.parametrize("option", [(), ("--all-faces",)])
def test_a_turned_face_that_is_not_detected_is_named_with_the_cure(home, photographs, option):
    small = cv2.resize(photographs["astronaut"][:256, 96:352], (100, 100), interpolation=cv2.INTER_AREA)
    image = np.full((240, 320, 3), 110, np.uint8)
    image[60:160, 100:200] = small[::-1, ::-1]
    encode_video(home / "turned.mkv", [image] * 20, codec="ffv1", pix_fmt="bgr0")
    refused = predict(home, "turned.mkv", *option)
    assert refused.returncode == 2
    assert "faces are upside down; set rotation 180 in the manifest, or use --rotation auto" in refused.stderr
    (record,) = json.loads(predict(home, "turned.mkv", "--rotation", "auto", "--json", *option, check=True).stdout)
    assert (record["frames_with_face"], record["rotation"]) == (20, "180")


def test_image_folders_take_a_frame_rate_or_say_what_was_assumed(home, photographs):
    (home / "images").mkdir()
    for i, frame in enumerate(panning(photographs["astronaut"], 20, (224, 224), (100, 10), (110, 20))):
        cv2.imwrite(str(home / "images" / f"{i}.png"), frame[:, :, ::-1])
    result = predict(home, "images", check=True)
    assert "images: 25 frames per second assumed" in result.stdout
    (assumed,) = json.loads(predict(home, "images", "--json", check=True).stdout)
    (given,) = json.loads(predict(home, "images", "--json", "--fps", 50, check=True).stdout)
    assert (assumed["end"], given["end"]) == pytest.approx((0.8, 0.4))
    assert (assumed["note"], given["note"]) == ("25 frames per second assumed", "")


def test_a_run_trained_on_face_crops_detects_faces_in_whole_frames(home, photographs):
    """Noise has no face; only the user can say that a frame is a face crop."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 96, 3)).astype(np.uint8) for _ in range(30)]
    write_video(home / "noise.avi", noise, codec="MJPG")
    command = ("extract", "--manifest", "mine.csv", "--encoder", "random", "--crop-size", 64, "--input", "crops")
    run_cli_in_process(*command, "--out", "crops.h5", cwd=home, check=True)
    train = ("train-heads", "--manifest", "mine.csv", "--features", "crops.h5", "--folds", 3, "--epochs", 2)
    run_cli_in_process(*train, "--out", "crops", cwd=home, check=True)

    def predict_crops(*arguments):
        return run_cli_in_process("predict", *arguments, "--run", "crops", "--device", "cpu", cwd=home)

    refused = predict_crops("noise.avi")
    assert refused.returncode == 2
    assert (refused.stderr + refused.stdout).count("no face in 30 of 30 frames") == 1
    assert "--input crops" in refused.stderr
    detected = predict_crops("videos/v1.mp4", "--out", "detected", "--quiet")
    assert (detected.returncode, detected.stderr) == (0, "")
    assert json.loads((home / "detected" / "v1.cefl.json").read_text())[0]["frames_with_face"] == 12
    given = predict_crops("noise.avi", "--input", "crops", "--out", "given")
    assert given.returncode == 0
    assert "--input crops" not in given.stderr
    both = predict_crops("noise.avi", "--input", "crops", "--all-faces")
    assert both.returncode == 2
    assert "with --input crops a frame is one face" in both.stderr
    other = predict(home, "noise.avi", "--input", "crops")
    assert other.returncode == 2
    assert "leave out --input crops" in other.stderr


def test_the_python_interface_has_the_views_of_the_command(home, photographs, monkeypatch):
    monkeypatch.chdir(home)
    frames = panning(photographs["astronaut"], 20, (224, 224), (100, 10), (110, 20))
    write_video(
        home / "view.avi", [np.pad(np.rot90(frame), ((0, 0), (300, 40), (0, 0))) for frame in frames], codec="MJPG"
    )
    (home / "stills").mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(home / "stills" / f"{i}.png"), frame[:, :, ::-1])
    expected = json.loads(predict(home, "view.avi", "--rotation", 90, "--region", "0 300 224 224", "--json").stdout)[0]
    for rotation, region in ((90, (0, 300, 224, 224)), ("auto", "0 300 224 224")):
        (actual,) = ceflpipe.predict("artifacts/runs/mine/random/cefl", ["view.avi"], rotation=rotation, region=region)
        assert actual.probabilities == pytest.approx(expected["probabilities"])
        assert (actual.rotation, actual.frames_with_face) == ("90", 20)
    (still,) = ceflpipe.predict("artifacts/runs/mine/random/cefl", ["stills"], fps=50)
    assert (still.end, still.note) == (pytest.approx(0.4), "")
    for wrong in ({"rotation": 45}, {"region": "0 0 100"}, {"fps": -1}, {"input": "crops"}):
        with pytest.raises(CeflError, match=next(iter(wrong))):
            ceflpipe.predict("artifacts/runs/mine/random/cefl", ["view.avi"], **wrong)


@pytest.mark.parametrize(
    ("key", "name"), [("detector_sha256", "detector retinaface"), ("encoder_sha256", "encoder.safetensors")]
)
@pytest.mark.parametrize("all_faces", [False, True])
def test_networks_whose_files_are_not_those_of_the_run_are_refused(
    home, random_encoder, tmp_path, key, name, all_faces
):
    """Also if the file was replaced after it had been compared with the run: nothing is predicted from other features."""
    encoder = shutil.copy(random_encoder, tmp_path / "encoder.safetensors")
    run = read_run(home / "artifacts/runs/mine/random/cefl")
    config = predict_stage.extract_config_of(run, encoder, "cpu")
    run.config["features"]["settings"][key] = "0" * 64
    with pytest.raises(CeflError, match=f"{name}: its file has the hash .*, not 00000000…"):
        next(predict_stage.predict_videos(run, [home / "six.mp4"], config, all_faces=all_faces))


# ---- files of the user, and results that come one by one


def hashes(folder):
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}


def test_results_next_to_a_video_never_replace_it(home, tmp_path):
    for name in ("v1.mp4", "v2.mp4"):
        shutil.copy(home / "videos" / name, tmp_path)
    (tmp_path / "v2.mp4").rename(tmp_path / "predictions.mp4")
    (tmp_path / "v1.json").write_text("mine")
    before = hashes(tmp_path)
    predict(home, tmp_path, "--out", tmp_path, "--overlay", check=True)
    after = hashes(tmp_path)
    assert before.items() <= after.items()
    suffixes = {
        f"{stem}.cefl.{ending}"
        for stem in ("v1", "predictions")
        for ending in ("json", "csv", "segments.csv", "png", "mp4")
    }
    assert set(after) - set(before) == suffixes | {"predictions.csv", ".ceflpipe.sha256"}
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 2
    assert (
        predict(home, tmp_path, "--out", tmp_path, "--overlay", check=True).stderr.count("skipped 2 overlay videos")
        == 1
    )
    assert hashes(tmp_path) == after
    for name in ("v1.cefl.csv", "predictions.csv"):
        (tmp_path / name).write_text("edited")
        refused = predict(home, tmp_path / "v1.mp4", "--out", tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert f"{name}: exists, and ceflpipe did not write it or it was edited since" in refused.stderr
        assert (tmp_path / name).read_text() == "edited"
        forced = predict(home, tmp_path, "--out", tmp_path, "--overlay", "--force", check=True)
        assert f"--force: replacing {tmp_path / name}" in forced.stderr
    assert hashes(tmp_path) == after


def test_a_second_run_predicts_only_what_is_missing_or_has_changed(home, tmp_path, monkeypatch):
    arguments = ("videos/v1.mp4", "videos/v2.mp4", "six.mp4", "gone.mp4")
    predict(home, *arguments, "--out", tmp_path / "whole")
    expected = hashes(tmp_path / "whole")
    read = []

    def record(run, videos, *rest, **options):
        read.append([path.name for path in videos])
        return predict_videos(run, videos, *rest, **options)

    predict_videos = predicting.predict_videos
    monkeypatch.setattr(predicting, "predict_videos", record)
    write_json = ResultFolder._write_json

    def stop_at_six(self, stem, *rest):
        if stem == "six":
            raise KeyboardInterrupt
        write_json(self, stem, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "_write_json", stop_at_six)
        assert predict(home, *arguments, "--out", tmp_path / "out").returncode == 130
    assert pd.read_csv(tmp_path / "out/predictions.csv")["path"].tolist() == ["videos/v1.mp4", "videos/v2.mp4"]
    again = predict(home, *arguments, "--out", tmp_path / "out")
    assert "2 of 4 videos are finished" in again.stderr
    third = predict(home, *arguments, "--out", tmp_path / "out", "--json")
    assert read == [["v1.mp4", "v2.mp4", "six.mp4", "gone.mp4"], ["six.mp4", "gone.mp4"], ["gone.mp4"]]
    sums = ".ceflpipe.sha256"
    assert {n: h for n, h in hashes(tmp_path / "out").items() if n != sums} == {
        n: h for n, h in expected.items() if n != sums
    }
    whole = [json.loads((tmp_path / f"whole/{name}.cefl.json").read_text()) for name in ("v1", "v2", "six", "gone")]
    for prediction in (records := [record for records in whole for record in records]):
        del prediction["fingerprint"]
    assert json.loads(third.stdout) == records
    (tmp_path / "out/v1.cefl.png").unlink()
    predict(home, "six.mp4", "--all-faces", "--out", tmp_path / "out", check=True)
    assert len(list((tmp_path / "out").glob("six.cefl.track*"))) == 6
    predict(home, *arguments[:3], "--out", tmp_path / "out", check=True)
    assert read[-2:] == [["six.mp4"], ["six.mp4"]]
    assert sha256_of(tmp_path / "out/v1.cefl.png") == expected["v1.cefl.png"]  # made from the JSON and the CSV
    assert not list((tmp_path / "out").glob("six.cefl.track*"))


def test_a_name_as_long_as_names_can_be_does_not_end_a_batch(home, tmp_path):
    videos = [tmp_path / ("n" * 250 + ".mp4"), tmp_path / "short.mp4"]
    for video in videos:
        shutil.copy(home / "videos/v1.mp4", video)
    predict(home, *videos, "--out", tmp_path / "out", "--overlay", check=True)
    assert pd.read_csv(tmp_path / "out/predictions.csv")["path"].tolist() == list(map(str, videos))
    assert len(list((tmp_path / "out").glob("*.cefl.mp4"))) == 2


def test_names_that_are_no_text_or_look_like_addresses_are_predicted(home, tmp_path):
    videos = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9.mp4", b"12:30.mp4", b"a\nb.mp4")]
    for video in videos:
        shutil.copy(home / "videos/v1.mp4", video)
    predict(home, *videos, "--out", tmp_path / "out", check=True)
    records = [json.loads(path.read_text())[0] for path in (tmp_path / "out").glob("*.cefl.json")]
    assert [record["failure"] for record in records] == [""] * 3
    assert {record["path"] for record in records} == set(map(str, videos))
    assert len(pd.read_csv(tmp_path / "out/predictions.csv")) == 3


def test_an_image_folder_gets_no_files_of_ours(home, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    before = hashes(folder)
    for arguments in (("--out", folder), ("--out", folder / "results"), ("--csv", folder / "all.csv")):
        refused = predict(home, folder, *arguments)
        assert refused.returncode == 2
        assert "is in the folder of images" in refused.stderr
    assert hashes(folder) == before


@pytest.mark.parametrize("option", [(), ("--all-faces",)])
def test_a_truncated_video_is_predicted_and_gives_exit_code_1(home, photographs, option):
    frames = panning(photographs["astronaut"], 80, (224, 224), (90, 0), (120, 20))
    whole = encode_video(home / "whole.mkv", frames, codec="mjpeg", pix_fmt="yuvj420p")
    (home / "truncated.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = predict(home, "truncated.mkv", "--json", *option)
    (record,) = json.loads(result.stdout)
    assert result.returncode == 1
    assert record["status"] == "truncated"
    assert record["label"]
    assert record["note"].startswith("truncated: its packets end at")
    result = predict(home, "whole.mkv", "--json", *option, check=True)
    assert [(record["status"], record["note"]) for record in json.loads(result.stdout)] == [("ok", "")]


def test_small_faces_in_large_frames_are_detected_with_a_larger_det_size(home, photographs):
    image = np.full((1080, 1920, 3), 90, np.uint8)
    small = cv2.resize(photographs["six"], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    image[400 : 400 + small.shape[0], 700 : 700 + small.shape[1]] = small
    encode_video(home / "small.mkv", [image] * 6, codec="ffv1", pix_fmt="bgr0")
    result = predict(home, "small.mkv")
    assert result.returncode == 2
    assert "frames of 1920 pixels are searched at 640: for smaller faces give --det-size 1280" in result.stderr
    (record,) = json.loads(predict(home, "small.mkv", "--det-size", 1280, "--json", check=True).stdout)
    assert record["frames_with_face"] == 6


def test_what_is_not_shown_for_long_is_noted(home, photographs):
    face = panning(photographs["astronaut"], 30, (224, 224), (100, 10), (105, 20))
    empty = [face[0] // 8 + 60] * 20
    for image in empty:
        image[40:190, 40:200] = 70
    write_video(home / "absent.mp4", face[:25] + empty + face[25:])
    (record,) = json.loads(predict(home, "absent.mp4", "--json", check=True).stdout)
    assert record["frames_with_face"] < 40
    assert "the main face is not found from 1.00 to 1.80 s" in record["note"]
