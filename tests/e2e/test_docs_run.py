"""The commands on the pages, run as they stand, in the order a reader types them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.cli import ROOT, change, on_path
from helpers.dataset_trees import mmi, workplace
from helpers.docs import PAGES, commands

from ceflpipe.stages.encoder.weights import load_encoder, write_encoder

RUN = {
    "mmi": [("README.md", "## A data set you have"), ("docs/datasets.md", "## Where the data lies")],
    "demo": [
        ("README.md", "## Asking questions of the cache"), ("docs/sweeps.md", ""),
        ("docs/report.md", "## The report"), ("docs/report.md", "## One video"), ("docs/report.md", "## Before you train"),
    ],
}  # fmt: skip
ELSEWHERE = {
    "ceflpipe encoder imagenet": "downloads; test_encoder.py",
    "ceflpipe encoder actors": "trains for minutes; .ci/run",
    "ceflpipe extract --manifest videos.csv --encoder actors --size 112": "the four lines; test_docs.py",
    "ceflpipe train-heads --manifest videos.csv --folds 5": "the four lines; test_docs.py",
    "ceflpipe predict new_video.mp4 --run artifacts/runs/videos/cefl": "the four lines; test_docs.py",
    "ceflpipe extract --dataset dfew --device cuda": "needs a GPU; test_gpu_logic.py",
    "ceflpipe extract --dataset dfew --device cuda --cluster dask://HOST:8786 --resource GPU": "test_cluster.py",
    "ceflpipe extract --dataset dfew --cluster dask://HOST:8786": "test_cluster.py",
    "ceflpipe sweep --dataset dfew --cluster dask://HOST:8786": "test_cluster.py",
    "ceflpipe merge --dataset dfew": "test_cluster.py",
}


def lines_of(page: str, heading: str = "") -> list[str]:
    return commands(ROOT / page, heading, ("ceflpipe ", "export "))


def run_lines(world: str, home: Path, replacing: dict[str, str], **variables: str) -> None:
    for page, heading in RUN[world]:
        lines = [line for line in lines_of(page, heading) if line not in ELSEWHERE]
        assert lines, f"{page}: no command after {heading}"
        script = "\n".join(["set -ex", *lines])
        for here, there in replacing.items():
            script = script.replace(here, there)
        done = subprocess.run(
            ["bash", "-c", script], cwd=home, env=on_path(**variables), capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{page}, {heading}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def short_training(home: Path) -> None:
    shutil.copy(ROOT / "configs/heads.yaml", home / "configs")
    change(home / "configs/heads.yaml", "epochs: 120", "epochs: 1")


def test_every_command_on_a_page_is_run_somewhere():
    run = {line for blocks in RUN.values() for block in blocks for line in lines_of(*block)}
    for page in PAGES:
        missing = set(lines_of(str(page.relative_to(ROOT)))) - run - set(ELSEWHERE)
        assert not missing, f"{page.name}: {missing}: add the block to RUN, or say in ELSEWHERE what runs it"


@pytest.mark.slow
def test_the_commands_for_a_listed_data_set(tmp_path, random_encoder):
    home = workplace(tmp_path / "home", "mmi", random_encoder, **{r"both_size: \[720, 576\]": "both_size: [320, 160]"})
    short_training(home)
    mmi(tmp_path / "MMI/Sessions")
    shutil.rmtree(tmp_path / "MMI/Sessions/503")  # cannot be read, which would make extract exit with 1
    place = str(tmp_path / "MMI")  # which the front page exports, and the page of data sets takes for granted
    run_lines("mmi", home, {"/data/MMI": place}, CEFLPIPE_ROOT_MMI=place)
    assert (home / "artifacts/reports/mmi/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_commands_for_the_demo(tmp_path, random_encoder, face_video):
    home = tmp_path
    shutil.copytree(ROOT / "configs", home / "configs")
    short_training(home)
    change(home / "configs/demo.yaml", "folds: 10", "folds: 3")
    change(
        home / "configs/demo.yaml",
        r"demo: \{.*\}",
        "demo: {subjects: 3, size: 128, frames: [24, 30], fps: 25, seed: 1}",
    )
    weights = load_encoder(random_encoder).state_dict()
    target = home / "artifacts/weights/actors.safetensors"
    write_encoder(target, weights, "actors", "imagenet", {"source": "untrained"})
    (home / "videos").mkdir()
    for name in ("film.mp4", "videos/one.mp4", "videos/two.mp4"):
        shutil.copy(face_video, home / name)
    before = "ceflpipe demo && ceflpipe manifest && ceflpipe extract && ceflpipe train-heads"
    subprocess.run(["bash", "-c", before], cwd=home, env=on_path(), check=True, capture_output=True, timeout=500)
    run_lines("demo", home, {})
    assert len(list((home / "artifacts/sweeps/demo").rglob("sweep*.png"))) >= 2
    assert (home / "film").is_dir()
    assert (home / "all.csv").is_file()
    assert (home / "faces.png").is_file()
