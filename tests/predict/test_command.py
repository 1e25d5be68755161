"""`ceflpipe predict` as a user meets it: files, folders, pictures, drawn videos, and memory that does not grow."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.cli import run_cli, run_here
from helpers.video import panning, write_video

from ceflpipe.stages.extract.video_reader import count_frames, open_video

LABELS = ("happiness", "sadness")


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs, random_encoder):
    """A run on twelve short videos of one real face, and films to try it on."""
    import shutil

    folder = tmp_path_factory.mktemp("predict")
    lines = ["path,label,subject"]
    for i in range(12):
        frames = panning(photographs["astronaut"], 12, (224, 224), (100, 10), (100 + i, 20))
        write_video(folder / "videos" / f"v{i}.mp4", frames)
        lines.append(f"videos/v{i}.mp4,{LABELS[i % 2]},S{i // 2}")
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    (folder / "artifacts" / "weights").mkdir(parents=True)
    shutil.copy(random_encoder, folder / "artifacts" / "weights" / "random.safetensors")
    run_cli("extract", "--manifest", "mine.csv", "--encoder", "random", "--crop-size", 64, cwd=folder, check=True)
    run_here("train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, cwd=folder, check=True)
    write_video(folder / "film.mp4", panning(photographs["astronaut"], 150, (224, 224), (60, 0), (140, 30)))
    write_video(folder / "six.mp4", [photographs["six"]] * 20)
    return folder


def predict(home, *arguments, check=False):
    return run_here("predict", *arguments, "--run", "artifacts/runs/mine/cefl", cwd=home, check=check)


def test_a_folder_becomes_pictures_numbers_json_and_one_csv(home):
    result = predict(home, "videos", "film.mp4", "--out", "said", check=True)
    assert result.stdout.splitlines()[-1] == "said"
    table = pd.read_csv(home / "said" / "predictions.csv")
    assert len(table) == 13
    assert table["path"].iloc[1].endswith("v1.mp4")
    assert table["path"].iloc[2].endswith("v2.mp4")
    assert not result.stderr.count("\x1b")
    for name, frames in (("v3", 12), ("film", 150)):
        picture = cv2.imread(str(home / "said" / f"{name}.png"))
        assert picture is not None
        assert picture.shape[1] == 1440
        assert picture.std() > 20
        numbers = pd.read_csv(home / "said" / f"{name}.csv")
        assert len(numbers) == frames
        (told,) = json.loads((home / "said" / f"{name}.json").read_text())
        line = table[table["path"].str.endswith(f"{name}.mp4")].iloc[0]
        assert told["label"] == line["label"]
        assert told["frames"] == frames
        assert numbers[["p_happiness", "p_sadness"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(frames))
    assert len(told["windows"]) == 3
    assert told["rule"] == "3 windows of 105 frames, 35 apart"
    assert next(one["begin"] for one in told["stretches"]) == 0
    assert told["stretches"][-1]["end"] == pytest.approx(6)


def test_a_pattern_in_quotes_and_a_csv_elsewhere(home):
    predict(home, "videos/v1*.mp4", "--csv", "some.csv", check=True)
    assert [path[-7:] for path in pd.read_csv(home / "some.csv")["path"]] == ["/v1.mp4", "v10.mp4", "v11.mp4"]


def test_everyone_is_told(home):
    said = json.loads(predict(home, "six.mp4", "--all-faces", "--json", check=True).stdout)
    assert [one["person"] for one in said] == [1, 2, 3, 4, 5, 6]
    assert all(one["label"] in LABELS and one["begin"] == 0 and one["frames"] == 20 for one in said)


def test_a_drawn_video_has_every_frame_and_the_box_where_the_face_was(home):
    predict(home, "film.mp4", "--out", "drawn", "--overlay", check=True)
    assert count_frames(home / "drawn" / "film.mp4") == 150
    frames = list(open_video(home / "drawn" / "film.mp4").frames())
    plain = list(open_video(home / "film.mp4").frames())
    # enlarged to 480, a footer under it; the face of frame 75 was found at this place
    from ceflpipe.stages.extract.retinaface import RetinaFace

    box = RetinaFace()(plain[75]).boxes[0] * 480 / 224
    picture = frames[75].astype(int)
    assert picture.shape == (480 + 2 * 17, 480, 3)
    orange = np.abs(picture - [232, 89, 12]).sum(axis=2) < 120
    x1, y1, x2, y2 = box.round().astype(int)
    on_the_frame = [orange[y1 + 40 : y2 - 10, x - 3 : x + 4].any(axis=1).mean() for x in (x1, x2)]
    assert min(on_the_frame) > 0.9
    assert orange[y1 + 60 : y2 - 60, x1 + 30 : x2 - 30].mean() < 0.05
    lower = frames[10][480:].astype(int)
    head = np.flatnonzero((lower > 200).all(axis=(0, 2)))
    assert head.mean() == pytest.approx(10 / 150 * 480, abs=6)


def test_wishes_that_cannot_be_are_said(home):
    for arguments, words in (
        (("film.mp4", "--overlay"), "give --out"),
        (("videos/*.avi",), "nothing matches this pattern"),
        (("artifacts/weights",), "no video in this folder"),
    ):
        result = predict(home, *arguments)
        assert result.returncode == 2
        assert words in result.stderr
        assert "Traceback" not in result.stderr
    mixed = predict(home, "film.mp4", "gone.mp4", "--out", "mixed")
    assert mixed.returncode == 1
    assert "gone.mp4: no such file" in mixed.stdout
    assert json.loads((home / "mixed" / "gone.json").read_text())[0]["failure"] == "no such file"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(home, photographs):
    """Five times the frames may cost features and little else; their pictures would be hundreds of MB."""
    peaks = []
    for frames in (600, 3000):
        once = panning(photographs["astronaut"], 50, (256, 256), (90, 0), (120, 10))
        write_video(home / f"long{frames}.mp4", (once + once[::-1]) * (frames // 100))
        command = [
            sys.executable,
            "-m",
            "ceflpipe.pipeline",
            "predict",
            f"long{frames}.mp4",
            "--run",
            "artifacts/runs/mine/cefl",
            "--out",
            "long",
            "--overlay",
            "--quiet",
        ]
        code = (
            f"import resource, subprocess; subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        peaks.append(
            int(
                subprocess.run(
                    [sys.executable, "-c", code], cwd=home, check=True, capture_output=True, text=True
                ).stdout
            )
            / 1024
        )
        assert count_frames(home / "long" / f"long{frames}.mp4") == frames
    pictures = 2400 * 256 * 256 * 3 / 2**20
    assert peaks[1] - peaks[0] < 0.2 * pictures, f"{peaks[0]:.0f} MB at 600 frames, {peaks[1]:.0f} MB at 3000"
