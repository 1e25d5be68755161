"""check, datasets and manifest as a person meets them: found against expected, what is missing by name, where to get it."""

import json
import shutil

import pytest
from helpers.cli import ROOT, run_cli
from helpers.fake_datasets import plant

from ceflpipe.pipeline.commands.cmd_datasets import protocol_of
from ceflpipe.pipeline.config import dataset_names, load_dataset_config
from ceflpipe.pipeline.dataset import LOADERS, DatasetSource

SETS = [
    "afew",
    "bu3dfe",
    "caer",
    "ckplus",
    "cremad",
    "dfew",
    "enterface",
    "ferv39k",
    "mafw",
    "mmi",
    "oulucasia",
    "ravdess",
]
CAER = "CAER/train/Anger/{0001..0012}.avi\nCAER/test/Happy/0001.avi\nCAER/test/Sulking/0001.avi\n"


@pytest.mark.parametrize("name", SETS)
def test_every_configuration_is_whole(name):
    """Keys that dvc.yaml tracks stand in the file itself, and what is expected adds up."""
    import yaml

    text = (ROOT / f"configs/{name}.yaml").read_text()
    tracked = {"loader", "root", "labels", "options", "encoder", "extract", "protocol", "train"}
    assert tracked <= set(yaml.safe_load(text))
    config = load_dataset_config(name)
    assert config.loader in LOADERS
    assert config.root == f"data/{name}"
    assert config.card.description
    assert config.card.access
    for counts in (config.expected.labels, config.expected.splits, config.expected.folds):
        assert not counts or sum(counts.values()) == config.expected.videos
    assert not config.expected.labels or set(config.expected.labels) == set(config.labels)
    if config.protocol.scheme == "official" and config.expected.folds:
        assert len(config.expected.folds) == config.protocol.folds
    assert ("not verified" in text) == bool(config.card.unverified)


def test_every_loader_is_known_and_says_its_layout():
    loaders = {
        file.stem for file in (ROOT / "stages/manifest/loaders").glob("*.py") if "def scan(root" in file.read_text()
    }
    assert loaders == set(LOADERS)
    for name in dataset_names():
        assert len(DatasetSource(name, load_dataset_config(name), ROOT, ROOT, None).layout().splitlines()) >= 2


def test_protocols_are_those_of_the_field():
    assert {name: protocol_of(load_dataset_config(name)) for name in SETS} == {
        "afew": "train -> val", "bu3dfe": "10 folds, subject-wise", "caer": "train -> val", "ckplus": "10 folds, official",
        "cremad": "5 folds, official", "dfew": "5 folds, official", "enterface": "5 folds, official",
        "ferv39k": "train -> val", "mafw": "5 folds, official", "mmi": "10 folds, subject-wise",
        "oulucasia": "10 folds, subject-wise", "ravdess": "6 folds, official",
    }  # fmt: skip


def test_datasets_says_what_is_here_and_where_the_rest_is_to_be_had(tmp_path):
    plant(tmp_path, "data/caer/x/\nelsewhere/")
    env = {"CEFLPIPE_ROOT_MMI": str(tmp_path / "elsewhere")}
    said = json.loads(run_cli("datasets", "--json", cwd=tmp_path, env=env, check=True).stdout)
    assert [one["name"] for one in said] == sorted([*SETS, "demo"])
    here = {one["name"]: one["here"] for one in said if one["here"]}
    assert here == {"caer": "data/caer", "mmi": str(tmp_path / "elsewhere")}
    shown = run_cli("datasets", cwd=tmp_path, check=True).stdout
    assert "caer       CAER; train -> val; here, in data/caer" in shown
    assert "not in data/mmi" in shown
    assert all(load_dataset_config(name).card.access in shown for name in SETS)


