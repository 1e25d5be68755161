"""Commands check, datasets and manifest: actual and expected counts, names of missing parts, how to obtain a data set."""

import json
import os
import re
import shutil

import pytest
import yaml
from helpers.dataset_trees import create_tree
from helpers.run_cli import ROOT, run_cli, run_cli_in_process

from ceflpipe.pipeline.config import (
    DATASET_ALIASES,
    DatasetConfig,
    dataset_names,
    load_cv_config,
    load_dataset_config,
    load_train_config,
)
from ceflpipe.pipeline.dataset import LOADERS, DatasetOptions, DatasetSource

DATASETS = [
    "afew", "bu4dfe", "caer", "ckplus", "cremad", "dfew", "enterface", "ferv39k", "mafw", "mmi", "oulucasia", "ravdess",
]  # fmt: skip
CAER = "CAER/train/Anger/{0001..0012}.avi\nCAER/test/Happy/0001.avi\nCAER/test/Sulking/0001.avi\n"


@pytest.mark.parametrize("name", DATASETS)
def test_every_configuration_is_complete(name):
    """The file contains the keys that dvc.yaml tracks, and its expected counts add up."""
    text = (ROOT / f"configs/{name}.yaml").read_text()
    assert {"loader", "root", "labels", "options", "extract", "cv", "train"} <= set(yaml.safe_load(text))
    config = load_dataset_config(name)
    assert config.loader in LOADERS
    assert config.root == f"data/{name}"
    assert config.card.description
    assert config.card.access
    for counts in (config.expected.labels, config.expected.splits, config.expected.folds):
        assert not counts or sum(counts.values()) == config.expected.videos
    assert not config.expected.labels or set(config.expected.labels) == set(config.labels)
    cv = load_cv_config(config)
    if cv.fold_scheme == "official" and config.expected.folds:
        assert len(config.expected.folds) == cv.folds
    assert ("not verified" in text) == bool(config.card.unverified)


def test_every_loader_is_known_and_describes_its_layout():
    files = (ROOT / "stages/manifest/loaders").glob("*.py")
    assert {file.stem for file in files if "def scan(root" in file.read_text()} == set(LOADERS)
    for name in dataset_names():
        assert len(DatasetSource(name, load_dataset_config(name), ROOT, ROOT, None).layout().splitlines()) >= 2


def test_cross_validation_follows_the_literature():
    assert {name: load_cv_config(load_dataset_config(name)).describe() for name in DATASETS} == {
        "afew": "1 split, train -> val, 1 seed", "bu4dfe": "10 subject-wise folds, 1 seed",
        "caer": "1 split, train -> val, 1 seed", "ckplus": "10 official folds, 1 seed", "cremad": "5 official folds, 1 seed",
        "dfew": "5 official folds, 1 seed", "enterface": "5 official folds, 1 seed",
        "ferv39k": "1 split, train -> val, 1 seed", "mafw": "5 official folds, 1 seed",
        "mmi": "10 subject-wise folds, 1 seed", "oulucasia": "10 subject-wise folds, 1 seed",
        "ravdess": "6 official folds, 1 seed",
    }  # fmt: skip


def test_videos_that_end_at_their_apex_are_tested_up_to_the_last_slot():
    views = {name: load_train_config(load_dataset_config(name)).test_view for name in DATASETS}
    assert {name for name, view in views.items() if view == "end"} == {"ckplus", "oulucasia"}


def test_the_configuration_on_the_page_of_data_sets_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/datasets.md").read_text(), re.DOTALL)
    config = DatasetConfig.model_validate(yaml.safe_load(text))
    assert config.loader in LOADERS
    assert load_cv_config(config).fold_scheme == "stratified"


def test_datasets_lists_what_is_available_and_how_to_obtain_the_rest(tmp_path):
    create_tree(tmp_path, "data/caer/x/\nelsewhere/")
    env = {"CEFLPIPE_ROOT_MMI": str(tmp_path / "elsewhere")}
    cards = json.loads(run_cli("datasets", "--json", cwd=tmp_path, env=env, check=True).stdout)
    assert [card["name"] for card in cards] == sorted([*DATASETS, "demo"])
    available = {card["name"]: card["root"] for card in cards if card["available"]}
    assert available == {"caer": "data/caer", "mmi": str(tmp_path / "elsewhere")}
    printed = run_cli("datasets", cwd=tmp_path, check=True).stdout
    assert re.search(r"caer +CAER; 1 split, train -> val, 1 seed; available in data/caer", printed)
    assert "not in data/mmi" in printed
    assert all(load_dataset_config(name).card.access in printed for name in DATASETS)


