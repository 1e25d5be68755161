"""The paper's four data sets from folder to scores: rendered actors in their clothes, both stages, their protocols."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.cli import run_cli
from helpers.dataset_trees import ACTORS, SUBJECTS, mmi, workplace
from helpers.fake_datasets import plant
from helpers.fake_videos import LABELS, film, performance, pictures

from ceflpipe.cache.hdf5 import read_features

pytestmark = pytest.mark.slow
NAMES = {"anger": "Angry", "disgust": "Disgust", "fear": "Fear", "happiness": "Happy", "sadness": "Sad", "surprise": "Surprise", "neutral": "Neutral"}  # fmt: skip


def both_stages(home, name, *protocol, failing=0):
    """Run both stages as a user does; returns the metrics, the predictions and the features."""
    extracted = run_cli("extract", "--dataset", name, "--workers", 1, "--json", cwd=home)
    assert extracted.returncode == (1 if failing else 0), extracted.stderr
    said = json.loads(extracted.stdout)
    assert len(said["failed"]) == failing, said["failed"]
    trained = run_cli("train-heads", "--dataset", name, *protocol, "--epochs", 1, "--quiet", cwd=home)
    assert trained.returncode == 0, trained.stderr
    run = home / f"artifacts/runs/{name}/cefl"
    predictions = pd.concat([pd.read_csv(file, dtype=str) for file in sorted((run / "predictions").glob("*.csv"))])
    metrics = json.loads((run / "metrics.json").read_text())
    listed = pd.read_csv(home / f"artifacts/manifests/{name}.csv", dtype=str, keep_default_na=False)
    check_denominators(metrics, predictions, failing)
    assert ("WAR, faces found" in trained.stdout) == bool(failing)
    return (
        metrics,
        listed.merge(predictions, on="id", suffixes=("", "_run")),
        read_features(home / f"artifacts/features/{name}.h5"),
    )


def check_denominators(metrics, predictions, failing):
    """Videos without a usable face are errors in the headline score, and no part of the one beside it."""
    right = predictions.label == predictions.predicted
    by_fold = right.groupby(predictions.fold).mean()
    seen = right[predictions.status == "ok"].groupby(predictions.fold[predictions.status == "ok"]).mean()
    assert metrics["videos_without_prediction"] == failing == (predictions.status != "ok").sum()
    assert metrics["war"]["mean"] == pytest.approx(by_fold.mean())
    assert metrics["war_with_face"]["mean"] == pytest.approx(seen.mean())


def test_mmi_ten_folds(tmp_path, random_encoder):
    home = workplace(tmp_path, "mmi", random_encoder, **{r"both_size: \[720, 576\]": "both_size: [320, 160]"})
    mmi(home / "data/mmi/mmi-facial-expression-database_download_x/Sessions")
    metrics, videos, table = both_stages(home, "mmi", "--folds", 10, failing=1)
    assert metrics["videos"] == 61
    assert metrics["folds"] == 10
    assert set(videos.status) == {"ok", "unreadable"}
    assert videos.groupby("subject").fold_run.nunique().max() == 1, "a subject is tested in one fold only"
    assert (videos[videos.rotation == "90"].subject.nunique(), (videos.region != "").sum()) == (5, 18)

    def features_of(subject, label):
        (video,) = videos[(videos.subject == subject) & (videos.label == label) & (videos.status == "ok")].id
        return table.features[table.rows(video)].astype(np.float32)

    # S001 is actor 1 on the right, S015 the same on the left, S054 … upright: turning and cutting leave the same faces
    upright = features_of("S053", "fear")
    actor = SUBJECTS.index("S053") % ACTORS
    for subject in [s for place, s in enumerate(SUBJECTS) if place % ACTORS == actor and s != "S053"]:
        other = features_of(subject, "fear")
        cosine = (upright * other).sum(1) / np.linalg.norm(upright, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() > 0.97, subject
    assert set(table.videos.width[[table.index_of[i] for i in videos.id[videos.region != ""]]]) == {160}


def test_mmi_probe_writes_what_the_faces_say(tmp_path, random_encoder):
    changes = {r"both_size: \[720, 576\]": "both_size: [320, 160]", r"upright: \[S053, S054\]": "upright: [S030]"}
    home = workplace(tmp_path, "mmi", random_encoder, **changes)
    mmi(home / "data/mmi/Sessions")
    by_rule = run_cli("check", "--dataset", "mmi", "--probe", cwd=home)
    assert "in the manifest turned by 90 degrees, but its face says as it is" in by_rule.stdout
    assert "settle these with ceflpipe manifest --dataset mmi --probe" in by_rule.stdout
    said = run_cli("manifest", "--dataset", "mmi", "--probe", cwd=home, check=True).stderr
    assert "looked at 61 videos: 18 stand otherwise than the rule says" in said
    listed = pd.read_csv(home / "artifacts/manifests/mmi.csv", dtype=str, keep_default_na=False)
    whole = listed[(listed.region == "") & (listed.id != "503/S099-503")]
    assert set(whole.subject[whole.rotation == ""]) == {"S053", "S054"}
    assert "S030" in set(whole.subject[whole.rotation == "90"])
    assert "face says" not in run_cli("check", "--dataset", "mmi", "--probe", cwd=home).stdout


def test_bu4dfe_ten_folds(tmp_path, random_encoder):
    home = workplace(tmp_path, "bu3dfe", random_encoder)
    root = home / "data/bu3dfe/BU_4DFE"
    for place in range(10):
        for label in LABELS:
            folder = root / f"{'FM'[place % 2]}{place + 1:03d}" / NAMES[label]
            pictures(folder, performance(1 + place % ACTORS, label))
            (folder / "000.wrl").write_text("#VRML, large\n" * 9)
    pictures(root / "BU_WrlViewer_V2/Fear", performance(1, "fear"))
    (root / "F001/Fear/002.jpg").write_bytes(b"damaged")
    metrics, videos, table = both_stages(home, "bu3dfe", failing=1)
    assert metrics["videos"] == 60
    assert metrics["folds"] == 10
    assert len(table.features) == 59 * 4
    assert videos.groupby("subject").fold_run.nunique().max() == 1
    # the meshes are no part of a sequence: touching one does not make stage one redo it
    (root / "F001/Sad/000.wrl").write_text("other")
    again = json.loads(run_cli("extract", "--dataset", "bu3dfe", "--verify", "--dry-run", "--json", cwd=home).stdout)
    assert again["kept"] == 60


@pytest.mark.parametrize("use", ["videos", "crops"])
def test_afew_train_to_val(tmp_path, random_encoder, use):
    faces = "detect" if use == "videos" else "given"
    changes = {r"use: videos": f"use: {use}", r"extract: \{.*\}": f"extract: {{faces: {faces}, size: 64}}"}
    home = workplace(tmp_path, "afew", random_encoder, **changes)
    for split, count, suffix in (("Train", 3, ""), ("Val", 1, "_Val")):
        for place, label in enumerate(NAMES):
            for copy in range(count):
                stem, frames = f"{copy}0{place}00", performance(1 + copy, label)
                film(home / f"data/afew/{split}_AFEW/{NAMES[label]}/{stem}.avi", frames)
                aligned = f"AlignedFaces_LBPTOP_Points{suffix}/Faces/{stem}"
                if (split, label) != ("Val", "fear"):
                    pictures(home / f"data/afew/{split}_AFEW/{aligned}", frames)
    if use == "videos":
        (home / "data/afew/Val_AFEW/Fear/00200.avi").write_bytes(b"RIFF damaged")
    metrics, videos, _ = both_stages(home, "afew", failing=1)
    assert metrics["videos"] == 7
    assert metrics["folds"] == 1
    assert set(videos.split) == {"val"}
    assert list(videos.id[videos.status != "ok"]) == ["val/fear/00200"]


@pytest.mark.parametrize("use", ["videos", "crops"])
def test_dfew_five_official_folds(tmp_path, random_encoder, use):
    faces = "detect" if use == "videos" else "given"
    changes = {r"use: videos": f"use: {use}", r"extract: \{.*\}": f"extract: {{faces: {faces}, size: 64}}"}
    home = workplace(tmp_path, "dfew", random_encoder, **changes)
    root = home / "data/dfew/DFEW-part2"
    codes = {1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust", 7: "fear"}
    clips = {7 * fold + code: (code, fold + 1) for fold in range(5) for code in codes}
    for clip, (code, fold) in clips.items():
        frames = performance(1 + fold % ACTORS, codes[code])
        if clip != 11 and use == "crops":
            pictures(
                root / f"Clip/clip_224x224/{clip:05d}",
                tuple(np.roll(f, n, 1) for n, f in enumerate(frames)),
                "{}.jpg",
                8,
            )
        elif clip != 11:
            film(root / f"Clip/original/part_{fold}/{clip}.mp4", frames)
    for k in range(1, 6):
        for part in ("train", "test"):
            listed = [f"{clip},{code}" for clip, (code, fold) in clips.items() if (fold == k) == (part == "test")]
            plant(root, f"EmoLabel_DataSplit/{part}(single-labeled)/set_{k}.csv = video_name,label|" + "|".join(listed))
    metrics, videos, _ = both_stages(home, "dfew", failing=1)
    assert metrics["videos"] == 35
    assert metrics["folds"] == 5
    assert (videos.fold == videos.fold_run).all()
    assert list(videos.id[videos.status != "ok"]) == ["00011"]
    checked = run_cli("check", "--dataset", "dfew", cwd=home)
    assert checked.returncode == 1
    assert "not there 1: 00011 (" in checked.stdout