def test_datasets_says_all_about_one(tmp_path):
    shown = run_cli("datasets", "mmi", cwd=tmp_path, check=True).stdout
    for words in (
        "mmifacedb.eu",
        "205 videos, 30 subjects",
        "not verified:",
        "session.xml",
        "CEFLPIPE_ROOT_MMI",
        "no, looked in data/mmi",
    ):
        assert words in shown
    wrong = run_cli("datasets", "mni", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean mmi" in wrong.stderr


@pytest.mark.parametrize("command", ["extract", "manifest", "check"])
def test_without_the_data_a_command_says_what_and_where(tmp_path, command):
    result = run_cli(command, "--dataset", "mmi", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    for words in (
        "no folder data/mmi (from root: in configs/mmi.yaml)", "MMI facial expression database: people", "mmifacedb.eu",
        "Sessions/224/S002-106.avi", "--root FOLDER", "export CEFLPIPE_ROOT_MMI=FOLDER",
    ):  # fmt: skip
        assert words in result.stderr
    assert len(result.stderr.splitlines()) < 12
    told = run_cli("manifest", "--dataset", "mmi", cwd=tmp_path, env={"CEFLPIPE_ROOT_MMI": "/nowhere"}).stderr
    assert "no folder /nowhere (from CEFLPIPE_ROOT_MMI)" in told


def test_check_found_against_expected(tmp_path):
    plant(tmp_path / "data/caer", CAER)
    result = run_cli("check", "--dataset", "caer", "--no-probe", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in ("caer, CAER: 13 videos, no subjects, in data/caer", "differs", "13201", "frames: not counted", "left out 1:",
                  "1: the folder Sulking names no expression known here (CAER/test/Sulking/0001.avi)", "not verified:",
                  "no video is labelled fear", "unbalanced: 12 videos of anger"):  # fmt: skip
        assert words in result.stdout, result.stdout
    said = json.loads(run_cli("check", "--dataset", "caer", "--no-probe", "--json", cwd=tmp_path, check=True).stdout)
    assert said["counts"][0] == {"kind": "videos", "name": "", "found": 13, "expected": 13201}
    assert {"kind": "split", "name": "train", "found": 12, "expected": None} in said["counts"]
    assert said["left_out"] == {"the folder Sulking names no expression known here": ["CAER/test/Sulking/0001.avi"]}
    assert said["unverified"]
    assert said["splits"] == {"train": 12, "test": 1}


def test_check_exits_by_what_is_wrong(tmp_path):
    plant(tmp_path, "data/caer/\ndata/ravdess/02-01-03-01-01-01-01.mp4")
    nothing = run_cli("check", "--dataset", "caer", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "no video of caer found in it; expected" in nothing.stderr
    unreadable = run_cli("check", "--dataset", "ravdess", "--probe", cwd=tmp_path)
    assert unreadable.returncode == 1
    assert "02-01-03-01-01-01-01: the file is empty" in unreadable.stdout
    (tmp_path / "data/ravdess/02-01-03-01-01-01-01.mp4").rename(tmp_path / "data/ravdess/02-01-04-01-01-01-01.mp4")
    gone = run_cli("check", "--dataset", "ravdess", "--no-probe", cwd=tmp_path)
    assert gone.returncode == 1
    assert "1 files are not on disk" in gone.stdout
    assert "the manifest is not what the folder holds now" in gone.stdout
    assert "ceflpipe manifest" in gone.stdout


def test_a_manifest_made_with_other_settings_is_not_used(tmp_path):
    plant(tmp_path, "data/oulucasia/{VL,NI}/Strong/P001/Anger/000.jpeg")
    run_cli("manifest", "--dataset", "oulucasia", "--quiet", cwd=tmp_path, check=True)
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs/oulucasia.yaml", tmp_path / "configs")
    assert run_cli("check", "--dataset", "oulucasia", "--no-probe", cwd=tmp_path).returncode == 0
    file = tmp_path / "configs/oulucasia.yaml"
    file.write_text(file.read_text().replace("camera: VL", "camera: NI"))
    stale = run_cli("train-heads", "--dataset", "oulucasia", cwd=tmp_path)
    assert stale.returncode == 2
    assert "options.camera VL, now NI" in stale.stderr
    assert "ceflpipe manifest --dataset oulucasia" in stale.stderr
    run_cli("manifest", "--dataset", "oulucasia", "--quiet", cwd=tmp_path, check=True)
    assert "NI/Strong/P001" in (tmp_path / "artifacts/manifests/oulucasia.csv").read_text()


def test_manifest_says_what_it_left_out_and_what_is_missing(tmp_path):
    plant(tmp_path / "data/bu3dfe", "F001/{Angry,Fear}/000.jpg\nF001/Happy/000.wrl")
    said = run_cli("manifest", "--dataset", "bu3dfe", "--out", "mine.csv", cwd=tmp_path, check=True)
    assert "left out 1: no pictures in it" in said.stderr
    assert "not there 604: F001/disgust, F001/happiness" in said.stderr
    assert (tmp_path / "mine.csv").read_text().count("\n") == 3
    assert not (tmp_path / "artifacts").exists()