def test_datasets_describes_one(tmp_path):
    printed = run_cli("datasets", "mmi", cwd=tmp_path, check=True).stdout
    for text in (
        "mmifacedb.eu", "expected: 205 videos, 30 subjects", "not verified:", "session.xml", "CEFLPIPE_ROOT_MMI",
        "available: no, not in data/mmi",
    ):  # fmt: skip
        assert text in printed
    unknown = run_cli("datasets", "mni", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "did you mean mmi" in unknown.stderr


def test_the_papers_name_of_bu4dfe_is_an_alias(tmp_path):
    assert DATASET_ALIASES == {"bu3dfe": "bu4dfe"}
    assert DatasetOptions(dataset="bu3dfe").resolve() == DatasetOptions(dataset="bu4dfe").resolve()
    assert "bu3dfe" not in dataset_names()
    create_tree(tmp_path / "data/bu4dfe", "F001/{Angry,Fear}/000.jpg")
    for command in (("datasets",), ("check", "--no-probe", "--dataset"), ("manifest", "--dataset")):
        by_alias, by_name = (
            run_cli_in_process(*command, name, cwd=tmp_path, check=True) for name in ("bu3dfe", "bu4dfe")
        )
        assert (by_alias.stdout, by_alias.stderr) == (by_name.stdout, by_name.stderr)
    assert [file.name for file in (tmp_path / "artifacts/manifests").glob("*.csv")] == ["bu4dfe.csv"]
    shutil.rmtree(tmp_path / "data")
    missing = run_cli("manifest", "--dataset", "bu3dfe", cwd=tmp_path, env={"CEFLPIPE_ROOT_BU4DFE": "/nowhere"})
    assert missing.returncode == 2
    assert "bu4dfe: no folder /nowhere (from CEFLPIPE_ROOT_BU4DFE)" in missing.stderr
    assert "export CEFLPIPE_ROOT_BU4DFE=FOLDER" in missing.stderr
    assert "bu3dfe" not in missing.stderr


@pytest.mark.parametrize("command", ["extract", "manifest", "check"])
def test_without_the_data_a_command_says_how_to_obtain_it(tmp_path, command):
    result = run_cli(command, "--dataset", "mmi", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    for text in (
        "no folder data/mmi (from root: in configs/mmi.yaml)", "MMI facial expression database: subjects of 19",
        "How to obtain: ", "mmifacedb.eu", "Sessions/224/S002-106.avi", "Set its location with --root FOLDER",
        "export CEFLPIPE_ROOT_MMI=FOLDER",
    ):  # fmt: skip
        assert text in result.stderr
    assert len(result.stderr.splitlines()) < 12
    result = run_cli(command, "--dataset", "mmi", cwd=tmp_path, env={"CEFLPIPE_ROOT_MMI": "/nowhere"})
    assert "no folder /nowhere (from CEFLPIPE_ROOT_MMI)" in result.stderr


def test_check_prints_actual_and_expected_counts(tmp_path):
    create_tree(tmp_path / "data/caer", CAER)
    result = run_cli("check", "--dataset", "caer", "--no-probe", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for text in (
        "caer, CAER: 13 videos, no subjects, in data/caer", "differs", "13201", "frames: not counted", "skipped 1:",
        "1: the folder Sulking does not name a known expression (CAER/test/Sulking/0001.avi)", "not verified:",
        "no video has the label fear", "unbalanced: 12 videos of anger",
    ):  # fmt: skip
        assert text in result.stdout
    report = json.loads(run_cli("check", "--dataset", "caer", "--no-probe", "--json", cwd=tmp_path, check=True).stdout)
    assert report["counts"][0] == {"kind": "videos", "name": "", "actual": 13, "expected": 13201}
    assert {"kind": "split", "name": "train", "actual": 12, "expected": None} in report["counts"]
    skipped = {"the folder Sulking does not name a known expression": ["CAER/test/Sulking/0001.avi"]}
    assert report["skipped"] == skipped
    assert report["unverified"]
    assert report["splits"] == {"train": 12, "test": 1}


def test_check_exit_codes(tmp_path):
    create_tree(tmp_path, "data/caer/\ndata/ravdess/02-01-03-01-01-01-01.mp4")
    empty = run_cli("check", "--dataset", "caer", cwd=tmp_path)
    assert empty.returncode == 2
    assert "no video of caer in it; expected" in empty.stderr
    unreadable = run_cli("check", "--dataset", "ravdess", "--probe", cwd=tmp_path)
    assert unreadable.returncode == 1
    assert "02-01-03-01-01-01-01: the file is empty" in unreadable.stdout
    (tmp_path / "data/ravdess/02-01-03-01-01-01-01.mp4").rename(tmp_path / "data/ravdess/02-01-04-01-01-01-01.mp4")
    missing = run_cli("check", "--dataset", "ravdess", "--no-probe", cwd=tmp_path)
    assert missing.returncode == 1
    assert "1 files are missing" in missing.stdout
    assert "the manifest differs from the folder (1 videos of the folder" in missing.stdout
    assert "recreate it with ceflpipe manifest --dataset ravdess" in missing.stdout


@pytest.mark.slow
def test_a_manifest_created_with_other_settings_is_refused(tmp_path):
    create_tree(tmp_path, "data/oulucasia/{VL,NI}/Strong/P001/Anger/000.jpeg")
    run_cli("manifest", "--dataset", "oulucasia", "--quiet", cwd=tmp_path, check=True)
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs/oulucasia.yaml", tmp_path / "configs")
    assert run_cli("check", "--dataset", "oulucasia", "--no-probe", cwd=tmp_path).returncode == 0
    file = tmp_path / "configs/oulucasia.yaml"
    file.write_text(file.read_text().replace("camera: VL", "camera: NI"))
    refused = run_cli("train-heads", "--dataset", "oulucasia", cwd=tmp_path)
    assert refused.returncode == 2
    assert "options.camera VL, now NI" in refused.stderr
    assert "recreate it with ceflpipe manifest --dataset oulucasia" in refused.stderr
    run_cli("manifest", "--dataset", "oulucasia", "--quiet", cwd=tmp_path, check=True)
    assert "NI/Strong/P001" in (tmp_path / "artifacts/manifests/oulucasia.csv").read_text()


@pytest.mark.slow
def test_a_manifest_of_videos_is_refused_for_face_crops(tmp_path):
    """AFEW and DFEW are distributed as videos and as crops: extract.input decides which are listed."""
    create_tree(tmp_path, "data/afew/{Train,Val}/Happy/1.avi")
    run_cli("manifest", "--dataset", "afew", "--quiet", cwd=tmp_path, check=True)
    (tmp_path / "configs").mkdir()
    text = (ROOT / "configs/afew.yaml").read_text()
    (tmp_path / "configs/afew.yaml").write_text(text.replace("input: video", "input: crops"))
    refused = run_cli("train-heads", "--dataset", "afew", cwd=tmp_path)
    assert refused.returncode == 2
    assert "extract.input video, now crops" in refused.stderr
    (tmp_path / "configs/afew.yaml").write_text(text)
    refused = run_cli("extract", "--dataset", "afew", "--encoder", "x", "--input", "crops", cwd=tmp_path)
    assert refused.returncode == 2
    assert "set extract: {input: crops} in configs/afew.yaml" in refused.stderr


def test_a_configuration_of_ones_own_is_not_hidden_by_an_alias(tmp_path):
    (tmp_path / "configs").mkdir()
    text = (ROOT / "configs/bu4dfe.yaml").read_text()
    (tmp_path / "configs/bu3dfe.yaml").write_text(re.sub("root: .*", "root: data/elsewhere", text))
    refused = run_cli("check", "--dataset", "bu3dfe", cwd=tmp_path)
    assert refused.returncode == 2
    assert "no folder data/elsewhere" in refused.stderr


def test_manifest_prints_skipped_and_missing_parts(tmp_path):
    create_tree(tmp_path / "data/bu4dfe", "F001/{Angry,Fear}/000.jpg\nF001/Happy/000.wrl")
    result = run_cli("manifest", "--dataset", "bu4dfe", "--out", "own.csv", cwd=tmp_path, check=True)
    assert "skipped 1: no images in it (F001/Happy)" in result.stderr
    assert "missing 604: F001/disgust, F001/happiness" in result.stderr
    assert (tmp_path / "own.csv").read_text().count("\n") == 3
    assert not (tmp_path / "artifacts").exists()


def test_a_folder_list_says_what_it_passed_over(tmp_path):
    create_tree(tmp_path, "own/Happy/{a.mp4,a.avi,cover.jpg,notes.txt,more.txt}\nown/Su/b.mp4")
    result = run_cli_in_process("manifest", "--folder", "own", cwd=tmp_path, check=True)
    for line in (
        "skipped 1: an image beside videos (Happy/cover.jpg)",
        "skipped 2: the ending .txt is not that of a video (Happy/more.txt, Happy/notes.txt)",
        "skipped 1: no folder above it names an expression (Su/b.mp4)",
    ):
        assert line in result.stderr
    assert [line.split(",")[0] for line in (tmp_path / "own/videos.csv").read_text().splitlines()] == [
        "id", "Happy/a.avi", "Happy/a.mp4",
    ]  # fmt: skip
    again = run_cli_in_process("manifest", "--folder", "own", cwd=tmp_path, check=True)
    assert "the ending .csv" not in again.stderr
    assert run_cli_in_process("check", "--manifest", "own/videos.csv", "--no-probe", cwd=tmp_path).returncode == 0


def test_a_list_elsewhere_has_absolute_paths(tmp_path):
    create_tree(tmp_path, "own/Happy/a.mp4\nlists/")
    run_cli_in_process("manifest", "--folder", "own", "--out", "lists/l.csv", cwd=tmp_path, check=True)
    assert f"Happy/a,{tmp_path}/own/Happy/a.mp4,happiness" in (tmp_path / "lists/l.csv").read_text()
    checked = run_cli_in_process("check", "--manifest", "lists/l.csv", "--no-probe", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert not any("leads out" in line or "missing" in line for line in json.loads(checked.stdout)["warnings"])


def test_a_folder_without_a_class_says_what_was_passed_over(tmp_path):
    create_tree(tmp_path, "own/An/b.mp4\nown/notes.txt")
    result = run_cli_in_process("manifest", "--folder", "own", cwd=tmp_path)
    assert result.returncode == 2
    assert "skipped 1: no folder above it names an expression (An/b.mp4)" in result.stderr


def test_the_list_of_a_configuration_may_lead_out_with_permission_only(tmp_path):
    create_tree(tmp_path, f"own/videos.csv = path,label|{tmp_path}/elsewhere/a.mp4,fear|\nelsewhere/a.mp4")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/own.yaml").write_text(
        "title: own\nloader: csv_list\nroot: own\nlabels: [fear]\noptions: {}\nextract: {}\ncv: {}\ntrain: {}\n"
    )
    command = ("check", "--dataset", "own", "--no-probe")
    refused = run_cli_in_process(*command, cwd=tmp_path)
    assert refused.returncode == 2
    assert "leads out of own; allow it with --allow-external-paths" in refused.stderr
    assert run_cli_in_process(*command, "--allow-external-paths", cwd=tmp_path).returncode == 0


def test_names_that_are_not_utf8_are_listed_and_printed(tmp_path):
    """With the streams of most systems, which refuse to print what is not text."""
    (tmp_path / "own/Happy").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "own/Happy" / os.fsdecode(b"caf\xe9%d.mp4" % number)).write_bytes(b"same")
    env = {"PYTHONIOENCODING": "utf-8:strict"}
    run_cli("manifest", "--folder", "own", cwd=tmp_path, env=env, check=True)
    command = ("check", "--manifest", "own/videos.csv", "--no-probe")
    assert "have the same bytes" in run_cli(*command, cwd=tmp_path, env=env, check=True).stdout
    report = json.loads(run_cli(*command, "--json", cwd=tmp_path, env=env, check=True).stdout)
    assert report["missing"] == []
    assert any(os.fsdecode(b"caf\xe91.mp4") in line for line in report["warnings"])
