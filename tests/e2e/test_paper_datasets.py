"""The paper's four data sets from folder to scores: imitations with rendered actors, both stages, their cross-validation."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.dataset_trees import ACTORS, SUBJECTS, create_mmi, create_tree
from helpers.fake_videos import LABELS, performance, write_clip, write_images
from helpers.run_cli import make_workspace, run_cli_in_process

from ceflpipe.cache.hdf5 import read_features

pytestmark = pytest.mark.slow
FOLDERS = {"anger": "Angry", "disgust": "Disgust", "fear": "Fear", "happiness": "Happy", "sadness": "Sad", "surprise": "Surprise", "neutral": "Neutral"}  # fmt: skip
SMALL_DUAL_VIEW = {r"dual_view_size: \[720, 576\]": "dual_view_size: [320, 160]"}


def run_both_stages(home, name, *options, num_failed=0):
    """Run both stages by the command line; returns metrics, predictions joined with the manifest, and features."""
    extracted = run_cli_in_process("extract", "--dataset", name, "--workers", 1, "--json", cwd=home)
    assert extracted.returncode == (1 if num_failed else 0), extracted.stderr
    failed = json.loads(extracted.stdout)["failed"]
    assert len(failed) == num_failed, failed
    trained = run_cli_in_process("train-heads", "--dataset", name, *options, "--epochs", 1, "--quiet", cwd=home)
    assert trained.returncode == 0, trained.stderr
    run = home / f"artifacts/runs/{name}/random/cefl"
    predictions = pd.concat([pd.read_csv(file, dtype=str) for file in sorted((run / "predictions").glob("*.csv"))])
    metrics = json.loads((run / "metrics.json").read_text())
    manifest = read_csv(home / f"artifacts/manifests/{name}.csv")
    check_denominators(metrics, predictions, num_failed)
    assert ("WAR, videos with a face" in trained.stdout) == bool(num_failed)
    features = read_features(home / f"artifacts/features/{name}/random.h5")
    return metrics, manifest.merge(predictions, on="id", suffixes=("", "_run")), features


def read_csv(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def check_denominators(metrics, predictions, num_failed):
    """Videos without a usable face are errors in the main score, and not part of the score next to it."""
    correct = predictions.label == predictions.predicted
    usable = predictions.status == "ok"
    assert metrics["videos_without_prediction"] == num_failed == (~usable).sum()
    assert metrics["war"]["mean"] == pytest.approx(correct.groupby(predictions.fold).mean().mean())
    assert metrics["war_with_face"]["mean"] == pytest.approx(
        correct[usable].groupby(predictions.fold[usable]).mean().mean()
    )


def test_mmi_ten_folds(tmp_path, random_encoder):
    home = make_workspace(tmp_path, "mmi", random_encoder, **SMALL_DUAL_VIEW)
    create_mmi(home / "data/mmi/mmi-facial-expression-database_download_x/Sessions")
    metrics, videos, table = run_both_stages(home, "mmi", "--folds", 10, num_failed=1)
    assert metrics["videos"] == 61
    assert metrics["folds"] == 10
    assert set(videos.status) == {"ok", "unreadable"}
    assert videos.groupby("subject").fold_run.nunique().max() == 1, "a subject is tested in one fold only"
    assert (videos[videos.rotation == "90"].subject.nunique(), (videos.region != "").sum()) == (5, 18)

    def features_of(subject, label):
        (video,) = videos[(videos.subject == subject) & (videos.label == label) & (videos.status == "ok")].id
        return table[video].astype(np.float32)

    # S001 is actor 1 on the right, S015 the same on the left, S054 … upright: rotating and cropping give the same faces
    upright = features_of("S053", "fear")
    actor = SUBJECTS.index("S053") % ACTORS
    for subject in [s for index, s in enumerate(SUBJECTS) if index % ACTORS == actor and s != "S053"]:
        features = features_of(subject, "fear")
        cosine = (upright * features).sum(1) / np.linalg.norm(upright, axis=1) / np.linalg.norm(features, axis=1)
        assert cosine.min() > 0.97, subject
    assert set(table.videos.width[[table.index_of[i] for i in videos.id[videos.region != ""]]]) == {160}


def test_mmi_probe_writes_the_detected_orientation(tmp_path, random_encoder):
    changes = {**SMALL_DUAL_VIEW, r"upright_subjects: \[S053, S054\]": "upright_subjects: [S030]"}
    home = make_workspace(tmp_path, "mmi", random_encoder, **changes)
    create_mmi(home / "data/mmi/Sessions")
    by_default = run_cli_in_process("check", "--dataset", "mmi", "--probe", cwd=home)
    assert "in the manifest rotated by 90 degrees, detected orientation: as recorded" in by_default.stdout
    assert "fix with ceflpipe manifest --dataset mmi --probe" in by_default.stdout
    log = run_cli_in_process("manifest", "--dataset", "mmi", "--probe", cwd=home, check=True).stderr
    assert "probed 61 videos: 18 differ from the default" in log
    manifest = read_csv(home / "artifacts/manifests/mmi.csv")
    uncropped = manifest[(manifest.region == "") & (manifest.id != "503/S099-503")]
    assert set(uncropped.subject[uncropped.rotation == ""]) == {"S053", "S054"}
    assert "S030" in set(uncropped.subject[uncropped.rotation == "90"])
    assert "detected orientation" not in run_cli_in_process("check", "--dataset", "mmi", "--probe", cwd=home).stdout


def test_bu4dfe_ten_folds(tmp_path, random_encoder):
    home = make_workspace(tmp_path, "bu4dfe", random_encoder)
    root = home / "data/bu4dfe/BU_4DFE"
    for number in range(10):
        for label in LABELS:
            folder = root / f"{'FM'[number % 2]}{number + 1:03d}" / FOLDERS[label]
            write_images(folder, performance(1 + number % ACTORS, label))
            (folder / "000.wrl").write_text("#VRML, large\n" * 9)
    write_images(root / "BU_WrlViewer_V2/Fear", performance(1, "fear"))
    (root / "F001/Fear/002.jpg").write_bytes(b"damaged")
    metrics, videos, table = run_both_stages(home, "bu4dfe", num_failed=1)
    assert metrics["videos"] == 60
    assert metrics["folds"] == 10
    assert len(table.features) == 59 * 4
    assert videos.groupby("subject").fold_run.nunique().max() == 1
    # the meshes are not part of a sequence: changing one does not make stage one extract it again
    (root / "F001/Sad/000.wrl").write_text("other")
    again = json.loads(
        run_cli_in_process("extract", "--dataset", "bu3dfe", "--verify", "--dry-run", "--json", cwd=home).stdout
    )
    assert again["cached"] == 60


@pytest.mark.parametrize("input", ["video", "crops"])
def test_afew_train_to_val(tmp_path, random_encoder, input):
    home = make_workspace(tmp_path, "afew", random_encoder, **{"input: video": f"input: {input}"})
    for split, count, suffix in (("Train", 3, ""), ("Val", 1, "_Val")):
        for index, label in enumerate(FOLDERS):
            for copy in range(count):
                stem, frames = f"{copy}0{index}00", performance(1 + copy, label)
                write_clip(home / f"data/afew/{split}_AFEW/{FOLDERS[label]}/{stem}.avi", frames)
                aligned = f"AlignedFaces_LBPTOP_Points{suffix}/Faces/{stem}"
                if (split, label) != ("Val", "fear"):
                    write_images(home / f"data/afew/{split}_AFEW/{aligned}", frames)
    if input == "video":
        (home / "data/afew/Val_AFEW/Fear/00200.avi").write_bytes(b"RIFF damaged")
    metrics, videos, _ = run_both_stages(home, "afew", num_failed=1)
    assert metrics["videos"] == 7
    assert metrics["folds"] == 1
    assert set(videos.split) == {"val"}
    assert list(videos.id[videos.status != "ok"]) == ["val/fear/00200"]


@pytest.mark.parametrize("input", ["video", "crops"])
def test_dfew_five_official_folds(tmp_path, random_encoder, input):
    home = make_workspace(tmp_path, "dfew", random_encoder, **{"input: video": f"input: {input}"})
    root = home / "data/dfew/DFEW-part2"
    codes = {1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust", 7: "fear"}
    clips = {7 * fold + code: (code, fold + 1) for fold in range(5) for code in codes}
    for clip, (code, fold) in clips.items():
        frames = performance(1 + fold % ACTORS, codes[code])
        if clip != 11 and input == "crops":
            shifted = tuple(np.roll(frame, number, 1) for number, frame in enumerate(frames))
            write_images(root / f"Clip/clip_224x224/{clip:05d}", shifted, "{}.jpg", 8)
        elif clip != 11:
            write_clip(root / f"Clip/original/part_{fold}/{clip}.mp4", frames)
    for k in range(1, 6):
        for part in ("train", "test"):
            lines = [f"{clip},{code}" for clip, (code, fold) in clips.items() if (fold == k) == (part == "test")]
            file = f"EmoLabel_DataSplit/{part}(single-labeled)/set_{k}.csv"
            create_tree(root, f"{file} = video_name,label|" + "|".join(lines))
    metrics, videos, _ = run_both_stages(home, "dfew", num_failed=1)
    assert metrics["videos"] == 35
    assert metrics["folds"] == 5
    assert (videos.fold == videos.fold_run).all()
    assert list(videos.id[videos.status != "ok"]) == ["00011"]
    checked = run_cli_in_process("check", "--dataset", "dfew", cwd=home)
    assert checked.returncode == 1
    assert "missing 1: 00011 (" in checked.stdout
